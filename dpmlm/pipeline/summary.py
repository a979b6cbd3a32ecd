"""The figures of a run, public apart from private, and a table of them."""

from collections.abc import Sequence
from typing import Any

from dpmlm.pipeline.context import Run
from dpmlm.pipeline.jumps import jumps_row, loss_jumps
from dpmlm.pipeline.models import open_ledger, planned
from dpmlm.pipeline.outcome import current_claim


def public_figures(run: Run) -> dict[str, Any]:
    """What follows from the plan, the ledger, the canaries and the noised model."""
    figures: dict[str, Any] = {}
    if run.finished("plan") is not None:
        plan, run_id = planned(run)
        ledger = open_ledger(run.config.ledger)
        figures["plan"] = plan.to_json()
        if run_id in ledger.run_ids:
            figures["ledger"] = ledger.summary(run_id)
    claim = current_claim(run)
    if claim is not None:
        figures["statement"] = claim.to_json()
    audit = run.finished("audit")
    if audit is not None:
        figures["audit"] = attacks(audit.read_json("evidence"))
    return figures


def attacks(evidence: dict[str, Any]) -> dict[str, Any]:
    """The short form of the evidence: what was tried on whom, and what came of it."""
    shown: dict[str, Any] = {"power": evidence["power"]["status"]}
    for name, subject in evidence["subjects"].items():
        if subject is None:
            continue
        gating, exposure = subject["gating"], subject["exposure"]
        shown[name] = {
            "gating": {
                key: gating.get(key)
                for key in ("correct", "guesses", "needed", "needed_strict", "rejected")
            },
            "exposure": {key: exposure.get(key) for key in ("mean_bits", "ceiling_bits")},
            "extracted": subject["canary_extraction"].get("extracted"),
            "inserted": subject["canary_extraction"].get("n"),
            "rejected_by": subject["rejected_by"],
        }
    return shown


def private_figures(run: Run, stages: Sequence[str]) -> dict[str, Any]:
    """What is computed from the private text: for whoever may read the corpus.

    Wall times are among it: how long a stage took tells how much text there was.
    """
    folders = {name: run.finished(name) for name in stages}
    figures: dict[str, Any] = {
        "seconds": {
            name: folder.manifest["seconds"]
            for name, folder in folders.items()
            if folder is not None and folder.manifest is not None
        }
    }
    for stage in ("corpus", "scrub", "dedup", "tokens"):
        folder = folders[stage]
        if folder is not None and folder.manifest is not None:
            figures[stage] = folder.manifest["counts"]
    evaluation, audit = folders["evaluation"], folders["audit"]
    recall = folders["recall"] if run.config.scrub.gold is not None else None
    if recall is not None:
        figures["recall"] = recall.read_json("recall")
    jumps = loss_jumps(run.workspace.path, run.identity)
    if jumps is not None:
        figures["loss_jumps"] = jumps
    if evaluation is not None:
        figures["evaluation"] = evaluation.read_json("evaluation")
    if audit is not None:
        figures["verbatim"] = audit.read_json("evidence").get("verbatim")
    return figures


def table(result: dict[str, Any]) -> str:
    """A run's JSON as lines for a terminal."""
    public, private = result["public"], result["private"]
    rows: list[tuple[str, str]] = []
    if result["verdict"]:
        rows.append(("verdict", result["verdict"]))
    plan, ledger, claim = (public.get(name) for name in ("plan", "ledger", "statement"))
    if claim:
        rows.append(("claim", f"epsilon {claim['epsilon']}, delta {claim['delta']:g}, one "
                     f"{claim['unit']}, {claim['scope']}"))  # fmt: skip
    if plan:
        rows.append(("noise", f"{plan['noise_multiplier']:.4f} x max_grad_norm, {plan['steps']} "
                     f"steps, sample_rate {plan['sample_rate']:.4f}"
                     + (f", {plan['bands']} bands" if plan["bands"] > 1 else "")))  # fmt: skip
    if ledger:
        rows.append(("ledger", f"{ledger['charged_steps']} steps charged, "
                     f"{ledger['committed_steps']} in the model"))  # fmt: skip
    rows += _attack_rows(public.get("audit"))
    if private:
        rows += private_rows(private)
    for name in ("workspace", "bundle", "report"):
        if result[name]:
            rows.append((name, result[name]))
    lines = [f"{name:<12} {value}" for name, value in rows]
    if claim:
        lines += ["", claim["sentence"], claim["note"]]
    return "\n".join(lines)


