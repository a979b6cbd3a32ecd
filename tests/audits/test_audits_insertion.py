"""What is inserted for a canary, how often it is met, and what of it arrives."""

import random
from dataclasses import replace

import numpy as np
import pytest

from audits.planting.canaries import plan_canaries
from audits.planting.canary import CanaryGroup
from audits.planting.families import GroupRequest, draw_texts
from audits.planting.insertion import documents, effective_exposures, longest_run, survival
from audits.planting.labels import Labels
from audits.planting.secret_random import SecretRandom
from dpmlm.artifacts import UserError
from dpmlm.masking import MaskingSpec
from dpmlm.privacy import PoissonSampler, SecretStream


def group(copies: int = 4, count: int = 30) -> CanaryGroup:
    request = GroupRequest("phone", count, copies, "pipeline")
    drawn = draw_texts(request, 1, SecretRandom(b"group"))
    canaries = tuple(
        replace(canary, prefix=(1, 2), secret=tuple(range(100 * at, 100 * at + 8)))
        for at, canary in enumerate(drawn.canaries, start=1)
    )
    return replace(drawn, canaries=canaries)


def tossed(drawn: CanaryGroup) -> Labels:
    return Labels.draw([canary.id for canary in drawn.canaries], SecretRandom(b"coins"))


def test_every_copy_of_an_included_canary_is_a_document_of_its_own():
    labels = tossed(group())
    planted = list(documents([group()], labels, "nonce"))
    included = labels.included(group().canaries)
    assert len(planted) == 4 * len(included) > 0
    assert len({document.text for document in planted}) == len(planted)
    assert len({document.name for document in planted}) == len(planted)
    for document in planted:
        before, secret = document.canary.text
        assert document.text.endswith(f". {before} {secret}.")
        assert labels.coins[document.canary.id]
    assert [d.text for d in documents([group()], labels, "nonce")] == [d.text for d in planted]
    assert [d.text for d in documents([group()], labels, "other")] != [d.text for d in planted]
    rows = plan_canaries(count=90, token_ids=range(100, 400), prefix_ids=range(400, 600))
    with pytest.raises(UserError, match="rows of tokens"):
        list(documents([rows.gating], rows.opened, "nonce"))


def naive_run(secret, tokens) -> int:
    """All pieces of the secret, the longest first, at all places."""
    for length in range(len(secret), 0, -1):
        for start in range(len(secret) - length + 1):
            piece = list(secret[start : start + length])
            if any(tokens[at : at + length] == piece for at in range(len(tokens))):
                return length
    return 0


def test_longest_run_against_trying_all_pieces():
    rng = random.Random(2)
    for _ in range(300):
        secret = [rng.randrange(4) for _ in range(rng.randint(1, 7))]
        tokens = [rng.randrange(4) for _ in range(rng.randint(0, 30))]
        assert longest_run(secret, tokens) == naive_run(secret, tokens)


def test_a_canary_arrives_whole_in_part_or_not():
    planted = group(copies=2)
    labels = tossed(planted)
    included = labels.included(planted.canaries)
    whole, half, little, gone, twice = included[:5]
    noise = [7, 8, 9]
    reached = {
        f"canary/{whole.id}/1": [*noise, *whole.secret, 3],
        f"canary/{half.id}/0": [*noise, *half.secret[2:6], 9, half.secret[7]],
        f"canary/{half.id}/1": noise,
        f"canary/{little.id}/0": [*little.secret[:3], 5, *little.secret[4:7]],
        f"canary/{twice.id}/0": [*twice.secret[:5]],
        f"canary/{twice.id}/1": [*twice.secret],
        # A secret in the document of another canary is nobody's arrival.
        f"canary/{included[5].id}/0": [*gone.secret],
    }
    (found,) = survival([planted], labels, reached)
    rest = len(included) - 5
    assert found["label"] == "private"
    assert found["group"] == "phone/2/pipeline"
    assert (found["whole"], found["part"], found["none"]) == (2, 1, 2 + rest)
    assert found["included"] == found["whole"] + found["part"] + found["none"]
    assert found["documents"] == {
        "planted": 2 * len(included), "reached": 7, "whole": 2, "part": 2
    }  # fmt: skip


def test_effective_exposures_are_what_the_sampler_does():
    plateaus = [{"steps": 40, "sample_rate": 0.05}, {"steps": 20, "sample_rate": 0.2}]
    spec = MaskingSpec(ratio=0.15)
    bindings = {"masked_slots": spec.masked_slots(128), "window": 128, "windows_per_draw": 2}
    plan = {"steps": 60, "sample_rate": 0.05, "plateaus": plateaus, "bindings": bindings}
    one = effective_exposures(plan, copies=1, arm="exempt")
    four = effective_exposures(plan, copies=4, arm="exempt")
    assert one["draws"] == one["exposures"] == pytest.approx(40 * 0.05 + 20 * 0.2)
    assert four["exposures"] == pytest.approx(4 * one["exposures"])
    stream = SecretStream(b"x" * 32)
    sampler = PoissonSampler(
        4 * 500, lambda step: 0.05 if step < 40 else 0.2, stream=stream, label="exposures"
    )
    counts = np.zeros(2000)
    for step in range(60):
        counts[sampler.draw(step)] += 1
    met = counts.reshape(500, 4).sum(axis=1)
    assert abs(met.mean() - four["draws"]) < 5 * met.std() / 500**0.5
    text = effective_exposures(plan, copies=4, arm="pipeline")
    # Two rows a draw, each with 19 of its 126 tokens masked.
    assert text["exposures"] == pytest.approx(four["draws"] * 2 * 19 / 126)
    bare = {"steps": 60, "sample_rate": 0.05}
    assert effective_exposures(bare, copies=1, arm="pipeline")["exposures"] is None
    assert effective_exposures(bare, copies=1, arm="exempt")["exposures"] == pytest.approx(3)
