"""An audit of model folders from a command line, and its verdict in words.

FAIL: a test contradicts the claim, or a planted secret was read out. INCONCLUSIVE: none does, and
nothing shows that one would have; silence of tests without power is worth nothing. PASS: none
does, and the same tests do reject a non-private control.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from audits.evidence import audit
from audits.files import NO_CLAIM, plan_beside, read_claim, read_set, refuse_present
from audits.models import LoadedModel, load
from audits.subject import TESTS
from dpmlm.artifacts import Identity, UserError, atomic_write, canonical_json

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]


@dataclass(frozen=True)
class Attack:
    """Evidence, and where it was written."""

    evidence: dict[str, Any]
    """As `audits.audit` returns it."""
    out: Path
    """The evidence file."""

    @property
    def rejected(self) -> list[str]:
        """Gating tests that rejected the claim."""
        return list(self.evidence["subjects"]["target"]["rejected_by"])

    @property
    def verdict(self) -> Verdict:
        """What follows from the evidence."""
        if self.rejected or self._read_out():
            return "FAIL"
        return "PASS" if self.evidence["power"]["status"] == "shown" else "INCONCLUSIVE"

    def text(self) -> str:
        """Verdict, claim and power, a line each."""
        lines = [
            f"verdict  {self.verdict}",
            f"claim    {self._claim()}",
            f"secrets  {self._secrets()}",
            f"power    {self._power()}",
            f"wrote {self.out}",
        ]
        return "\n".join(lines)

    def _target(self, test: str) -> Mapping[str, Any]:
        part: Mapping[str, Any] = self.evidence["subjects"]["target"][test]
        return part

    def _read_out(self) -> int:
        return int(self._target("canary_extraction").get("extracted", 0))

    def _claim(self) -> str:
        if self.rejected:
            return f"CONTRADICTED by {', '.join(self.rejected)}"
        parts = [self._target(test) for test in TESTS]
        if any(part.get("p_value") is not None for part in parts):
            return "not contradicted by any test"
        return f"not tested: {parts[0]['reason']}"

    def _secrets(self) -> str:
        part = self._target("canary_extraction")
        if "extracted" not in part:
            return f"none was tried: {part.get('reason', 'no canaries')}"
        return f"{part['extracted']} of {part['n']} planted secrets were read out"

    def _power(self) -> str:
        """Whether silence of the tests means anything, and if not, why."""
        power = self.evidence["power"]
        if power["status"] == "shown":
            return "shown: the tests catch the control and leave the untrained model alone"
        control, untrained = power["control_rejected_by"], power["untrained_rejected_by"]
        if not control:
            why = "no --control was given" if control is None else "no test catches the control"
        elif untrained is None:
            why = "no --untrained model was given, so a test that is broken is not excluded"
        elif not untrained:
            why = "the untrained model could not be scored"
        else:
            why = f"{', '.join(untrained)} reject the untrained model too"
        return f"not shown: {why}"


def attack(
    model: Path,
    *,
    canaries: Path,
    plan: Path | None,
    out: Path,
    control: Path | None,
    untrained: Path | None,
    reference: Path | None,
    identities: Sequence[Identity],
    beta: float,
    read_plan: Callable[[Path], Mapping[str, Any]] = read_claim,
    progress: Callable[[int, int], None] | None = None,
) -> Attack:
    """Score `model` on known canaries against the claim of a plan and write the evidence.

    Without a plan, named or beside the model or the canaries, no claim is tested: counts of
    secrets stand, and the verdict cannot be PASS. Raises UserError where a file is missing or
    malformed, or `out` is there already; IntegrityError where canaries, plan and tokenizer are not
    of one run.
    """
    refuse_present(out, "--out")
    if not 0 < beta < 0.5:
        raise UserError(f"--beta {beta:g}", "it lies between 0 and 0.5", "leave it at 0.05")
    found = plan or plan_beside(model, canaries)
    terms = NO_CLAIM if found is None else read_plan(found)

    def optional(path: Path | None) -> LoadedModel | None:
        return load(path, identities) if path else None

    target, planted = load(model, identities), read_set(canaries, identities, "--canaries")
    evidence = audit(
        target,
        plan=terms,
        canaries=planted,
        control=optional(control),
        untrained=optional(untrained),
        reference=optional(reference),
        beta=beta,
        progress=progress,
    )
    with atomic_write(out) as file:
        file.write(canonical_json(evidence))
    return Attack(evidence, out)