def _attack_rows(audit: dict[str, Any] | None) -> list[tuple[str, str]]:
    if not audit:
        return []
    rows = [("audit power", audit["power"])]
    for name in ("target", "control", "untrained"):
        if name not in audit:
            continue
        one = audit[name]
        gating, exposure = one["gating"], one["exposure"]
        guessed = (
            f"guesses {gating['correct']}/{gating['guesses']} ({_refuting(gating)})"
            if gating["guesses"]
            else "guesses not applicable"
        )
        mean = exposure["mean_bits"]
        bits = f"exposure {mean:.2f} bits" if isinstance(mean, float) else "no exposure"
        caught = f"; rejected by {', '.join(one['rejected_by'])}" if one["rejected_by"] else ""
        rows.append(
            (name, f"{guessed}, {bits}, extracted {one['extracted']}/{one['inserted']}{caught}")
        )
    return rows


def _refuting(gating: dict[str, Any]) -> str:
    """How many right guesses would contradict the claim; with few canaries no number does."""
    alone, strict = gating["needed"], gating["needed_strict"]
    if alone is None:
        return "too few to refute"
    if strict == alone:
        return f"refuted from {alone}"
    return f"refuted from {alone} alone, {strict or 'no number'} beside the other tests"


def private_rows(private: dict[str, Any]) -> list[tuple[str, str]]:
    """Counts and held-out figures, for those who may see them."""
    rows: list[tuple[str, str]] = []
    if "corpus" in private:
        corpus = private["corpus"]
        rows.append(("documents", f"{corpus['documents']} of {corpus['units']} units, "
                     f"dropped {corpus['dropped'] or 'none'}"))  # fmt: skip
        if "forgotten" in corpus:
            rows.append(("forgotten", f"{corpus['forgotten']} rows kept out by tombstones"))
        if "quarantined" in corpus:
            rows.append(("quarantined", f"{corpus['quarantined']} rows of quarantined sources"))
    if "scrub" in private:
        found = sorted(private["scrub"]["found"].items(), key=lambda item: -item[1])
        rows.append(("scrubbed", ", ".join(f"{name} {count}" for name, count in found)))
    if "recall" in private:
        rates = {name: private["recall"][name] for name in ("all", "direct", "quasi")}
        shown = (f"{name} {r['found']}/{r['of']}" for name, r in rates.items() if r)
        rows.append(("recall", ", ".join(shown) or "no span was marked"))
    if "dedup" in private:
        dedup = private["dedup"]
        rows.append(("dedup", f"removed {dedup['removed'] or 'none'}, "
                     f"{dedup['cross_split_pairs']} pairs across the split"))  # fmt: skip
        if "passages" in dedup:
            rows.append(("passages", f"{dedup['passages']} repeated, cut from "
                         f"{dedup['cut_documents']} documents"))  # fmt: skip
    seconds = private["seconds"]
    parts = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
    rows.append(("seconds", f"{sum(seconds.values()):.0f} ({parts})"))
    if "loss_jumps" in private:
        rows.append(jumps_row(private["loss_jumps"]))
    evaluation = private.get("evaluation") or {}
    for moment in ("before", "after"):
        if evaluation.get(moment):
            one = evaluation[moment]
            # As text where training ran away: JSON has no infinity.
            loss, perplexity = float(one["loss"]), float(one["perplexity"])
            rows.append((moment, f"loss {loss:.3f}, perplexity {perplexity:.1f}, "
                         f"top-1 {one['top1']:.3f}, top-5 {one['top5']:.3f}"))  # fmt: skip
    gap = (evaluation.get("trained_on") or {}).get("gap")
    if gap:
        loss, top1 = float(gap["loss"]["value"]), 100 * gap["top1"]["value"]
        rows.append(("overfitting", f"held out minus trained on: loss {loss:+.3f}, "
                     f"top-1 {top1:+.1f} points"))  # fmt: skip
    return rows
