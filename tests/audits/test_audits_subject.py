"""One subject from made-up scores: what is counted, on which canaries, at which level."""

import json

import numpy as np
import pytest

from audits.claim.gating import trade_off_curve
from audits.evidence import audit
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet
from audits.recheck import contradictions
from audits.scores.scoring import secret_positions
from audits.subject import Rules, Scores, judge, membership_scores


@pytest.fixture(scope="module")
def rules() -> Rules:
    plan = {
        "epsilon": 1.0,
        "delta": 1e-6,
        "noise_multiplier": 2.8268,
        "sample_rate": 0.05,
        "steps": 150,
    }
    return Rules(
        beta=0.05,
        per_side=20,
        threshold_bits=10.7,
        epsilon=1.0,
        delta=1e-6,
        curve=trade_off_curve(plan),
        smallest_multiple=None,
        no_test=None,
    )


def _scores(canaries: CanarySet, known: np.ndarray) -> Scores:
    """The best score and the right decode for the `known` canaries, chance for the others."""
    rng = np.random.default_rng(6)
    rows = canaries.canaries
    logprobs = np.log(rng.dirichlet(np.ones(64), size=(len(rows), 6)))
    secrets = np.array([canary.secret for canary in rows])
    index = secret_positions(rows)
    for row in np.flatnonzero(known):
        logprobs[row, np.arange(6), index[row]] = 0.0
    decoded = np.where(known[:, None], secrets, 0)
    return Scores(logprobs, decoded)


def test_only_inserted_canaries_count(
    untrained: LoadedModel, canaries: CanarySet, rules: Rules
) -> None:
    coins = np.array(canaries.opened.of(canaries.canaries))
    found = judge(untrained, canaries, canaries.opened, _scores(canaries, ~coins), None, rules)
    assert found["canary_extraction"]["extracted"] == 0
    assert found["canary_extraction"]["extracted_never_inserted"] == int((~coins).sum())
    assert found["exposure"]["mean_bits_out"] == 36
    assert found["exposure"]["max_bits"] < 30
    assert found["gating"]["correct"] == 0
    assert found["rejected_by"] == []


def test_known_canaries_are_rejected_by_every_test(
    untrained: LoadedModel, canaries: CanarySet, rules: Rules
) -> None:
    coins = np.array(canaries.opened.of(canaries.canaries))
    found = judge(untrained, canaries, canaries.opened, _scores(canaries, coins), None, rules)
    assert found["rejected_by"] == ["canary_extraction", "exposure", "gating"]
    assert found["exposure"]["count_above"] == found["exposure"]["n"] == int(coins.sum())
    assert found["exposure"]["mean_bits"] == 36
    assert found["gating"]["correct"] == 40
    assert found["gating"]["needed"] <= found["gating"]["needed_strict"] <= 40


def test_membership_score_by_hand(canaries: CanarySet) -> None:
    rng = np.random.default_rng(8)
    own, reference = rng.normal(size=(2, 3, 6, 64))
    some = canaries.canaries[:3]
    found = membership_scores(some, own, reference)
    for row, canary in enumerate(some):
        total = 0.0
        for position in range(6):
            at = canary.alphabets[position].index(canary.secret[position])
            for sign, scores in ((1, own), (-1, reference)):
                total += sign * (scores[row, position, at] - scores[row, position].mean())
        assert found[row] == pytest.approx(total)


def test_a_rejected_untrained_model_takes_the_power_away(
    untrained: LoadedModel, leaky: LoadedModel, canaries: CanarySet, plan: dict
) -> None:
    found = audit(
        untrained,
        plan=plan,
        canaries=canaries,
        control=leaky,
        untrained=leaky,
        reference=untrained,
    )
    assert found["power"]["control_rejected_by"] == found["power"]["untrained_rejected_by"] != []
    assert found["power"]["status"] == "not shown"


def test_scores_that_are_not_finite_give_no_test_and_no_figures(
    untrained: LoadedModel, broken: LoadedModel, leaky: LoadedModel, canaries: CanarySet, plan: dict
) -> None:
    found = audit(broken, plan=plan, canaries=canaries, control=leaky, untrained=untrained)
    target = found["subjects"]["target"]
    for name in ("gating", "exposure", "canary_extraction", "lower_bound"):
        assert target[name]["applicable"] is False
        assert "not finite" in target[name]["reason"]
    assert target["rejected_by"] == []
    assert found["subjects"]["control"]["rejected_by"]
    assert contradictions(found, plan | {"digest": "x"}) == []
    json.dumps(found, allow_nan=False)


@pytest.mark.full
def test_an_untrained_model_without_scores_shows_no_power(
    broken: LoadedModel, leaky: LoadedModel, untrained: LoadedModel, canaries: CanarySet, plan: dict
) -> None:
    found = audit(leaky, plan=plan, canaries=canaries, control=leaky, untrained=broken)
    assert found["power"]["control_rejected_by"]
    assert found["power"]["untrained_rejected_by"] == []
    assert found["power"]["status"] == "not shown"
    assert contradictions(found, plan) == []
    claimed = found | {"power": found["power"] | {"status": "shown"}}
    assert [path for path, _ in contradictions(claimed, plan)] == ["power.status"]
    # The untrained model calibrates the guesses, so these have no meaning; the rest does.
    target = found["subjects"]["target"]
    assert target["gating"]["applicable"] is False
    assert "reference" in target["gating"]["reason"]
    assert target["lower_bound"]["applicable"] is False
    assert "exposure" in target["rejected_by"]
