"""A ledger read again by somebody who trusts no line of it.

Was each entry admitted by the cap as it stood, and are its amounts those of what it charged? Both
are computed anew; an accountant of another version may count a thousandth otherwise.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy.admission import (
    admit_import,
    admit_mechanism,
    admit_plan,
    admit_selection,
    check_repeat,
    divergences,
)
from dpmlm.privacy.ancestor import Ancestor
from dpmlm.privacy.balance import Balance
from dpmlm.privacy.plan import PrivacyPlan
from dpmlm.privacy.selection import PartitionSelection
from dpmlm.privacy.summary import SLACK


def replay(entry: dict[str, Any], state: Balance) -> None:
    """Take one entry into `state` as if it were written now.

    Raises IntegrityError for one that the cap and the entries before it do not admit, that makes
    no sense where it stands, or that was charged otherwise than it says.
    """
    try:
        try:
            _admit(entry, state)
        except UserError as refusal:
            why = f"the cap never admitted it ({refusal.given}: {refusal.rule})"
            raise _broken(entry, state, why) from refusal
        state.apply(entry)
        _check_amounts(entry, state)
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise _broken(entry, state, f"no ledger writes this ({error!r:.80})") from error


def _admit(entry: Mapping[str, Any], before: Balance) -> None:
    kind = entry["kind"]
    if kind == "reserve":
        admit_plan(before, PrivacyPlan.from_json(entry["plan"]), slack=SLACK)
    elif kind == "charge":
        if entry["step"] < before.runs[entry["run_id"]].taken:
            check_repeat(before, entry["run_id"], slack=SLACK)
    elif kind == "spend" or (kind == "choose" and entry["label"] == "dp"):
        delta = entry.get("delta", 0.0)
        admit_mechanism(before, str(entry.get("label")), entry["epsilon"], delta, slack=SLACK)
    elif kind == "import":
        charge = before.priced(Ancestor.from_json(entry), entry["unit"], entry["scope"])
        if entry["here"] is not charge.here:
            raise ValueError("whether a run is of this ledger is seen in it")
        admit_import(before, charge, slack=SLACK)
    elif kind == "select":
        neighbours = entry["unit"], entry["scope"]
        admit_selection(before, entry["label"], _selection(entry), neighbours, slack=SLACK)


def _selection(entry: Mapping[str, Any]) -> PartitionSelection:
    names = ("epsilon", "delta", "words_per_unit")
    return PartitionSelection(**{name: entry[name] for name in names})


def _check_amounts(entry: Mapping[str, Any], state: Balance) -> None:
    kind = entry["kind"]
    recorded: Sequence[float] = ()
    expected: Sequence[float] = ()
    if kind == "reserve":
        run = state.runs[entry["run_id"]]
        recorded = run.divergence, run.again
        expected = divergences(run.plan, state.cap.order)
    elif kind == "select":
        selection = _selection(entry)
        recorded = entry["divergence"], entry["threshold_delta"]
        expected = selection.divergence(state.cap.order), selection.threshold_delta
    elif kind == "import":
        charge = state.imports[entry["model"]]
        recorded = (charge.divergence,)
        expected = (state.priced(charge.ancestor, charge.unit, charge.scope).divergence,)
    elif kind in ("spend", "choose"):
        recorded = (entry["divergence"],)
        expected = (state.cap.divergence_of(entry["epsilon"]),)
    if not all(map(_same, recorded, expected)):
        raise _broken(entry, state, f"the amounts recorded are not those of its {_NOUNS[kind]}")


def _broken(entry: Mapping[str, Any], state: Balance, why: str) -> IntegrityError:
    where = f"ledger {state.path}, line {entry.get('number')}"
    return IntegrityError(where, why, "restore the file from a copy")


_NOUNS = {
    "reserve": "plan", "select": "selection", "spend": "mechanism", "choose": "choice",
    "import": "release",
}  # fmt: skip


def _same(recorded: float, expected: float) -> bool:
    return math.isclose(recorded, expected, rel_tol=1e-6)
