"""`dpmlm audit`: the audits' own command with the progress and the plans of this package."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import logging

from audits.attack import Attack
from audits.attack import attack as audit_folders
from audits.claim.gating import trade_off_curve
from audits.claim.outlook import outlook
from audits.claim.power import best_guesses, canaries_needed, power_of
from audits.files import read_claim
from audits.subject import TESTS
from dpmlm.artifacts import load_identity
from dpmlm.errors import UserError
from dpmlm.pipeline.progress import Progress
from dpmlm.privacy import PrivacyPlan


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
    identities = [load_identity(identity)] if identity else []
    logging.disable_progress_bar()
    with Progress().bar("audit") as report:
        return audit_folders(
            model,
            canaries=canaries,
            plan=plan,
            out=out,
            control=control,
            untrained=untrained,
            reference=reference,
            identities=identities,
            beta=beta,
            read_plan=read_plan,
            progress=report,
        )


@dataclass(frozen=True)
class Outlook:
    """What an audit of a plan could find."""

    power: dict[str, Any]
    """As `power_of` returns it."""
    needed: dict[str, Any]
    """As `canaries_needed` returns it."""

    def to_json(self) -> dict[str, Any]:
        return {"power": self.power, "canaries_needed": self.needed}

    def text(self) -> str:
        return outlook(self.power, self.needed)


def foresee(plan: Path, *, canaries: int, beta: float) -> Outlook:
    """Before anything is trained: how likely so many canaries show that a claim is wrong."""
    terms = read_plan(plan)
    guesses = None
    if float(terms["noise_multiplier"]) > 0:
        side = best_guesses(terms, canaries, trade_off_curve(terms), beta / len(TESTS))
        guesses = None if side is None else 2 * side
    power = power_of(terms, canaries, guesses, beta)
    return Outlook(power, canaries_needed(terms, beta=beta))


def read_plan(path: Path) -> Mapping[str, Any]:
    """A run's plan.json, its digest checked, or the five numbers of a claim written by hand."""
    value = read_claim(path)
    if "schema" not in value:
        return value
    try:
        return PrivacyPlan.from_json(value).to_json()
    except UserError as error:
        raise UserError(f"--plan {path}: {error.given}", error.rule, error.next_step) from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise UserError(
            f"--plan {path}", "it is not a plan.json as a run writes it", "pass the bundle's"
        ) from None
