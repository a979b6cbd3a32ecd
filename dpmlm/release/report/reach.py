"""How much each attack tried, and what it could have found: the numbers behind a silence.

Both are read from the evidence of this very run, so that nothing is said of an attack that its
own figures do not say.
"""

from collections.abc import Callable, Mapping
from typing import Any

from audits.statistics import clopper_pearson
from dpmlm.release.report import words


def quantity(path: str, part: Any) -> str:
    """How many were tried by the attack whose result stands at `path`; empty where unknown."""
    return _told(_QUANTITY, path, part)


def reach(path: str, part: Any) -> str:
    """What would have been found, in numbers; empty where none are known."""
    return _told(_REACH, path, part)


def none_of(n: int) -> str:
    """What no hit in `n` leaves possible: the Clopper-Pearson upper bound."""
    return f"if none of {n:,} does, the rate may still be {words.percent(clopper_pearson(0, n)[1])}"


def _told(say: Mapping[str, Callable[[Any], str]], path: str, part: Any) -> str:
    """Parts without the figures that a sentence needs, as of a test that could not be tried, say
    nothing."""
    if path not in say or not part:
        return ""
    try:
        return say[path](part)
    except (KeyError, TypeError, IndexError):
        return ""


def _guessing(part: Mapping[str, Any]) -> str:
    """The gating test of planted secrets, or of gradient canaries."""
    made, needed = part["guesses"], part["needed_strict"]
    if needed is None:
        return "at this promise no number of right guesses would do: it could find nothing"
    least = part["smallest_multiple_detected"]
    found = "" if least is None else f"; it would probably notice {least:.1f} times the promise"
    return f"{needed:,} right guesses of {made:,} or more, where a coin gets {made // 2:,}{found}"


def _exposure(part: Mapping[str, Any]) -> str:
    ceiling, space = part["ceiling_bits"], part["space_bits"]
    limit = "" if ceiling is None else f"a mean above {ceiling:.1f} bits, or "
    return f"{limit}too many secrets above {part['threshold_bits']:.0f} of {space:.0f} bits"


def _extraction(part: Mapping[str, Any]) -> str:
    luck = 1 / part["baseline_rate"]
    return f"a single secret, which luck says 1 time in {luck:,.0f}; {none_of(part['n'])}"


def _lower_bound(part: Mapping[str, Any]) -> str:
    return f"an epsilon of {part['one_run_ceiling']:.2f} at most, with every guess right"


def _gradients(part: Mapping[str, Any]) -> str:
    ceiling = part["lower_bound"]["one_run_ceiling"]
    return f"{_guessing({**part, **part['gating']})}; an epsilon of {ceiling:.2f} at most"


def _verbatim(part: Mapping[str, Any]) -> str:
    return f"a single stretch; {none_of(part['spans']['train'])}"


def _membership_size(part: Mapping[str, Any]) -> str:
    records, units = part["records"], part["units"]
    return (
        f"{records['members']:,} records of {units['members']:,} units, and "
        f"{records['non_members']:,} of {units['non_members']:,} held out"
    )


def _identifiers_size(part: Mapping[str, Any]) -> str:
    told = [
        f"{name} text: {games['sentences']['train']} sentences, "
        f"{games['sentences']['held_out']} held out"
        for name, games in part.items()
        if isinstance(games, Mapping) and "sentences" in games
    ]
    return "; ".join(told)


def _groups_size(groups: Any) -> str:
    total = sum(group["canaries"] for group in groups)
    return f"{total:,} secrets in {len(groups)} groups"


_QUANTITY: dict[str, Callable[[Any], str]] = {
    "subjects.control": lambda part: _QUANTITY["subjects.target.gating"](part["gating"]),
    "subjects.target.gating": lambda p: f"{p['canaries']:,} secrets, {p['guesses']:,} guesses",
    "subjects.target.exposure": lambda p: (
        f"{p['n']:,} secrets, each among {2 ** p['space_bits']:,.0f}"
    ),
    "subjects.target.canary_extraction": lambda p: (
        f"{p['n']:,} secrets, {p['guesses_per_canary']} tries each"
    ),
    "subjects.target.lower_bound": lambda part: "the same guesses",
    "groups": _groups_size,
    "gradients": lambda p: f"{p['canaries']:,} directions, {p['steps']:,} steps",
    "membership": _membership_size,
    "verbatim": lambda p: f"{p['spans']['train']} stretches, {p['spans']['twins']} held out",
    "identifiers": _identifiers_size,
}
_REACH: dict[str, Callable[[Any], str]] = {
    "subjects.target.gating": _guessing,
    "subjects.target.exposure": _exposure,
    "subjects.target.canary_extraction": _extraction,
    "subjects.target.lower_bound": _lower_bound,
    "gradients": _gradients,
    "verbatim": _verbatim,
}
