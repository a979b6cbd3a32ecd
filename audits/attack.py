"""An audit of model folders from a command line, and what is printed of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audits.evidence import audit
from audits.files import (
    NO_CLAIM,
    labels_beside,
    plan_beside,
    read_claim,
    read_commitment,
    read_labels,
    read_set,
    refuse_absent,
    refuse_present,
)
from audits.models import LoadedModel, device_of, load
from audits.planting.labels import Labels
from audits.subject import TESTS
from audits.verdict import Verdict, verdict_of
from dpmlm.artifacts import Identity, UserError, atomic_write, canonical_json

_BOUND = {
    "plan": [],
    "commitment file": [
        "canaries fit the commitment file; that it was there before the training is for you to know"
    ],
    None: ["canaries not pre-registered: nothing from before the training binds them"],
}


@dataclass(frozen=True)
class Attack:
    """Evidence, and where it was written."""

    evidence: dict[str, Any]
    """As `audits.audit` returns it."""
    out: Path
    """The evidence file."""
    transcript: Path
    """The file of all scores, written before the labels were opened."""
    plan: Path | None
    """Where the claim was read; None where there is none."""

    @property
    def verdict(self) -> Verdict:
        """What follows from the evidence."""
        return verdict_of(self.evidence)

    def text(self) -> str:
        """Verdict, claim, secrets, bounds and power, a line each."""
        lines = [
            f"verdict  {self.verdict.word}: {self.verdict.reason}",
            f"claim    {self._claim()}",
            f"secrets  {self._secrets()}",
            f"guesses  {self._guesses()}",
            f"bound    {self._bound()}",
        ]
        lines += _BOUND[self.evidence["declared"]["bound_by"]]
        lines.append(f"wrote {self.out} and {self.transcript}")
        return "\n".join(lines)

    def _target(self, test: str) -> Mapping[str, Any]:
        part: Mapping[str, Any] = self.evidence["subjects"]["target"][test]
        return part

    def _claim(self) -> str:
        claim, rejected = self.evidence["claim"], self.evidence["subjects"]["target"]["rejected_by"]
        told = "" if self.plan is None else self._terms(claim)
        if rejected:
            return f"{told}CONTRADICTED by {', '.join(rejected)}"
        parts = [self._target(test) for test in TESTS]
        if any(part.get("p_value") is not None for part in parts):
            return f"{told}not contradicted by any test"
        return f"not tested: {parts[0]['reason']}"

    def _terms(self, claim: Mapping[str, Any]) -> str:
        """What is claimed, and where: the plan may be one that was found beside the model."""
        return f"epsilon {float(claim['epsilon']):g}, delta {claim['delta']:g}, by {self.plan}: "

    def _secrets(self) -> str:
        part = self._target("canary_extraction")
        if "extracted" not in part:
            return f"none was tried: {part.get('reason', 'no canaries')}"
        return f"{part['extracted']} of {part['n']} planted secrets were read out"

    def _guesses(self) -> str:
        """Right guesses, how many would have rejected, and the least fault that would be caught."""
        part = self._target("gating")
        if "correct" not in part:
            return f"none were made: {part.get('reason', 'no canaries')}"
        told = f"{part['correct']} of {part['guesses']} right"
        if not part.get("applicable", True):
            return told
        needed, multiple = part.get("needed_strict"), part.get("smallest_multiple_detected")
        told += f"; {needed} reject" if needed else "; not even all of them reject"
        least = "no multiple" if multiple is None else f"{multiple:.3g} times"
        return f"{told}; {least} of the claim would probably be caught"

    def _bound(self) -> str:
        part = self._target("lower_bound")
        if "one_run" not in part:
            return f"none: {part.get('reason', 'no canaries')}"
        told = f"epsilon is at least {part['one_run']:.2f} (at most {part['one_run_ceiling']:.2f} "
        told += "can be shown)"
        other = part.get("fdp_one_run")
        return told if other is None else f"{told}; {other:.2f} if the leak is Gaussian"


def attack(
    model: Path,
    *,
    canaries: Path,
    labels: Path | None = None,
    commitment: Path | None = None,
    plan: Path | None,
    out: Path,
    transcript: Path | None = None,
    control: Path | None,
    untrained: Path | None,
    reference: Path | None,
    identities: Sequence[Identity],
    beta: float,
    device: str = "auto",
    read_plan: Callable[[Path], Mapping[str, Any]] = read_claim,
    progress: Callable[[int, int], None] | None = None,
) -> Attack:
    """Score `model` on known canaries against the claim of a plan and write the evidence.

    All scores are written to `transcript` (beside `out` by default, for its owner alone) before
    `labels` (beside the canaries by default) are opened. Without a plan, named or beside the model
    or the canaries, no claim is tested: counts of secrets stand, and the verdict cannot be PASS.
    Raises UserError where a file is missing or malformed, one to be written is there already, or
    there is no such `device` (see `device_of`); IntegrityError where canaries, labels, commitment,
    plan and tokenizer are not of one run.
    """
    kept = transcript or out.with_name(f"{out.stem}.scores.json")
    if kept.absolute() == out.absolute():
        raise UserError(f"--transcript {kept}", "it is the evidence file", "name two files")
    refuse_present(out, "--out")
    if transcript is not None:  # the one beside `out` may be left by an audit that was killed
        refuse_present(kept, "--transcript")
    device_of(device)
    if not 1e-3 <= beta < 0.5:
        raise UserError(f"--beta {beta:g}", "it lies between 0.001 and 0.5", "leave it at 0.05")
    found = plan or plan_beside(model, canaries)
    terms = NO_CLAIM if found is None else read_plan(found)

    def optional(path: Path | None) -> LoadedModel | None:
        return load(path, identities, device=device) if path else None

    def opened(scores: Mapping[str, Any]) -> Labels:
        with atomic_write(kept, mode=0o600) as file:
            file.write(canonical_json(scores))
        return read_labels(coins, identities)

    planted, coins = read_set(canaries, identities, "--canaries"), labels or labels_beside(canaries)
    refuse_absent(coins)
    bound = None if commitment is None else read_commitment(commitment)
    target = load(model, identities, device=device)
    evidence = audit(
        target,
        plan=terms,
        canaries=planted,
        control=optional(control),
        untrained=optional(untrained),
        reference=optional(reference),
        labels=opened,
        commitment=bound,
        beta=beta,
        progress=progress,
    )
    with atomic_write(out) as file:
        file.write(canonical_json(evidence))
    return Attack(evidence, out, kept, found)
