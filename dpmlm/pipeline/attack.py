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
from audits.evidence import SCHEMA, plan_digest
from audits.files import read_claim, read_json
from audits.recheck import contradictions
from audits.subject import TESTS
from audits.verdict import Verdict, verdict_of
from dpmlm.artifacts import load_identity
from dpmlm.errors import UserError
from dpmlm.pipeline.progress import Progress
from dpmlm.privacy import PrivacyPlan


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
    identity: Path | None,
    beta: float,
    device: str = "auto",
) -> Attack:
    """Score `model` on known canaries against the claim of a plan and write the evidence."""
    identities = [load_identity(identity)] if identity else []
    logging.disable_progress_bar()
    with Progress().bar("audit") as report:
        return audit_folders(
            model,
            canaries=canaries,
            labels=labels,
            commitment=commitment,
            plan=plan,
            out=out,
            transcript=transcript,
            control=control,
            untrained=untrained,
            reference=reference,
            identities=identities,
            beta=beta,
            device=device,
            read_plan=read_plan,
            progress=report,
        )


@dataclass(frozen=True)
class Recheck:
    """What somebody who trusts none of the evidence's figures makes of its counts."""

    findings: tuple[tuple[str, str], ...]
    """Places, and what is wrong there."""
    verdict: Verdict
    """What follows from the evidence as it stands."""

    def to_json(self) -> dict[str, Any]:
        wrong = [{"where": where, "what": what} for where, what in self.findings]
        return {"findings": wrong, "verdict": self.verdict.word, "reason": self.verdict.reason}

    def text(self) -> str:
        lines = [f"{where}: {what}" for where, what in self.findings]
        if lines:
            return "\n".join([*lines, "the evidence contradicts itself: nothing follows from it"])
        return f"every figure follows from the counts\nverdict  {'{}: {}'.format(*self.verdict)}"


def recheck(evidence: Path, plan: Path) -> Recheck:
    """Compute `evidence`, a file that an audit wrote, again under `plan`."""
    found, terms = read_json(evidence, "EVIDENCE"), read_plan(plan)
    malformed = UserError(
        f"EVIDENCE {evidence}", "it is no evidence", "pass what `dpmlm audit --out` wrote"
    )
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise malformed
    wrong = contradictions(found, terms)
    claimed = (found.get("claim") or {}).get("plan_digest")
    if claimed != plan_digest(terms):
        wrong.insert(0, ("claim.plan_digest", "the evidence is about another plan"))
    try:
        return Recheck(tuple(wrong), verdict_of(found))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise malformed from None


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
