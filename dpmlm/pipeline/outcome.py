"""The last stage: the gate, the bundle, and the two reports."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from math import isfinite, nan
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SealedFolder, load_model
from dpmlm.artifacts.atomic import replace_folder, settle_folder
from dpmlm.canonical import digest
from dpmlm.config import DedupConfig, RunConfig
from dpmlm.config.masking import MaskingConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.data import named_vocabulary
from dpmlm.pipeline.earlier_text import told
from dpmlm.pipeline.evaluation import FORGETTING
from dpmlm.pipeline.logged import check_run_log
from dpmlm.pipeline.models import EVENTS, open_ledger, planned
from dpmlm.pipeline.openers import tell_changed_openers
from dpmlm.pipeline.outgoing import refuse_leaks
from dpmlm.pipeline.progress import Progress, Report
from dpmlm.pipeline.recall import RECALL, recall_evidence
from dpmlm.pipeline.roundtrip import refuse_damaging
from dpmlm.pipeline.stages import Stage
from dpmlm.pipeline.tombstones import refuse_forgotten
from dpmlm.pipeline.workspace import BUNDLE, deciding_settings
from dpmlm.privacy import PrivacyPlan, Statement, statement
from dpmlm.privacy.accountants import AccountantFailure, epsilon_of
from dpmlm.privacy.ancestor import ancestor_of
from dpmlm.privacy.headroom import epsilon_after
from dpmlm.release import (
    BuildInputs,
    Decision,
    PrivateFigures,
    ReleasePolicy,
    ReportData,
    decide,
    load_policy,
    model_card,
    public_evidence,
    render_report,
    write_bundle,
)
from dpmlm.release.gate import not_covered
from dpmlm.release.inventory import MANIFEST, compare
from dpmlm.release.report.fields import COMMON
from dpmlm.release.signed import peek
from dpmlm.release.verification import SCHEMA

REPORT = "report"
"""Name of the auditor's page inside the release folder."""
AUDITOR = "auditor"
"""Folder of it."""
RELEASED = "the model's weights, the tokenizer and the public figures of this bundle"
"""What the statement of a bundle is about."""
CURVE_POINTS = 5
"""Steps at which the report shows the epsilon spent; each costs two accountants half a second."""


def gather(run: Run) -> dict[str, Any]:
    """The facts that a policy is held against."""
    _, run_id = planned(run)
    ledger = open_ledger(run.config.ledger, run.signing)
    if ledger.key_id is not None:
        ledger.verify(trusted={run.signing.key_id: run.signing.verify_key})
    return {
        "plan": run.folder("plan").read_json("plan"),
        "ledger": ledger.summary(run_id),
        "audit": run.folder("audit").read_json("evidence"),
        "training": _training_facts(run),
        "scrub": {"recall": recall_evidence(run)},
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
        "masking_ratio": _masking_ratio(config.masking),
        "scrub_policy": Path(config.scrub.policy).name,
        "near_duplicates": config.dedup.near.threshold if config.dedup.near else "kept",
        "repeated_passages": _passages(config.dedup),
        **_forgotten(run),
    }


def _forgotten(run: Run) -> dict[str, Any]:
    """What training further cost on public text; without privacy the weights would tell more."""
    evaluation = run.folder("evaluation")
    if not evaluation.has(FORGETTING) or not planned(run)[0].private:
        return {}
    return told(evaluation.read_json(FORGETTING))


def _masking_ratio(masking: MaskingConfig) -> float | str:
    if masking.ratio_end is None:
        return masking.ratio
    return f"{masking.ratio} to {masking.ratio_end}"


def _passages(dedup: DedupConfig) -> str:
    if dedup.passages is None or not dedup.passages.cut:
        return "kept"
    return (
        f"cut from {dedup.passages.words} words in more than {dedup.passages.documents} documents"
    )


def _counts(run: Run, stage: str) -> dict[str, Any]:
    manifest = run.folder(stage).manifest or {}
    counts: dict[str, Any] = manifest.get("counts", {})
    return counts


def judge(config: RunConfig, policy: str | None = None) -> Decision:
    """Decide on a run whose audits are done, under its own policy or another; writes nothing."""
    run = Run.load(config, Progress(quiet=True))
    run.workspace.check(config.name, deciding_settings(config))
    from dpmlm.pipeline.waiving import waivers_of

    chosen = load_policy(policy or config.release.policy)
    # A waiver is about the run's own policy; another one is tried without.
    waivers = waivers_of(run) if policy is None else []
    return decide(chosen, gather(run), now=datetime.now(UTC), waivers=waivers)


