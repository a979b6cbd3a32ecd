"""`dpmlm audit`: attack a model from outside the pipeline that made it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import logging

import audits
from audits.canaries import CanarySet
from audits.gating import check_plan
from audits.subject import TESTS
from dpmlm.artifacts import Identity, SealedFolder, atomic_write, canonical_json, load_identity
from dpmlm.errors import UserError
from dpmlm.pipeline.progress import Progress
from dpmlm.privacy import PrivacyPlan


@dataclass(frozen=True)
class Attack:
    """Evidence, where it was written, and whether a test rejected the claim."""

    evidence: dict[str, Any]
    out: Path

    @property
    def rejected(self) -> list[str]:
        """Gating tests that rejected the claim."""
        return list(self.evidence["subjects"]["target"]["rejected_by"])

    def text(self) -> str:
        return f"claim  {self._claim()}\npower  {self._power()}\nwrote {self.out}"

    def _claim(self) -> str:
        if self.rejected:
            return f"CONTRADICTED by {', '.join(self.rejected)}"
        parts = [self.evidence["subjects"]["target"][test] for test in TESTS]
        if any(part.get("p_value") is not None for part in parts):
            return "not contradicted by any test"
        return f"not tested: {parts[0]['reason']}"

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
    identity: Path | None,
    beta: float,
) -> Attack:
    """Score `model` on known canaries against the claim of a plan and write the evidence."""
    if out.exists():
        raise UserError(f"--out {out}", "it is there already", "name a new file")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}", "its folder is not there", "make the folder first")
    if not 0 < beta < 0.5:
        raise UserError(f"--beta {beta:g}", "it lies between 0 and 0.5", "leave it at 0.05")
    terms = _read_plan(plan or _beside(model, canaries))
    identities = [load_identity(identity)] if identity else []
    logging.disable_progress_bar()

    def optional(path: Path | None) -> audits.LoadedModel | None:
        return audits.load(path, identities) if path else None

    with Progress().bar("audit") as report:
        evidence = audits.audit(
            audits.load(model, identities),
            plan=terms,
            canaries=_read_canaries(canaries, identities),
            control=optional(control),
            untrained=optional(untrained),
            reference=optional(reference),
            beta=beta,
            progress=report,
        )
    with atomic_write(out) as file:
        file.write(canonical_json(evidence))
    return Attack(evidence, out)


def _beside(model: Path, canaries: Path) -> Path:
    """The plan.json that lies with the model, in its bundle, or with the canaries."""
    places = [folder / "plan.json" for folder in (model, model.parent, canaries.parent)]
    for place in places:
        if place.is_file():
            return place
    raise UserError(
        f"model {model} without --plan",
        "no plan.json lies with it, and a claim is needed to test",
        "name the plan.json of its bundle with --plan",
    )


def read_json(path: Path, option: str) -> Any:
    """A JSON file that an option names."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{option} {path}", f"no JSON can be read there ({type(error).__name__})", "check it"
        ) from None


def _read_plan(path: Path) -> dict[str, Any]:
    """A run's plan.json, its digest checked, or the five numbers of a claim written by hand."""
    value = read_json(path, "--plan")
    if not isinstance(value, dict):
        raise UserError(f"--plan {path}", "a plan is a JSON object", "pass the bundle's plan.json")
    try:
        if "schema" in value:
            value = PrivacyPlan.from_json(value).to_json()
        check_plan(value)
    except UserError as error:
        raise UserError(f"--plan {path}: {error.given}", error.rule, error.next_step) from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise UserError(
            f"--plan {path}", "it is not a plan.json as a run writes it", "pass the bundle's"
        ) from None
    return value


def _read_canaries(path: Path, identities: list[Identity]) -> CanarySet:
    if path.is_dir():
        return CanarySet.read(SealedFolder.open(path, identities, role="canaries"))
    value = read_json(path, "--canaries")
    if not isinstance(value, dict):
        raise UserError(
            f"--canaries {path}", "a canary file is a JSON object", "pass the one the run wrote"
        )
    return CanarySet.from_json(value)
