"""Whether figures of evidence follow from its counts: the same formulas compute them again.

From the plan comes its trade-off curve; from the counts of each subject (guesses, right ones,
canaries over the threshold, secrets read out) come p-values, bounds, ceilings and intervals. What
cannot be computed again is left to the signer: the counts themselves, exposures finer than their
histogram, and the smallest multiple of the claim that is caught.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from audits.claim.gating import TradeOffCurve, trade_off_curve
from audits.extraction import GUESSES
from audits.planting.insertion import effective_exposures
from audits.subject import TESTS, Rules, following, untestable
from dpmlm.artifacts import canonical_json

TOLERANCE = 1e-3
"""Relative: other versions of the packages round otherwise."""
LEAST = 1e-15
"""Absolute: far below any p-value that is told."""
_WRONG = "it does not follow from the counts"

Finding = tuple[str, str]
"""A dotted path, and what is wrong there."""


def mistaken(evidence: Mapping[str, Any], plan: Mapping[str, Any]) -> list[Finding]:
    """Figures that do not follow from counts and plan, as dotted paths with what is wrong.

    Raises KeyError, TypeError, ValueError or UserError on what is no evidence or no plan.
    """
    claim, declared = evidence["claim"], evidence["declared"]
    subjects = {name: one for name, one in evidence["subjects"].items() if one is not None}
    copies = declared["copies"]
    single, curve = _curve(plan, 1), _curve(plan, copies)
    expected: dict[str, Any] = {"recomputed_epsilon": _epsilon(single, plan)}
    if copies > 1:
        expected["canary_epsilon"] = _epsilon(curve, plan)
    found = _differing("claim", claim, expected)
    found += _differing(
        "declared",
        declared,
        {"effective_exposures": effective_exposures(plan, copies=copies, arm="exempt")},
    )
    if list(declared["tests"]) != list(TESTS):
        found.append(("declared.tests", "they are not the tests that share the budget"))
    rules = Rules(
        beta=declared["beta"],
        per_side=declared["guesses"] // 2,
        threshold_bits=declared["threshold_bits"],
        epsilon=float(claim["canary_epsilon"]),
        delta=plan["delta"],
        curve=curve,
        smallest_multiple=next(  # the signer's, but one for all
            (
                one["gating"].get("smallest_multiple_detected")
                for one in subjects.values()
                if "correct" in one["gating"]
            ),
            None,
        ),
        no_test=None,
    )
    for name, one in subjects.items():
        found += _subject(f"subjects.{name}", one, rules, copies)
        if one["gating"].get("guesses") not in (None, declared["guesses"]):
            found.append((f"subjects.{name}.gating.guesses", "others were declared"))
    return found


def _curve(plan: Mapping[str, Any], copies: int) -> TradeOffCurve | None:
    if not (math.isfinite(float(plan["epsilon"])) and plan["noise_multiplier"] > 0):
        return None
    return _cached_curve(canonical_json(plan), copies)


@lru_cache(maxsize=8)  # a gate, a bundle and its verification ask about the same plan
def _cached_curve(plan: bytes, copies: int) -> TradeOffCurve:
    return trade_off_curve(json.loads(plan), copies)


def _epsilon(curve: TradeOffCurve | None, plan: Mapping[str, Any]) -> float:
    return math.inf if curve is None else curve.epsilon(plan["delta"])


def _subject(path: str, one: Mapping[str, Any], rules: Rules, copies: int) -> list[Finding]:
    exposure = one["exposure"]
    if "space_bits" in exposure:
        reason = untestable(rules.epsilon, rules.curve, copies, exposure["space_bits"])
        rules = replace(rules, no_test=reason)
    parts = following(one, rules)
    found = [
        (f"{path}.{test}.p_value", "there are no counts that it could follow from")
        for test in TESTS
        if test not in parts and one[test].get("p_value") is not None
    ]
    for test, expected in parts.items():
        found += _differing(f"{path}.{test}", one[test], expected)
    if "exposure" in parts:
        found += _histogram(f"{path}.exposure", one, rules)
    if "canary_extraction" in parts:
        found += _inserted(f"{path}.canary_extraction", one)
    return found


def _inserted(path: str, one: Mapping[str, Any]) -> list[Finding]:
    """Extraction was tried on the canaries whose exposure was counted."""
    part, exposure, canaries = one["canary_extraction"], one["exposure"], one["gating"]["canaries"]
    expected = {
        "n": exposure["n"],
        "guesses_per_canary": GUESSES,
        "baseline_rate": min(1.0, GUESSES * 2.0 ** -exposure["space_bits"]),
    }
    found = _differing(path, part, expected)
    if not 0 <= part["extracted"] <= part["n"]:
        found.append((f"{path}.extracted", "there are not so many canaries"))
    if not 0 <= part["extracted_never_inserted"] <= canaries - part["n"]:
        found.append((f"{path}.extracted_never_inserted", "there are not so many canaries"))
    return found


def _histogram(path: str, one: Mapping[str, Any], rules: Rules) -> list[Finding]:
    """Means, largest value and the count over the threshold, as far as whole bits tell."""
    part, canaries = one["exposure"], one["gating"]["canaries"]
    bars, inserted = part["histogram"], part["n"]
    edges = list(range(math.ceil(part["space_bits"]) + 1))
    found = _differing(path, part, {"threshold_bits": rules.threshold_bits})
    if bars["edges"] != edges or {len(bars["in"]), len(bars["out"])} != {len(edges) - 1}:
        return [*found, (f"{path}.histogram", "it is not of whole bits up to the space")]
    sides = (("in", "mean_bits", inserted), ("out", "mean_bits_out", canaries - inserted))
    for side, mean, count in sides:
        if sum(bars[side]) != count or min(bars[side]) < 0:
            found.append((f"{path}.histogram.{side}", "it does not hold each canary once"))
        elif count and not _within(part[mean], *_mean_range(edges, bars[side])):
            found.append((f"{path}.{mean}", "it does not follow from the histogram"))
    full = [edge for edge, count in zip(pairwise(edges), bars["in"], strict=True) if count]
    if full and not _within(part["max_bits"], *full[-1]):
        found.append((f"{path}.max_bits", "it does not follow from the histogram"))
    if "count_above" in part and rules.threshold_bits is not None:
        least, most = (
            sum(count for edge, count in zip(edges, bars["in"]) if edge + more >= limit)
            for more, limit in ((0, rules.threshold_bits), (1, rules.threshold_bits))
        )
        if not least <= part["count_above"] <= most:
            found.append((f"{path}.count_above", "it does not follow from the histogram"))
    return found


def _mean_range(edges: Sequence[int], counts: Sequence[int]) -> tuple[float, float]:
    low = sum(edge * count for edge, count in zip(edges, counts)) / sum(counts)
    return low, low + 1


def _within(value: Any, low: float, high: float) -> bool:
    return low - 1e-9 <= float(value) <= high + 1e-9  # rounding of a mean


def _differing(path: str, part: Mapping[str, Any], expected: Mapping[str, Any]) -> list[Finding]:
    return [
        (f"{path}.{name}", _WRONG)
        for name, value in expected.items()
        if not _same(part.get(name), value)
    ]


def _same(told: Any, computed: Any) -> bool:
    """Whether two figures agree; whole numbers, words and yes or no must be equal."""
    if isinstance(computed, Mapping):
        return isinstance(told, Mapping) and all(
            _same(told.get(name), value) for name, value in computed.items()
        )
    if isinstance(computed, list | tuple):
        return (
            isinstance(told, list)
            and len(told) == len(computed)
            and all(map(_same, told, computed))
        )
    if isinstance(computed, float) and not isinstance(told, bool):
        if not isinstance(told, float | int | str):
            return False
        return math.isclose(float(told), computed, rel_tol=TOLERANCE, abs_tol=LEAST)
    return type(told) is type(computed) and bool(told == computed)