def _release(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    refuse_forgotten(run, open_ledger(run.config.ledger))
    policy = load_policy(run.config.release.policy)
    facts, decision = _decided(run, folder, policy)
    plan, _ = planned(run)
    claim = _claim(plan, facts, decision)
    data = report_data(run, facts, decision, claim.to_json(), plan)
    shutil.rmtree(folder.path / AUDITOR, ignore_errors=True)
    sealed = SealedFolder.create(folder.path / AUDITOR, run.keepers, role="auditor-report")
    sealed.write_bytes(REPORT, render_report(data, private=True).encode())
    sealed.write_json("evidence", facts["audit"])
    sealed.finish({"verdict": decision.verdict})
    model, tokenizer = load_model(run.folder("training"))
    refuse_damaging(tokenizer, f"the tokenizer of {named_vocabulary(run.config)}")
    bundle = run.workspace.stage(BUNDLE)
    draft = _swept(bundle)
    tell_changed_openers(run, bundle, passed=decision.verdict == "PASS")
    check_run_log(run)
    write_bundle(
        draft,
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
        model_card=model_card(data),
        inputs=build_inputs(run),
        opener=run.identity,
        training=facts["training"],
        log=run.config.release.log,
        check=partial(refuse_leaks, run),
    )
    signed = _manifest_digest(draft)
    replace_folder(draft, bundle)
    return {"counts": {"verdict": decision.verdict}, "bundle": signed}


def build_inputs(run: Run) -> BuildInputs:
    """What the provenance of a release names of its run; digests of ciphertext, nothing private."""
    return BuildInputs(
        settings=digest(deciding_settings(run.config)),
        code=(run.folder("training").manifest or {})["code"],
        stages={name: run.folder(name).digest for name in _lineage(run.config.dedup)},
    )


def _decided(
    run: Run, folder: SealedFolder, policy: ReleasePolicy
) -> tuple[dict[str, Any], Decision]:
    """Facts and decision: taken once under one policy, however often the bundle is made."""
    from dpmlm.pipeline.waiving import waivers_of

    if not folder.has("decision"):
        facts = gather(run)
        decision = decide(policy, facts, now=datetime.now(UTC), waivers=waivers_of(run))
        folder.write_json("facts", facts)
        # Last: its presence says that the facts are there.
        folder.write_json("decision", decision.to_json())
    return folder.read_json("facts"), Decision.from_json(folder.read_json("decision"))


def _swept(bundle: Path) -> Path:
    """Where a new bundle is written, after what killed attempts left is removed."""
    draft = bundle.with_name(f"{BUNDLE}.next")
    settle_folder(bundle)
    for left in (draft, *bundle.parent.glob(f".{BUNDLE}.*.partial")):
        shutil.rmtree(left, ignore_errors=True)
    return draft


def _intact(run: Run, folder: SealedFolder) -> bool:
    """Whether the bundle and the auditor's page are, byte for byte, what the stage left."""
    bundle = run.workspace.stage(BUNDLE)
    try:
        SealedFolder.open(folder.path / AUDITOR, [run.identity]).verify()
        if (folder.manifest or {}).get("bundle") != _manifest_digest(bundle):
            return False
    except (UserError, OSError):
        return False
    _, signed = peek((bundle / MANIFEST).read_bytes())
    return not compare(bundle, signed["predicate"]["files"])


def _manifest_digest(bundle: Path) -> str:
    return "sha256:" + hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()


def _claim(plan: PrivacyPlan, facts: Mapping[str, Any], decision: Decision) -> Statement:
    beyond = not_covered(decision.rules)
    return statement(plan, what=RELEASED, summary=facts["ledger"], not_covered=beyond)


def current_claim(run: Run) -> Statement | None:
    """The signed claim of a finished run, else the ledger's of a run that was reserved."""
    if run.finished("plan") is None:
        return None
    plan, run_id = planned(run)
    released = run.finished("release")
    if released is not None:
        decision = Decision.from_json(released.read_json("decision"))
        return _claim(plan, released.read_json("facts"), decision)
    ledger = open_ledger(run.config.ledger)
    if run_id not in ledger.run_ids:
        return None
    return statement(plan, what="the trained weights", summary=ledger.summary(run_id))


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
        "settings of the run": digest(deciding_settings(run.config)),
        "code that trained": (run.folder("training").manifest or {})["code"],
        **{name: run.folder(name).digest for name in _lineage(run.config.dedup)},
    }
    return ReportData(
        name=run.config.name,
        created=decision.decided,
        statement=claim,
        plan=facts["plan"],
        decision=decision,
        evidence=facts["audit"],
        ledger=facts["ledger"],
        epsilon_curve=epsilon_curve(plan),
        delta_curve=delta_curve(plan),
        training=facts["training"],
        digests=digests,
        versions=versions,
        base=_base(run.config, plan),
        intended_use=run.config.release.intended_use,
        private=_private_figures(run, facts),
    )


def _base(config: RunConfig, plan: PrivacyPlan) -> str:
    """What the training started from, in words; empty for random weights."""
    found = ancestor_of(plan)
    if found is None:
        return config.model.from_ or ""
    return f"the release {found.release} of run {found.run_id}, whose epsilon counts in the claim"


def epsilon_curve(plan: PrivacyPlan) -> list[tuple[int, float]]:
    """Steps and the epsilon spent by then, counted as the ledger counts; none if not private."""
    if not plan.private:
        return []
    steps = sorted({max(1, round(plan.steps * i / CURVE_POINTS)) for i in range(CURVE_POINTS + 1)})
    return [(step, epsilon_after(plan, step)) for step in steps]


