"""What an audit learns from private text, and from noised sums that are never released.

Whoever holds the text builds the cases. Every result is labelled private: it is for the auditor,
stands outside the error budget of the gating tests, and reaches no consumer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from audits.claim.whitebox import GradientCanarySet, Transcript, judge_whitebox
from audits.models import LoadedModel
from audits.text.membership import MembershipCase, membership
from audits.text.pii_games import PiiCase, Tagger, pii_games
from audits.text.spans import VerbatimCase
from audits.text.verbatim import verbatim, verbatim_rows
from dpmlm.artifacts import UserError

_MASKS = 20
"""Random masks that a record's loss is the mean over (audits.md 5)."""
Rival = tuple[LoadedModel, str]
"""A model that never read the private text, and whether it is given, control or untrained."""


@dataclass(frozen=True)
class PrivateCases:
    """What the attacks on private text are tried on; what is left out is not run."""

    verbatim: VerbatimCase | None = None
    """Spans of training text and of held-out text."""
    membership: MembershipCase | None = None
    """Records of units that were trained on and of units that were held out at random."""
    identifiers: Mapping[str, PiiCase] = field(default_factory=dict)
    """Identifiers of people, by which text they stand in: "training" or "original"."""
    tagger: Tagger | None = field(default=None, repr=False)
    """Finds identifiers in text that the model makes up."""
    gradients: tuple[GradientCanarySet, Transcript] | None = field(default=None, repr=False)
    """Gradient canaries, and what the noised sums say along their directions."""
    survival: Sequence[Mapping[str, Any]] = ()
    """What reached the training tokens of canaries that went through the pipeline."""

    @property
    def given(self) -> frozenset[str]:
        """Names of the cases that are there."""
        return frozenset(
            name
            for name in ("verbatim", "membership", "identifiers", "gradients")
            if getattr(self, name)
        )


def private_parts(
    cases: PrivateCases,
    target: LoadedModel,
    rival: Rival | None,
    references: Sequence[LoadedModel],
    plan: Mapping[str, Any],
    *,
    beta: float,
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Results by name, None where there is no case; counts, rates and intervals, never text.

    `rival` is what extraction and the games are held against, `references` what calibrates
    membership. `progress` gets `rows_of_cases` rows in all.
    """
    games = {
        name: _games(target, rival[0] if rival else None, case, cases.tagger)
        for name, case in cases.identifiers.items()
    }
    progress(_rows_of_games(cases))
    return {
        "verbatim": _verbatim(cases.verbatim, target, rival, beta, progress),
        "membership": _membership(cases.membership, target, references, progress),
        "identifiers": {"label": "private", **games} if games else None,
        "gradients": (
            None if cases.gradients is None else judge_whitebox(*cases.gradients, plan, beta=beta)
        ),
        "survival": {"label": "private", "groups": list(cases.survival)}
        if cases.survival
        else None,
    }


def rows_of_cases(
    cases: PrivateCases,
    target: LoadedModel,
    rival: Rival | None,
    references: Sequence[LoadedModel],
) -> int:
    """Rows that `private_parts` reports as done."""
    spans = verbatim_rows(target, rival[0], cases.verbatim) if cases.verbatim and rival else 0
    return spans + _rows_of_records(cases.membership, references) + _rows_of_games(cases)


def _games(
    target: LoadedModel, reference: LoadedModel | None, case: PiiCase, tagger: Tagger | None
) -> dict[str, Any]:
    """Whether a case can be played depends on private text, which must not end an audit."""
    try:
        return pii_games(target, reference, case, tagger=tagger)
    except UserError as error:
        return {"label": "private", "applicable": False, "reason": error.rule}


def _rows_of_games(cases: PrivateCases) -> int:
    return sum(len(case.train) + len(case.held_out) for case in cases.identifiers.values())


def _rows_of_records(case: MembershipCase | None, references: Sequence[LoadedModel]) -> int:
    if case is None:
        return 0
    records = len(case.members) + len(case.non_members) + len(case.population)
    return _MASKS * records * (1 + len(references))


def _verbatim(
    case: VerbatimCase | None,
    target: LoadedModel,
    rival: Rival | None,
    beta: float,
    progress: Callable[[int], None],
) -> dict[str, Any] | None:
    if case is None or rival is None:
        return None
    reference, name = rival
    found = verbatim(target, reference, case, beta=beta, progress=progress)
    return {**found, "reference": {"model_digest": reference.digest, "is": name}}


def _membership(
    case: MembershipCase | None,
    target: LoadedModel,
    references: Sequence[LoadedModel],
    progress: Callable[[int], None],
) -> dict[str, Any] | None:
    if case is None:
        return None
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        progress(rows)

    found = membership(target, references, case, masks=_MASKS, progress=count)
    progress(_rows_of_records(case, references) - done)  # where it is not applicable
    return found
