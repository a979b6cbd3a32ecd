"""The last stage: the gate, the bundle, and the two reports."""

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SealedFolder, load_model
from dpmlm.config import RunConfig
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.models import EVENTS, open_ledger, planned
from dpmlm.pipeline.progress import Progress, Report
from dpmlm.pipeline.stages import Stage
from dpmlm.pipeline.workspace import deciding_settings
from dpmlm.privacy import PrivacyPlan, statement
from dpmlm.release import (
    Decision,
    PrivateFigures,
    ReportData,
    decide,
    load_policy,
    model_card,
    public_evidence,
    render_report,
    write_bundle,
)

BUNDLE = "bundle"
REPORT = "report"
"""Name of the auditor's page inside the release folder."""
CURVE_POINTS = 12
"""Steps at which the report shows the epsilon spent; each costs the accountant a moment."""


def gather(run: Run) -> dict[str, Any]:
    """The facts that a policy is held against."""
    _, run_id = planned(run)
    return {
        "plan": run.folder("plan").read_json("plan"),
        "ledger": open_ledger(run.config.ledger).summary(run_id),
        "audit": run.folder("audit").read_json("evidence"),
        "training": _training_facts(run),
    }


def _training_facts(run: Run) -> dict[str, Any]:
    """Public facts of the training: settings and the digest of the weights."""
    counts = _counts(run, "training")
    config = run.config
    return {
        "model_digest": counts["model"],
        "steps": counts["steps"],
        "learning_rate": config.training.learning_rate,
        "precision": config.training.precision,
        "window": config.tokens.window,
        "masking": config.masking.strategy,
        "masking_ratio": config.masking.ratio,
        "scrub_policy": Path(config.scrub.policy).name,
        "near_duplicates": config.dedup.near.threshold if config.dedup.near else "kept",
    }


def _counts(run: Run, stage: str) -> dict[str, Any]:
    manifest = run.folder(stage).manifest or {}
    counts: dict[str, Any] = manifest.get("counts", {})
    return counts


def judge(config: RunConfig, policy: str | None = None) -> Decision:
    """Decide on a run whose audits are done, under its own policy or another; writes nothing."""
    run = Run.load(config, Progress(quiet=True))
    run.workspace.check(config.name, deciding_settings(config))
    chosen = load_policy(policy or config.release.policy)
    return decide(chosen, gather(run), now=datetime.now(UTC))


def _release(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    plan, _ = planned(run)
    facts = gather(run)
    policy = load_policy(run.config.release.policy)
    decision = decide(policy, facts, now=datetime.now(UTC))
    claim = statement(
        plan,
        what="the model's weights, the tokenizer and the public figures of this bundle",
        summary=facts["ledger"],
        not_covered=_not_covered(decision),
    )
    data = report_data(run, facts, decision, claim.to_json(), plan)
    sealed = SealedFolder.open_or_create(
        folder.path / "auditor", [run.identity], run.keepers, role="auditor-report"
    )
    sealed.write_bytes(REPORT, render_report(data, private=True).encode())
    sealed.write_json("evidence", facts["audit"])
    sealed.finish({"verdict": decision.verdict})
    model, tokenizer = load_model(run.folder("training"))
    bundle = run.workspace.stage(BUNDLE)
    # Left by an attempt that was killed after or while writing it: the decision is made again,
    # from the same facts.
    for left in (bundle, *bundle.parent.glob(f".{BUNDLE}.*.partial")):
        shutil.rmtree(left, ignore_errors=True)
    write_bundle(
        bundle,
        model=model,
        tokenizer=tokenizer,
        statement=claim,
        plan=plan,
        evidence_public=public_evidence(facts["audit"]),
        decision=decision,
        ledger_summary=facts["ledger"],
        policy=policy,
        recipients_consumer=run.consumers,
        recipients_keep=run.keepers,
        signing_key=run.signing,
        report_html=render_report(data, private=False),
        model_card=model_card(data, base=run.config.model.from_ or ""),
        training=facts["training"],
    )
    folder.write_json("decision", decision.to_json())
    return {"counts": {"verdict": decision.verdict}}


def _not_covered(decision: Decision) -> list[str]:
    """A verdict that looked at private figures is an output that the claim does not bound."""
    if any(rule.private for rule in decision.rules):
        return ["the verdict, as rules of its policy look at figures of the private text"]
    return []


def report_data(
    run: Run,
    facts: Mapping[str, Any],
    decision: Decision,
    claim: Mapping[str, Any],
    plan: PrivacyPlan,
) -> ReportData:
    """Everything both pages show; the public one leaves `private` out."""
    versions = dict(facts["audit"].get("versions", {}))
    digests = {
        "model": facts["training"]["model_digest"],
        "plan": plan.digest,
        "policy": decision.policy_digest,
        **{name: run.folder(name).digest for name in ("corpus", "tokens", "canaries", "training")},
    }
    return ReportData(
        name=run.config.name,
        created=decision.decided,
        statement=claim,
        plan=facts["plan"],
        decision=decision,
        evidence=facts["audit"],
        ledger=facts["ledger"],
        epsilon_curve=_epsilon_curve(plan),
        training=facts["training"],
        digests=digests,
        versions=versions,
        private=_private_figures(run),
    )


def _epsilon_curve(plan: PrivacyPlan) -> list[tuple[int, float]]:
    if not plan.private:
        return []
    steps = sorted({max(1, round(plan.steps * i / CURVE_POINTS)) for i in range(CURVE_POINTS + 1)})
    return [(step, plan.epsilon_spent(step)) for step in steps]


def _private_figures(run: Run) -> PrivateFigures:
    lines = run.folder("training").read_bytes(EVENTS).splitlines()
    events = [json.loads(line) for line in lines]
    corpus, scrub, dedup = (_counts(run, stage) for stage in ("corpus", "scrub", "dedup"))
    evaluation = run.folder("evaluation").read_json("evaluation")
    losses = [(event["step"], event["private"]["loss"]) for event in events]
    stages = ("corpus", "scrub", "dedup", "tokens", "training", "control", "evaluation", "audit")
    return PrivateFigures(
        loss_curve=[(step, loss) for step, loss in losses if loss is not None],
        documents={
            "read": corpus["documents"] + sum(corpus["dropped"].values()),
            "with text": corpus["documents"],
            "after scrubbing": scrub["documents"],
            "after deduplication": dedup["documents"],
            "units": corpus["units"],
            "held-out units": corpus["validation_units"],
            "pairs of like documents across the split": dedup["cross_split_pairs"],
        },
        scrubbed=scrub["found"],
        duplicates=dedup["removed"],
        dropped={**corpus["dropped"], **{k: v for k, v in scrub["dropped"].items() if v}},
        evaluation={when: evaluation[when] for when in ("before", "after") if evaluation[when]},
        seconds={name: (run.folder(name).manifest or {})["seconds"] for name in stages},
    )


def _settings(run: Run) -> dict[str, Any]:
    release = run.config.release
    return {
        "policy": load_policy(release.policy).digest,
        "recipients": sorted(recipient.key_id for recipient in run.consumers),
        "keepers": sorted(recipient.key_id for recipient in run.keepers),
    }


RELEASE = Stage(
    "release",
    ("plan", "corpus", "scrub", "dedup", "tokens", "canaries", "training", "evaluation", "audit"),
    _settings,
    _release,
)


def read_outcome(run: Run) -> dict[str, Any]:
    """Verdict and public evidence of a finished run."""
    decision = run.folder("release").read_json("decision")
    return {
        "verdict": decision["verdict"],
        "evidence": public_evidence(run.folder("audit").read_json("evidence")),
    }
