"""Results as lines for a terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpmlm.release import Decision, Verification
    from dpmlm.scrub import RecallReport
    from dpmlm.scrub.gold import Annotation


ANNOTATION = {
    "blind": "marked without seeing what the scrubber finds",
    "prefilled": "marked on what the scrubber had found: what both overlooked is not counted, so "
    "the true recall may be lower",
    "unsaid": "the gold does not say whether it was marked without seeing what the scrubber finds",
}
"""How a gold file was made, by what it says of itself."""


def recall_text(report: "RecallReport", annotation: "Annotation") -> str:
    """Recall by type and identifier with 95 % intervals, and how the gold was made."""
    rows = [("all", report.recall), *sorted(report.by_identifier.items())]
    rows += sorted(report.by_type.items())
    lines = [f"policy {report.policy}, {report.documents} documents; full-coverage recall"]
    for name, rate in rows:
        low, high = rate.interval
        shown = "-" if rate.value is None else f"{rate.value:.3f}"
        lines.append(
            f"  {name:<24}{rate.hits:>7} of {rate.total:<7} {shown}  [{low:.3f}, {high:.3f}]"
        )
    right = report.precision
    shown = "-" if right.value is None else f"{right.value:.3f}"
    lines.append(
        f"  {'precision':<24}{right.hits:>7} of {right.total:<7} {shown}  replaced characters"
    )
    return "\n".join([*lines, ANNOTATION[annotation]])


def misses_text(report: "RecallReport", rows: Sequence[Mapping[str, Any]], most: int = 20) -> str:
    """The worst misses with the words around them: private text, for the eyes of its owner."""
    lines = [f"the worst {min(most, len(report.misses))} of {len(report.misses)} misses"]
    for miss in report.worst(most):
        text = str(rows[miss.row]["text"])
        before = " ".join(text[max(0, miss.start - 30) : miss.start].split())
        behind = " ".join(text[miss.end : miss.end + 30].split())
        missed = " ".join(text[miss.start : miss.end].split())
        where = rows[miss.row].get("id", miss.row + 1)
        lines.append(
            f"  {where} {miss.start}-{miss.end} {miss.kind}: ...{before} [{missed}] {behind}..."
        )
    return "\n".join(lines)


def verification_text(checked: "Verification") -> str:
    """What verifying a bundle found, a line a finding."""
    if checked.ok:
        signers = ", ".join(checked.signers)
        lines = [f"verified: signed by {signers}, verdict {checked.verdict}"]
        lines += [f"judged by policy {checked.policy}, {checked.manifest.get('policy_digest')}"]
    else:
        lines = ["NOT VERIFIED"]
        lines += [f"  {f.file} {f.where}: {f.what}; {f.next_step}" for f in checked.findings]
    lines += [f"WARNING: {warning}" for warning in checked.warnings]
    return "\n".join([*lines, *(f"note: {note}" for note in checked.notes)])


def decision_text(decision: "Decision") -> str:
    """The verdict and every rule."""
    from dpmlm.release.gate import not_covered

    lines = [f"{decision.verdict} under {decision.policy}"]
    for rule in decision.rules:
        lines.append(f"  {rule.status:<13} {rule.id:<18} {rule.title} {rule.explanation}")
        lines += [f"  {'':<13} {'':<18} {rule.waiver}"] if rule.waiver else []
    lines += [f"not covered by the claim: {part}" for part in not_covered(decision.rules)]
    return "\n".join(lines)
