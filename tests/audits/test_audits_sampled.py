"""Sampled exposure: its counts, its interval against binomial sums, and its coverage."""

import dataclasses
import math

import numpy as np
import pytest

from audits.exposures.exposure import exposures
from audits.exposures.sampled import sampled_exposure, score_with_alternatives
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet
from audits.planting.canary import Canary
from audits.scores.scoring import joint_logprobs, secret_positions
from audits.scores.sequence import SpanScorer
from dpmlm.artifacts import UserError


def _at_least(k: int, n: int, p: float) -> float:
    """P[X >= k] for X ~ Bin(n, p), term by term."""
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@pytest.mark.parametrize(("own", "higher", "equal"), [(3, 120, 40), (0, 160, 0), (5, 0, 40)])
def test_counts_and_interval_by_hand(own: int, higher: int, equal: int) -> None:
    others = [4.0] * 80 + [5.0] * 40 + [3.0] * 40
    found = sampled_exposure(own, others)
    assert (found.samples, found.higher, found.equal) == (160, higher, equal)
    cap = math.log2(160)
    assert found.optimistic == pytest.approx(-math.log2(higher / 160) if higher else cap)
    assert found.conservative == pytest.approx(-math.log2((higher + equal) / 160))
    # Either end is the share under which a count as extreme has probability 2.5 %.
    if higher + equal < 160:
        assert 1 - _at_least(higher + equal + 1, 160, 2**-found.low) == pytest.approx(0.025)
    else:
        assert found.low == 0
    if higher:
        assert _at_least(higher, 160, 2**-found.high) == pytest.approx(0.025)
    else:
        assert found.high == cap


def test_what_no_sample_reaches_is_at_least_log2_n() -> None:
    found = sampled_exposure(1.0, np.zeros(1024))
    assert str(found) == ">= 10.00 bits"
    assert (found.optimistic, found.conservative, found.high) == (10, 10, 10)
    assert _at_least(1, 1024, 2**-found.low) == pytest.approx(0.975)
    assert str(sampled_exposure(1.0, [1.0] + [0.0] * 1023)) == "10.00 bits"
    assert sampled_exposure(1.0, [2.0] + [0.0] * 1023).high == 10


def test_interval_covers_the_exposure_in_the_whole_space() -> None:
    rng = np.random.default_rng(0)
    space = np.rint(rng.normal(size=4096) * 40)
    missed = 0
    for trial in range(1000):
        own = np.sort(space)[-1 - 3 * (trial % 300)]
        exact = 12 - math.log2((space > own).sum() or 1), 12 - math.log2((space >= own).sum())
        found = sampled_exposure(own, rng.choice(space, 400))
        over = exact[1] > found.high and found.high != found.cap
        missed += found.low > exact[0] or over
    # 5 % of 1,000 and 3.3 standard deviations.
    assert missed <= 73


def test_samples_of_a_product_agree_with_its_counted_ranks(
    leaky: LoadedModel, canaries: CanarySet, product_draws
) -> None:
    some = canaries.canaries[:20]
    exact = exposures(joint_logprobs(leaky, some), secret_positions(some))
    scored = score_with_alternatives(
        SpanScorer(leaky), some, product_draws(7), samples=300, rule="joint"
    )
    capped = 0
    for (own, others), truth in zip(scored, exact):
        found = sampled_exposure(own, others, confidence=0.9999)
        assert found.low <= truth.optimistic
        assert truth.conservative <= found.high or found.high == found.cap
        assert not found.at_least or truth.conservative > found.low
        capped += found.at_least
    assert 0 < capped < 20


def test_alternatives_stand_in_the_place_of_the_secret(leaky: LoadedModel) -> None:
    canary = Canary("c00000", (401, 402), (5, 6), ((5, 7), (6, 8)), 1)
    other = dataclasses.replace(canary, id="c00001", secret=(7, 8))
    drawn = [(5, 6), (7, 8), (7, 6, 9), (5,)]
    scored = score_with_alternatives(
        SpanScorer(leaky), [canary, other], lambda *_: drawn, samples=4
    )
    for (own, others), secret in zip(scored, ((5, 6), (7, 8))):
        # Both secrets may have been inserted, so neither is an alternative to either.
        expected = SpanScorer(leaky).score(
            [(401, 402, *tokens) for tokens in (secret, (7, 6, 9), (5,))], [(2, 4), (2, 5), (2, 3)]
        )
        naive = [sum(round(float(step) * 512) for step in steps) for steps in expected]
        assert [own, *others] == naive


def test_too_few_or_bad_samples_are_refused(leaky: LoadedModel, canaries: CanarySet) -> None:
    with pytest.raises(UserError, match="1 are missing"):
        sampled_exposure(0.0, np.zeros(99))
    with pytest.raises(UserError, match="not a number"):
        sampled_exposure(math.nan, np.zeros(100))
    with pytest.raises(UserError, match="not a number"):
        sampled_exposure(0.0, [math.nan] + [0.0] * 99)
    for drawn, said in (([(5,)] * 98, "2 are missing"), ([(5,)] * 99 + [()], "empty one")):
        with pytest.raises(UserError, match=said):
            score_with_alternatives(
                SpanScorer(leaky), canaries.canaries[:1], lambda *_, d=drawn: d, samples=100
            )
