"""`Ancestor`: the release that a training continues, as its plan binds it and a ledger counts it.

The weights that a training starts from are an output of an earlier one, so that a claim about the
result holds both. For anybody whose text may be in both corpora epsilons and deltas add up (basic
composition, Dwork and Roth 2014, theorem 3.16; also where the second budget was chosen after the
first output was seen: Rogers, Roth, Ullman and Vadhan 2016, arXiv 1605.08294). That corpora have
nobody in common, which would cost the larger of the two alone, is nowhere assumed.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from dpmlm.errors import UserError

if TYPE_CHECKING:
    from dpmlm.privacy.plan import PrivacyPlan

_PREFIX = "ancestor_"
INITIAL = "initial_model"
"""The plan's binding of the weights that it starts from."""


@dataclass(frozen=True)
class Ancestor:
    """A release, and what it promises of everything that came before it, itself included."""

    release: str
    """Digest of the release, whoever can open it."""
    model: str
    """Digest of its weights."""
    run_id: str
    """Its run, as its ledger calls it."""
    plan: str
    """Digest of that run's plan."""
    corpus: str
    """Public name of the corpus that it was charged to."""
    trainings: int
    """Private trainings behind it, its own counted: 1 unless it continued another release."""
    epsilon: float
    """Of its statement, which holds what it continued."""
    delta: float

    def __post_init__(self) -> None:
        texts = (self.release, self.model, self.run_id, self.plan, self.corpus)
        if not all(isinstance(one, str) and one.isprintable() and one for one in texts):
            raise ValueError("an ancestor is named by printable text")
        if type(self.trainings) is not int or self.trainings < 1:
            raise ValueError("an ancestor was trained at least once")
        for value in (self.epsilon, self.delta):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError("an ancestor promises numbers")
        if not (0 < self.epsilon < math.inf and 0 < self.delta < 1):
            raise ValueError("an ancestor promises something")

    def bindings(self) -> dict[str, str | int | float | None]:
        """As a plan binds it."""
        return {f"{_PREFIX}{name}": value for name, value in asdict(self).items()}

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`; other keys are passed over. Raises KeyError and ValueError."""
        return cls(**{one.name: values[one.name] for one in fields(cls)})

    @classmethod
    def of(cls, bindings: Mapping[str, Any]) -> Self | None:
        """The one that a plan's bindings name, None where they name none.

        Raises KeyError and ValueError where they name a part of one.
        """
        found = {k.removeprefix(_PREFIX): v for k, v in bindings.items() if k.startswith(_PREFIX)}
        if not found:
            return None
        if found.keys() != {one.name for one in fields(cls)}:
            raise ValueError("a plan binds the whole of an ancestor")
        return cls(**found)

    def covers(self, other: "Ancestor") -> bool:
        """Whether a charge for this one pays for `other`: the same weights, and no less of both."""
        same = self.model == other.model
        return same and self.epsilon >= other.epsilon and self.delta >= other.delta


def ancestor_of(plan: "PrivacyPlan") -> Ancestor | None:
    """The release that the plan's training continues; None for one that continues none."""
    return Ancestor.of(plan.bindings)


def check_ancestor(plan: "PrivacyPlan") -> None:
    """Raises UserError for a plan that binds a part of an ancestor, one with other weights than it
    starts from, or one whose delta and its own are not below 1/units together."""
    try:
        found = ancestor_of(plan)
    except (ValueError, TypeError) as error:
        raise UserError(
            "bindings of a continued release", str(error), "make the plan with `dpmlm run`"
        ) from error
    if found is None:
        return
    start = plan.bindings.get(INITIAL)
    if start is not None and start != found.model:
        raise UserError(
            f"initial model {str(start)[:19]}",
            f"the release that is continued holds {found.model[:19]}",
            "make the plan with `dpmlm run`",
        )
    if not plan.delta + found.delta < 1 / plan.units:
        raise UserError(
            f"delta {plan.delta:g} beside {found.delta:g} of the release that is continued",
            f"deltas add up, and their sum has to be below 1/units = {1 / plan.units:.3g}",
            "lower privacy.delta, or continue a release with a smaller delta",
        )


def ancestor_sentence(ancestor: Ancestor | None, summary: Mapping[str, Any]) -> str:
    """What a statement says of it, from the ledger's summary; empty without one."""
    if ancestor is None:
        return ""
    trainings = f"{ancestor.trainings} training{'' if ancestor.trainings == 1 else 's'}"
    told = (
        f"epsilon {ancestor.epsilon:.4f} and delta {ancestor.delta:g} of the release that the "
        f"training continued ({ancestor.release[:23]}, {trainings})"
    )
    charged = next((one for one in imports_of(summary) if one["model"] == ancestor.model), None)
    if charged is not None and charged["here"]:
        return f"Both hold what was charged to the same ledger before: {told}. "
    how = "added up" if summary["basis"] == "plan" else "charged to this ledger"
    return f"Both hold, {how}, {told}; the text of both counts as one corpus here. "


def imports_of(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Releases that were continued, as a ledger's summary lists their charges."""
    found = summary["lineage"].get("imports", [])
    if not isinstance(found, list):
        raise TypeError("imports are a list")
    return found


def imported(summary: Mapping[str, Any]) -> tuple[float, float]:
    """Epsilon and delta of releases that were charged elsewhere; what was charged to the ledger
    itself is in its own sum. Raises KeyError, TypeError and ValueError as `from_json` does."""
    outside = [Ancestor.from_json(one) for one in imports_of(summary) if one["here"] is not True]
    if len({one.model for one in outside}) < len(outside):
        raise ValueError("a release is charged once")
    return sum(one.epsilon for one in outside), sum(one.delta for one in outside)


def paid_for(ancestor: Ancestor | None, summary: Mapping[str, Any]) -> bool:
    """Whether a charge that the summary lists pays for `ancestor`, where there is one."""
    charges = [Ancestor.from_json(one) for one in imports_of(summary)]
    return ancestor is None or any(one.covers(ancestor) for one in charges)