def _lineage(dedup: DedupConfig) -> tuple[str, ...]:
    """The stages that the released model came through, in order."""
    middle = ("dedup", "scrub") if dedup.before_scrub else ("scrub", "dedup")
    return ("corpus", *middle, "tokens", "canaries", "training", "audit")


def delta_curve(plan: PrivacyPlan) -> dict[str, list[tuple[float, float]]]:
    """Epsilon of the whole plan at 8 deltas around its own, by accountant; none if not private.

    PLD, which is tight, and RDP, which shares no formula with it; RDP alone bounds discrete noise.
    An accountant that has no finite figure for the plan is left out.
    """
    if not plan.private:
        return {}
    deltas = [plan.delta * 10.0**power for power in range(-5, 3)]
    curves = {}
    for name in dict.fromkeys((plan.second_accountant, "rdp")):
        with suppress(AccountantFailure):  # of some plans RDP is infinite at every order
            points = [(x, epsilon_of(name, plan.composition(), x)) for x in deltas if x < 1]
            if all(isfinite(epsilon) for _, epsilon in points):
                curves[name.upper()] = points
    return curves


def _private_figures(run: Run, facts: Mapping[str, Any]) -> PrivateFigures:
    lines = run.folder("training").read_bytes(EVENTS).splitlines()
    events = [json.loads(line) for line in lines]
    corpus, scrub, dedup = (_counts(run, stage) for stage in ("corpus", "scrub", "dedup"))
    evaluation = run.folder("evaluation").read_json("evaluation")
    stages = ["corpus", "scrub", "dedup", "tokens", "training", "control", "evaluation", "audit"]
    if run.config.scrub.gold is not None:
        stages.append(RECALL.name)
    return PrivateFigures(
        loss_curve=_curve(events, "loss"),
        norm_curve=_curve(events, "median_norm"),
        clipped_curve=_curve(events, "clipped"),
        documents={
            "read": corpus["documents"]
            + sum(corpus["dropped"].values())
            + corpus.get("forgotten", 0)
            + corpus.get("quarantined", 0),
            **{name: corpus[name] for name in ("forgotten", "quarantined") if name in corpus},
            "with text": corpus["documents"],
            "after scrubbing": scrub["documents"],
            "after deduplication": dedup["documents"],
            **(
                {"shortened by repeated passages": dedup["cut_documents"]}
                if "passages" in dedup
                else {}
            ),
            "units": corpus["units"],
            "held-out units": corpus["validation_units"],
            "held-out documents like one in training": dedup["cross_split_pairs"],
        },
        scrubbed=scrub["found"],
        recall=facts["scrub"]["recall"],
        duplicates=dedup["removed"],
        dropped={**corpus["dropped"], **{k: v for k, v in scrub["dropped"].items() if v}},
        evaluation={
            when: _held_out_figures(evaluation, when)
            for when in ("before", "after")
            if evaluation[when]
        },
        seconds={name: (run.folder(name).manifest or {})["seconds"] for name in stages},
    )


def _held_out_figures(evaluation: Mapping[str, Any], when: str) -> dict[str, Any]:
    """Averages of one moment, and the first guess by how common words are in public text."""
    by_bucket = {
        f"{COMMON} {bucket['bucket']}": bucket[when]["top1"]
        for bucket in evaluation.get("buckets", ())
        if bucket.get(when)
    }
    return {**evaluation[when], **by_bucket}


def _curve(events: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """A private figure of each step that recorded it; NaN where the step had no number."""
    found = [(event["step"], event["private"]) for event in events]
    return [(step, nan if own[name] is None else own[name]) for step, own in found if name in own]


def _settings(run: Run) -> dict[str, Any]:
    release = run.config.release
    # Of private text, but no input: a new measurement makes a new decision, not another run.
    gold = run.config.scrub.gold
    measured = {} if gold is None else {"recall": run.folder(RECALL.name).digest}
    use = release.intended_use
    return {
        **measured,
        **({"intended_use": use} if use else {}),
        **({"waivers": sorted(map(_file_digest, release.waivers))} if release.waivers else {}),
        "bundle": SCHEMA,
        "policy": load_policy(release.policy).digest,
        "recipients": sorted(recipient.key_id for recipient in run.consumers),
        "keepers": sorted(recipient.key_id for recipient in run.keepers),
        "choices": open_ledger(run.config.ledger).choices(),
    }


def _file_digest(path: Path) -> str:
    from dpmlm.release.waivers import load_waiver

    return digest(dict(load_waiver(path).envelope))


RELEASE = Stage(
    "release",
    ("plan", "corpus", "scrub", "dedup", "tokens", "canaries", "training", "evaluation", "audit"),
    _settings,
    _release,
    renewable=True,
    intact=_intact,
)


def read_outcome(run: Run) -> dict[str, Any]:
    """Verdict, whether its policy looks at nothing private, and public evidence of a finished
    run."""
    decision = Decision.from_json(run.folder("release").read_json("decision"))
    return {
        "verdict": decision.verdict,
        "covers_verdict": not not_covered(decision.rules),
        "evidence": public_evidence(run.folder("audit").read_json("evidence")),
    }
