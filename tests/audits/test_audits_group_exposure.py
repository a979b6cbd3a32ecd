"""Groups of canaries on a model that knows them, one that does not, and one without scores."""

import json
import math

import numpy as np
import pytest

from audits.exposures.exposure import Exposure
from audits.exposures.group_exposure import group_exposure, samples_needed
from audits.exposures.sampled import score_with_alternatives
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet
from audits.scores.sequence import SpanScorer
from audits.statistics import clopper_pearson
from dpmlm.artifacts import UserError

COUNT = 24


@pytest.fixture(scope="module")
def exposure_of(product_draws, canaries: CanarySet):
    """A group's exposure among samples, from the model on."""

    def found(scorer, some, *, samples, rule="left_to_right", **rest) -> dict:
        scored = score_with_alternatives(
            scorer, some, product_draws(11), samples=samples, rule=rule
        )
        coins = np.array(canaries.opened.of(some))
        return group_exposure(scored, coins, space_bits=36.0, **rest)

    return found


@pytest.fixture(scope="module")
def scorer(leaky: LoadedModel) -> SpanScorer:
    return SpanScorer(leaky)


@pytest.fixture(scope="module")
def known(exposure_of, scorer: SpanScorer, canaries: CanarySet) -> dict:
    some = canaries.canaries[:COUNT]
    return exposure_of(scorer, some, samples=120, epsilon=0.5, delta=1e-6, extrapolate=True)


def test_inserted_canaries_stand_out(known: dict, canaries: CanarySet) -> None:
    inserted = sum(canaries.opened.of(canaries.canaries[:COUNT]))
    assert (known["in"]["n"], known["out"]["n"]) == (inserted, COUNT - inserted)
    assert (known["method"], known["exact"], known["samples"]) == ("sampled", 0, 120)
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
    for canary in canaries.canaries[:COUNT]:
        assert str(list(canary.secret))[1:-1] not in text
        assert canary.id not in text


def test_an_untrained_model_shows_chance(
    exposure_of, untrained: LoadedModel, canaries: CanarySet
) -> None:
    scorer, some = SpanScorer(untrained), canaries.canaries
    found = exposure_of(scorer, some, samples=100, rule="joint", epsilon=0.0)
    assert "extrapolated" not in found
    for side in ("in", "out"):
        # Exponential in bits: mean and standard deviation are 1/ln 2, over about 100 canaries.
        assert found[side]["mean_bits"] == pytest.approx(1 / math.log(2), abs=0.6)
    assert 0.35 < found["in_vs_out"]["auc"] < 0.65
    assert not found["ceiling"]["above"]


def test_auc_counts_pairs(
    exposure_of, known: dict, scorer: SpanScorer, canaries: CanarySet
) -> None:
    some, inputs = canaries.canaries[:COUNT], scorer.inputs
    bits: dict[bool, list[float]] = {True: [], False: []}
    for canary, coin in zip(some, canaries.opened.of(some)):
        alone = exposure_of(scorer, [canary], samples=120)
        bits[coin].append(alone["in" if coin else "out"]["mean_bits"])
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
    exposure_of, untrained: LoadedModel, canaries: CanarySet
) -> None:
    def ceiling(**claim: float) -> dict:
        some = canaries.included()[:2]
        return exposure_of(SpanScorer(untrained), some, samples=100, rule="joint", **claim)[
            "ceiling"
        ]

    found = ceiling(epsilon=8.0, delta=1e-6)
    assert not found["applicable"]
    assert found["samples_needed"] == samples_needed(found["bits"], 2) > 8000
    assert str(found["samples_needed"]) in found["reason"]
    assert "no more bits" in ceiling(epsilon=40.0)["reason"]
    assert "no epsilon" in ceiling(epsilon=math.inf)["reason"]
    assert "no epsilon" in ceiling()["reason"]


def test_counted_ranks_stand_beside_sampled_ones() -> None:
    exact = [Exposure(20.0, 19.0), Exposure(3.0, 2.0)]
    sampled = [(5.0, np.arange(100.0)), (-1.0, np.arange(100.0))]
    coins = np.array([True, False, True, False])
    found = group_exposure([*exact, *sampled], coins, space_bits=30.0, epsilon=1.0)
    assert (found["method"], found["exact"], found["samples"]) == ("exact or sampled", 2, 100)
    own = math.log2(100 / 95)
    assert found["in"]["mean_bits"] == pytest.approx((19 + own) / 2)
    assert found["in"]["mean_interval"][0] >= 9.5
    assert found["in"]["max_text"] == "19.00 bits"
    assert found["out"]["max_interval"][1] >= 3
    needed = samples_needed(2 / math.log(2), 2)
    assert found["ceiling"] == {
        "applicable": True, "bits": 2 / math.log(2), "samples_needed": needed, "above": True
    }  # fmt: skip
    # 100 samples cannot show 8.7 bits; with counted ranks beside them they do.
    assert samples_needed(6 / math.log(2), 2) > 100
    assert group_exposure([*exact, *sampled], coins, space_bits=30.0, epsilon=5.0)["ceiling"][
        "above"
    ]
    alone = group_exposure(exact, coins[:2], space_bits=30.0, epsilon=13.0)
    assert (alone["method"], alone["samples"], alone["cap_bits"]) == ("exact", None, None)
    assert alone["ceiling"] == {
        "applicable": True, "bits": 14 / math.log(2), "samples_needed": 0, "above": False
    }  # fmt: skip


def test_unusable_groups() -> None:
    empty = group_exposure([], np.zeros(0, dtype=bool), space_bits=30.0)
    assert empty == {"applicable": False, "reason": "0 canaries in the group; 1 is needed"}
    with pytest.raises(UserError, match="50 are missing"):
        group_exposure([(0.0, np.zeros(50))], np.ones(1, dtype=bool), space_bits=30.0)
    with pytest.raises(ValueError, match="shorter"):
        group_exposure([(0.0, np.zeros(500))] * 2, np.ones(1, dtype=bool), space_bits=30.0)
