"""Exact left-to-right ranks against every candidate, scored one by one."""

import dataclasses
import itertools
import math
import time

import numpy as np
import pytest

from audits.exposures.prefix_tree import (
    exposure_among,
    left_to_right_exposure,
)
from audits.exposures.ranks import units
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet
from audits.planting.canary import Canary
from audits.scores.sequence import SpanScorer
from dpmlm.artifacts import UserError


def _canary(secret: tuple[int, ...], alphabets: tuple[tuple[int, ...], ...]) -> Canary:
    return Canary("c00000", (401, 402, 403), secret, alphabets, 1)


def _every_candidate(subject: LoadedModel, canary: Canary) -> tuple[float, float]:
    scores = {}
    for candidate in itertools.product(*canary.alphabets):
        row = canary.prefix + candidate
        # A scorer of its own for each candidate: nothing is shared.
        steps = SpanScorer(subject).score([row], [canary.secret_span])[0]
        scores[candidate] = float(units(steps).sum())
    own = scores[canary.secret]
    higher = sum(score > own for score in scores.values())
    reached = sum(score >= own for score in scores.values())
    bits = math.log2(len(scores))
    return bits - math.log2(1 + higher), bits - math.log2(reached)


def test_exact_against_every_candidate(leaky: LoadedModel, canaries: CanarySet) -> None:
    known = canaries.included()[0]
    first, second, third = (
        (token, *(other for other in row if other != token))
        for token, row in list(zip(known.secret, known.alphabets))[:3]
    )
    alphabets, inputs = (first[:3], second[:2], third[:4]), []
    for secret in itertools.islice(itertools.product(*alphabets), 0, None, 4):
        canary = dataclasses.replace(known, secret=secret, alphabets=alphabets)
        found = left_to_right_exposure(leaky, canary, batch_size=4)
        exact = (found.exposure.optimistic, found.exposure.conservative)
        assert exact == pytest.approx(_every_candidate(leaky, canary))
        assert 3 <= found.inputs <= 1 + 3 + 3 * 2
        inputs.append(found.inputs)
    assert len(set(inputs)) > 1  # what scores below the secret is left out


def test_candidates_of_any_lengths_against_each_alone(leaky: LoadedModel) -> None:
    before, rng = (401, 402, 403), np.random.default_rng(3)
    listed = [(a, b) for a in (5, 6, 90) for b in (7, 100)] + [(a,) for a in (5, 8, 90, 300)]
    listed += [tuple(row) for row in rng.integers(5, 300, (8, 3)).tolist()]
    scores = {}
    for candidate in listed:
        steps = SpanScorer(leaky).score([before + candidate], [(3, 3 + len(candidate))])[0]
        scores[candidate] = float(units(steps).sum())
    inputs = []
    for secret in listed:
        found = exposure_among(leaky, before, secret, listed, batch_size=2)
        higher = sum(score > scores[secret] for score in scores.values())
        reached = sum(score >= scores[secret] for score in scores.values())
        bits = math.log2(len(listed))
        assert found.exposure.optimistic == pytest.approx(bits - math.log2(1 + higher))
        assert found.exposure.conservative == pytest.approx(bits - math.log2(reached))
        inputs.append(found.inputs)
    # A tree of each length: its root, and no more than the beginnings of its candidates.
    assert 3 <= min(inputs) < max(inputs) <= 1 + (1 + 3) + (1 + 8 + 8)


def test_ties_under_both_conventions(untrained: LoadedModel) -> None:
    # Two tokens with one embedding and one bias are told apart by nothing.
    weight = untrained.model.get_input_embeddings().weight
    bias = untrained.model.get_output_embeddings().bias
    before = weight[21].clone(), bias[21].clone()
    weight.data[21], bias.data[21] = weight.data[20], bias.data[20]
    try:
        canary = _canary((20, 20), ((20, 21), (20, 21)))
        found = left_to_right_exposure(untrained, canary).exposure
    finally:
        weight.data[21], bias.data[21] = before
    assert (found.optimistic, found.conservative) == (2, 0)


def test_memorised_secrets_are_ranked_in_2_to_the_36(leaky: LoadedModel, canaries: CanarySet):
    scorer = SpanScorer(leaky)
    for canary in canaries.included()[:10]:
        found = left_to_right_exposure(leaky, canary)
        own = scorer.score([canary.tokens], [canary.secret_span])[0].sum()
        # Rounding may let through prefixes a few hundredths of a nat below.
        assert found.inputs <= 1 + 5 * math.exp(-own + 0.05)
        assert found.exposure.conservative > 20


def test_a_tree_that_grows_too_large_is_given_up(untrained: LoadedModel, canaries: CanarySet):
    with pytest.raises(UserError, match="more than 500 inputs"):
        left_to_right_exposure(untrained, canaries.canaries[0], most_inputs=500)


def test_unusable_models_are_refused(broken: LoadedModel, canaries: CanarySet) -> None:
    with pytest.raises(UserError, match="not a number"):
        left_to_right_exposure(broken, canaries.canaries[0])
    outside = _canary((5,), ((5, 700),))
    with pytest.raises(UserError, match="vocabulary of 700"):
        left_to_right_exposure(broken, outside)
    long = dataclasses.replace(outside, alphabets=((5, 6),), prefix=tuple(range(5, 67)))
    with pytest.raises(UserError, match="rows of 64 tokens"):
        left_to_right_exposure(broken, long)


@pytest.mark.full
def test_six_digits_take_111_111_inputs(untrained: LoadedModel) -> None:
    # To a model that knows nothing, five digits are likelier than any six: no prefix is dropped.
    canary = _canary((10,) * 6, (tuple(range(10, 20)),) * 6)
    started = time.process_time()
    found = left_to_right_exposure(untrained, canary)
    print(f"{found.inputs} inputs, {time.process_time() - started:.1f} s of one core")
    assert found.inputs == 111_111
    rng = np.random.default_rng(0)
    rows = [canary.prefix + tuple(row) for row in rng.integers(10, 20, (400, 6)).tolist()]
    scores = SpanScorer(untrained).score([canary.tokens, *rows], [(3, 9)] * 401)
    own, *others = (units(score).sum() for score in scores)
    higher, reached = sum(s > own for s in others), sum(s >= own for s in others)
    # The share of 400 samples above the secret, within five standard deviations.
    low, high = higher / 400 - 0.13, reached / 400 + 0.13
    assert low <= 2**-found.exposure.optimistic <= 2**-found.exposure.conservative <= high
