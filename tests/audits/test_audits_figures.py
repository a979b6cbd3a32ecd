"""Edited evidence: every number of a real one is changed in turn, and most changes are found."""

import copy
import time

import pytest
from variants import rest_in_full

from audits.evidence import audit
from audits.figures import _cached_curve
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet
from audits.recheck import contradictions

LEFT_TO_THE_SIGNER = {
    "canary_extraction.extracted_never_inserted",
    "exposure.max_bits",
    "exposure.mean_bits",
    "exposure.mean_bits_optimistic",
    "exposure.mean_bits_out",
}
"""Of each subject: counts that nothing else follows from, and exposures finer than a bit."""


@pytest.fixture(scope="module")
def bound(canaries: CanarySet, plan: dict) -> dict:
    return plan | {"bindings": {"canary_commitment": canaries.commitment}}


@pytest.fixture(scope="module")
def real(untrained: LoadedModel, leaky: LoadedModel, canaries: CanarySet, bound: dict) -> dict:
    return audit(untrained, plan=bound, canaries=canaries, control=leaky, untrained=untrained)


def leaves(value, path=()):
    """Places of all numbers and of every yes or no."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from leaves(item, (*path, place))
    elif isinstance(value, bool | int | float):
        yield path


def changed(evidence, path, change):
    edited = copy.deepcopy(evidence)
    part = edited
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = change(part[path[-1]])
    return edited


def more(value):
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value * 1.05 + 1e-3


def less(value):
    if isinstance(value, bool):
        return not value
    return value - 1 if isinstance(value, int) else value * 0.95 - 1e-3


EDITS = {
    "subjects.control.gating.p_value": lambda p: 1e-9,
    "subjects.target.gating.p_value": lambda p: 0.9,
    "subjects.target.gating.correct": less,
    "subjects.target.gating.needed_strict": less,
    "subjects.control.exposure.p_value": lambda p: p * 1.01,
    "subjects.control.exposure.count_above": more,
    "subjects.control.canary_extraction.p_value": lambda p: p / 2,
    "subjects.control.canary_extraction.extracted": less,
    "subjects.target.canary_extraction.baseline_rate": lambda rate: 2 * rate,
    "subjects.control.lower_bound.one_run": less,
    "declared.threshold_bits": less,
    "claim.recomputed_epsilon": less,
}


@pytest.mark.parametrize("place", rest_in_full(EDITS, list(EDITS)[::2]))
def test_an_edited_figure_is_found(real, bound, place):
    assert contradictions(real, bound) == []
    edited = changed(real, place.split("."), EDITS[place])
    assert edited != real
    found = {path for path, _ in contradictions(edited, bound)}
    area = place.rsplit(".", 1)[0].split(".")[:2]
    told = area if area[0] == "subjects" else ["subjects" if area == ["declared"] else area[0]]
    assert any(path.startswith(".".join(told)) for path in found), found


def test_counts_taken_away_are_found(real, bound):
    edited = copy.deepcopy(real)
    del edited["subjects"]["target"]["gating"]["correct"]
    assert ("subjects.target.gating.p_value") in dict(contradictions(edited, bound))
    edited = copy.deepcopy(real)
    gating = edited["subjects"]["target"]["gating"]
    gating |= {"applicable": False, "reason": "not today", "p_value": None, "rejected": None}
    assert "subjects.target.gating.applicable" in dict(contradictions(edited, bound))


def test_it_costs_less_than_a_second(real, bound):
    _cached_curve.cache_clear()

    begun = time.process_time()
    contradictions(real, bound)
    assert time.process_time() - begun < 1.5, "0.5 s where nothing else runs"


@pytest.mark.full
def test_every_number_changed_in_turn(real, bound):
    unfound = {
        ".".join(map(str, path))
        for part in ("claim", "declared", "subjects", "power")
        for path in leaves(real[part], (part,))
        for change in (more, less)
        if not contradictions(changed(real, path, change), bound)
    }
    assert unfound <= {
        f"subjects.{name}.{figure}"
        for name in ("target", "control", "untrained")
        for figure in LEFT_TO_THE_SIGNER
    } | {"declared.tokens_checked"}
