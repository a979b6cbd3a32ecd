"""Groups of canaries on a model that knows them, one that does not, and one without scores."""

import dataclasses
import json
import math

import pytest

from audits.exposures.group_exposure import group_exposure, samples_needed
from audits.exposures.sampled import product_alternatives
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet
from audits.scores.sequence import SpanScorer
from audits.statistics import clopper_pearson
from dpmlm.artifacts import UserError

DRAW = product_alternatives(11)


COUNT = 24


@pytest.fixture(scope="module")
def scorer(leaky: LoadedModel) -> SpanScorer:
    return SpanScorer(leaky)


@pytest.fixture(scope="module")
def known(scorer: SpanScorer, canaries: CanarySet) -> dict:
    some = canaries.canaries[:COUNT]
    return group_exposure(scorer, some, DRAW, samples=120, epsilon=0.5, delta=1e-6)


def test_inserted_canaries_stand_out(known: dict, canaries: CanarySet) -> None:
    inserted = sum(canary.included for canary in canaries.canaries[:COUNT])
    assert (known["in"]["n"], known["out"]["n"]) == (inserted, COUNT - inserted)
    assert known["score"] == "left_to_right"
    assert known["cap_bits"] == pytest.approx(math.log2(120))
    assert known["in"]["mean_text"].startswith(">= ")
    assert known["in"]["max_text"] == ">= 6.91 bits"
    assert known["in"]["mean_bits"] > 6.5
    low, high = known["in"]["mean_interval"]
    assert low < known["in"]["mean_bits"] <= known["in"]["mean_bits_optimistic"] <= high
    assert known["out"]["mean_bits"] < 3
    assert known["in_vs_out"]["auc"] > 0.95
    assert known["in_vs_out"]["p_value"] < 1e-4
    assert known["extrapolated"]["n"] == known["in"]["at_cap"] > 0
    assert known["extrapolated"]["mean_bits"] > 7
    assert known["extrapolated"]["method"].startswith("extrapolated")


def test_mean_above_the_ceiling_is_told(known: dict) -> None:
    ceiling = known["ceiling"]
    assert ceiling["applicable"]
    assert ceiling["bits"] == pytest.approx(1.5 / math.log(2) + 36e-6)
    assert ceiling["above"]
    assert known["in"]["mean_interval"][0] > ceiling["bits"]


def test_what_is_told_is_json_without_secrets(known: dict, canaries: CanarySet) -> None:
    text = json.dumps(known, allow_nan=False)
    assert "label" not in known
    for canary in canaries.canaries[:COUNT]:
        assert str(list(canary.secret))[1:-1] not in text
        assert canary.id not in text


def test_an_untrained_model_shows_chance(untrained: LoadedModel, canaries: CanarySet) -> None:
    found = group_exposure(
        SpanScorer(untrained),
        canaries.canaries,
        DRAW,
        samples=100,
        rule="joint",
        epsilon=0.0,
        private=True,
    )
    assert found["label"] == "private"
    for side in ("in", "out"):
        # Exponential in bits: mean and standard deviation are 1/ln 2, over about 100 canaries.
        assert found[side]["mean_bits"] == pytest.approx(1 / math.log(2), abs=0.6)
    assert 0.35 < found["in_vs_out"]["auc"] < 0.65
    assert not found["ceiling"]["above"]


def test_auc_counts_pairs(known: dict, scorer: SpanScorer, canaries: CanarySet) -> None:
    some, inputs = canaries.canaries[:COUNT], scorer.inputs
    bits: dict[bool, list[float]] = {True: [], False: []}
    for canary in some:
        alone = group_exposure(scorer, [canary], DRAW, samples=120)
        bits[canary.included].append(alone["in" if canary.included else "out"]["mean_bits"])
        assert not alone["in_vs_out"]["applicable"]
    assert scorer.inputs == inputs  # every score is kept
    pairs = [(a > b) + (a == b) / 2 for a in bits[True] for b in bits[False]]
    assert known["in_vs_out"]["auc"] == pytest.approx(sum(pairs) / len(pairs))
    assert known["in"]["mean_bits"] == pytest.approx(sum(bits[True]) / len(bits[True]))
    assert known["in"]["max_bits"] == max(bits[True])


def test_samples_needed_to_exceed_a_ceiling() -> None:
    for ceiling, canaries in ((1.44, 1), (2.89, 20), (7.21, 500)):
        needed = samples_needed(ceiling, canaries)
        lows = [
            -math.log2(clopper_pearson(0, n, 1 - 0.05 / canaries)[1]) for n in (needed - 1, needed)
        ]
        assert lows[0] <= ceiling < lows[1]


def test_a_ceiling_out_of_reach_says_what_is_missing(
    untrained: LoadedModel, canaries: CanarySet
) -> None:
    def ceiling(**claim: float) -> dict:
        scorer = SpanScorer(untrained)
        some = canaries.included()[:2]
        return group_exposure(scorer, some, DRAW, samples=100, rule="joint", **claim)["ceiling"]

    found = ceiling(epsilon=8.0, delta=1e-6)
    assert not found["applicable"]
    assert found["samples_needed"] == samples_needed(found["bits"], 2) > 8000
    assert str(found["samples_needed"]) in found["reason"]
    assert "no more bits" in ceiling(epsilon=40.0)["reason"]
    assert "no epsilon" in ceiling(epsilon=math.inf)["reason"]
    assert "no epsilon" in ceiling()["reason"]


def test_unusable_scores_and_groups(
    broken: LoadedModel, untrained: LoadedModel, canaries: CanarySet
) -> None:
    some = canaries.canaries[:3]
    found = group_exposure(SpanScorer(broken), some, DRAW, samples=100, rule="joint")
    assert not found["applicable"]
    assert "not finite" in found["reason"]
    empty = group_exposure(SpanScorer(untrained), [], DRAW, samples=100)
    assert empty == {"applicable": False, "reason": "0 canaries in the group; 1 is needed"}
    with pytest.raises(UserError, match="50 are missing"):
        group_exposure(SpanScorer(untrained), some, DRAW, samples=50)
    mixed = [some[0], dataclasses.replace(some[1], copies=4)]
    with pytest.raises(UserError, match="never pooled"):
        group_exposure(SpanScorer(untrained), mixed, DRAW, samples=100)
    with pytest.raises(UserError, match="100 are missing"):
        group_exposure(SpanScorer(untrained), some, lambda *_: [], samples=100)
