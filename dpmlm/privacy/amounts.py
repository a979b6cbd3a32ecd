"""Are the amounts that a ledger recorded those of what it charged? Each is computed again."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dpmlm.errors import IntegrityError
from dpmlm.privacy.admission import divergences
from dpmlm.privacy.balance import Balance
from dpmlm.privacy.selection import PartitionSelection


def check_amounts(entry: Mapping[str, Any], state: Balance) -> None:
    """Raises IntegrityError for an entry, applied to `state` already, that was charged otherwise
    than it says."""
    kind = entry["kind"]
    recorded: Sequence[float] = ()
    expected: Sequence[float] = ()
    if kind == "reserve":
        run = state.runs[entry["run_id"]]
        recorded = run.divergence, run.again
        expected = divergences(run.plan, state.cap.order)
    elif kind == "select":
        names = ("epsilon", "delta", "words_per_unit")
        selection = PartitionSelection(**{name: entry[name] for name in names})
        recorded = entry["divergence"], entry["threshold_delta"]
        expected = selection.divergence(state.cap.order), selection.threshold_delta
    elif kind in ("spend", "choose"):
        recorded = (entry["divergence"],)
        expected = (state.cap.divergence_of(entry["epsilon"]),)
    if not all(map(_same, recorded, expected)):
        raise IntegrityError(
            f"ledger {state.path}, line {entry['number']}",
            f"the amounts recorded are not those of its {_NOUNS[kind]}",
            "restore the file from a copy",
        )


_NOUNS = {
    "reserve": "plan", "select": "selection", "spend": "mechanism", "choose": "choice"
}  # fmt: skip


def _same(recorded: float, expected: float) -> bool:
    return math.isclose(recorded, expected, rel_tol=1e-6)
