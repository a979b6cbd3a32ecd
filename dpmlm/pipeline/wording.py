"""Results as lines for a terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpmlm.release import Decision, Verification
    from dpmlm.scrub import RecallReport


def recall_text(report: "RecallReport") -> str:
    """Recall by type and identifier with 95 % intervals."""
    rows = [("all", report.recall), *sorted(report.by_identifier.items())]
    rows += [*sorted(report.by_type.items()), ("precision", report.precision)]
    lines = [f"policy {report.policy}, {report.documents} documents; full-coverage recall"]
    for name, rate in rows:
        low, high = rate.interval
        shown = "-" if rate.value is None else f"{rate.value:.3f}"
        lines.append(
            f"  {name:<24}{rate.hits:>7} of {rate.total:<7} {shown}  [{low:.3f}, {high:.3f}]"
        )
    return "\n".join(lines)


def verification_text(checked: "Verification") -> str:
    """What verifying a bundle found, a line a finding."""
    if checked.ok:
        signers = ", ".join(checked.signers)
        lines = [f"verified: signed by {signers}, verdict {checked.verdict}"]
    else:
        lines = ["NOT VERIFIED"]
        lines += [f"  {f.file} {f.where}: {f.what}; {f.next_step}" for f in checked.findings]
    return "\n".join([*lines, *(f"note: {note}" for note in checked.notes)])


def decision_text(decision: "Decision") -> str:
    """The verdict and every rule."""
    lines = [f"{decision.verdict} under {decision.policy}"]
    for rule in decision.rules:
        lines.append(f"  {rule.status:<13} {rule.id:<18} {rule.title} {rule.explanation}")
    return "\n".join(lines)
