"""One error budget: how often the whole verdict fails a training that keeps its claim."""

import math
from bisect import bisect_left
from functools import cache

import numpy as np
import pytest
from scipy import stats

from audits import subject
from audits.claim.gating import TradeOffCurve, needed_guesses, trade_off_curve
from audits.exposures.exposure import Exposure
from audits.planting.canaries import CanarySet
from audits.planting.canary import Canary
from audits.planting.labels import Labels
from audits.statistics import gaussian_epsilon, one_run_p_value
from audits.subject import TESTS, Rules, Scores, judge
from audits.verdict import power_of_tests, verdict_of

BETA = 0.05
STRICTEST = BETA / len(TESTS)
NOTHING_TOLD = TradeOffCurve(np.zeros(1), np.zeros(1))


class Model:
    """What `judge` reads of a model whose scores are given."""

    digest = "sha256:drawn"


def planted(rng, count, length, letters):
    """Canaries with secrets and coins drawn anew, in a space of letters ** length."""
    alphabets = (tuple(range(letters)),) * length
    secrets = rng.integers(0, letters, (count, length)).tolist()
    coins = (rng.random(count) < 0.5).tolist()
    rows = tuple(
        Canary(f"c{number}", (), tuple(secret), alphabets, 1)
        for number, secret in enumerate(secrets)
    )
    labels = Labels("0" * 64, {row.id: coin for row, coin in zip(rows, coins)})
    return CanarySet("drawn", "0" * 64, labels.digest, rows).with_labels(labels)


def word(canaries, scores, rules):
    """The verdict on a model of these scores."""
    target = judge(Model(), canaries, canaries.opened, scores, None, rules)
    claim = {"epsilon": rules.epsilon, "recomputed_epsilon": rules.epsilon}
    power = power_of_tests({"target": target})
    return verdict_of({"subjects": {"target": target}, "claim": claim, "power": power}).word


@pytest.fixture
def judged_once(monkeypatch):
    """Equal numbers of right guesses are judged once, and small spaces are ranked in full."""
    for name in ("gating_test", "needed_guesses"):
        slow = getattr(subject, name)

        def of_counts(*given, slow=slow, known={}):  # noqa: B006
            at = tuple(part for part in given if not isinstance(part, TradeOffCurve))
            return known[at] if at in known else known.setdefault(at, slow(*given))

        monkeypatch.setattr(subject, name, of_counts)
    for name in ("one_run_epsilon", "fdp_one_run_epsilon"):
        monkeypatch.setattr(subject, name, cache(getattr(subject, name)))
    monkeypatch.setattr(subject, "exposures", enumerated)


def enumerated(logprobs, secrets):
    """Exposures by the scores of all secrets that might have been."""
    sums = logprobs[:, 0]
    for position in range(1, logprobs.shape[1]):
        sums = (sums[:, :, None] + logprobs[:, position][:, None, :]).reshape(len(sums), -1)
    letters = logprobs.shape[2]
    place = np.ravel_multi_index(secrets.T, (letters,) * logprobs.shape[1])
    own = sums[np.arange(len(sums)), place][:, None]
    higher, equal = (sums > own).sum(axis=1), (sums == own).sum(axis=1)
    bits = math.log2(sums.shape[1])
    return [Exposure.of(int(h), int(e), bits) for h, e in zip(higher, equal)]


@pytest.mark.full
def test_a_model_that_tells_nothing_fails_in_a_share_beta_of_audits(judged_once) -> None:
    """Under a claim of epsilon 0, each of the tests at the edge of its share of the budget.

    6,859 secrets a canary, so that one of some 50 is said by chance in 1.5 % of audits, and ranks
    among the first two in as many; right guesses are binomial.
    """
    rng, trials = np.random.default_rng(6), 4000
    rules = Rules(
        beta=BETA, per_side=50, threshold_bits=math.log2(19**3 / 2), epsilon=0.0, delta=0.0,
        curve=NOTHING_TOLD, smallest_multiple=None, no_test=None,
    )  # fmt: skip
    fails = 0
    for _ in range(trials):
        canaries = planted(rng, 100, 3, 19)
        scores = Scores(rng.normal(size=(100, 3, 19)), rng.integers(0, 19, (100, 3)))
        fails += word(canaries, scores, rules) == "FAIL"
    assert fails <= stats.binom.ppf(0.999, trials, BETA)
    assert fails >= 0.02 * trials  # most of the budget is used: the limit means something


SIGMA, DELTA = 4.0, 1e-6
PLAN = {"epsilon": gaussian_epsilon(1 / SIGMA, DELTA), "delta": DELTA, "noise_multiplier": SIGMA,
        "sample_rate": 1, "steps": 1}  # fmt: skip


def fails_of_noised_sums(noise, trials):
    """Of models that are noised sums themselves: canaries of norm 1, one coordinate a letter.

    Ranks, decodes and guesses all follow from one Gaussian mechanism, so they are as dependent
    as they come, and the claim holds whatever is made of them.
    """
    rng, level = np.random.default_rng(6), STRICTEST
    threshold = PLAN["epsilon"] / math.log(2) - math.log2(0.1 * level - DELTA)
    rules = Rules(
        beta=BETA, per_side=50, threshold_bits=threshold, epsilon=PLAN["epsilon"], delta=DELTA,
        curve=trade_off_curve(PLAN), smallest_multiple=None, no_test=None,
    )  # fmt: skip
    fails = 0
    for _ in range(trials):
        canaries = planted(rng, 200, 4, 8)
        sums = noise * rng.normal(size=(200, 4, 8))
        coins = canaries.opened.of(canaries.canaries)
        for row, (canary, coin) in enumerate(zip(canaries.canaries, coins)):
            sums[row, range(4), canary.secret] += 0.5 * coin
        fails += word(canaries, Scores(sums, sums.argmax(axis=2)), rules) == "FAIL"
    return fails


def test_a_training_with_its_noise_rarely_fails_and_one_without_does(judged_once) -> None:
    assert fails_of_noised_sums(SIGMA, 20) <= stats.binom.ppf(0.999, 20, BETA)
    assert fails_of_noised_sums(SIGMA / 40, 3) == 3


@pytest.mark.full
def test_a_training_with_its_noise_rarely_fails_in_2000(judged_once) -> None:
    assert fails_of_noised_sums(SIGMA, 2000) <= 131


def one_run_needed(epsilon, canaries, guesses, delta, level):
    """Right guesses from which the one-run bound at `level` lies above `epsilon`; None: never."""
    setting = {"epsilon": epsilon, "canaries": canaries, "guesses": guesses, "delta": delta}
    counts = range(guesses // 2, guesses + 1)
    at = bisect_left(counts, True, key=lambda v: one_run_p_value(correct=v, **setting) < level)
    return counts[at] if at < len(counts) else None


def a_plan(epsilon, delta=1e-6, rate=1.0, steps=1):
    """Of one full step the Gaussian of that epsilon; of others one near it."""
    low, high = 0.05, 200.0
    plan = PLAN | {"delta": delta, "sample_rate": rate, "steps": steps}
    for _ in range(30):
        middle = math.sqrt(low * high)
        mu = rate * math.sqrt(steps) / middle if steps > 1 else 1 / middle
        low, high = (middle, high) if gaussian_epsilon(mu, delta) > epsilon else (low, middle)
    return plan | {"noise_multiplier": high}


GRID = [
    (0.25, 1e-6, 1.0, 1), (1.0, 1e-5, 1.0, 1),
    *(
        pytest.param(epsilon, delta, rate, steps, marks=pytest.mark.full)
        for epsilon in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
        for delta, rate, steps in ((1e-5, 1.0, 1), (1e-6, 0.05, 150), (1e-3, 0.2, 20))
    ),
]  # fmt: skip


@pytest.mark.parametrize(("epsilon", "delta", "rate", "steps"), GRID)
def test_a_bound_above_the_claim_is_a_rejection_by_the_gating_test(
    epsilon: float, delta: float, rate: float, steps: int
) -> None:
    """Why lower bounds need no share of the budget: at the strictest level, they say no more."""
    curve = trade_off_curve(a_plan(epsilon, delta, rate, steps))
    claimed = curve.epsilon(delta)
    for canaries in (100, 300, 1000):
        for share in (0.05, 0.15, 0.3, 0.5):
            guesses = 2 * int(share * canaries)
            above = one_run_needed(claimed, canaries, guesses, delta, STRICTEST)
            if above is None:
                continue  # not even all of them lift the bound above the claim
            needed = needed_guesses(canaries, guesses, curve, STRICTEST)
            assert needed is not None
            assert needed <= above


def test_power_is_told_test_by_test() -> None:
    def tried(rejected):
        return {"p_value": 0.5, "rejected": rejected}

    quiet, silent = tried(False), {"applicable": False, "reason": "it was not scored"}
    target = {"gating": quiet | {"smallest_multiple_detected": 2.5}, "exposure": silent,
              "canary_extraction": quiet, "rejected_by": []}  # fmt: skip
    control = {"gating": tried(True), "exposure": tried(True), "canary_extraction": quiet,
               "rejected_by": ["exposure", "gating"]}  # fmt: skip
    untrained = dict.fromkeys(TESTS, quiet) | {"rejected_by": []}
    given = {"target": target, "control": control, "untrained": untrained}
    power = power_of_tests(given)
    assert power["status"] == "shown"
    assert power["tests"] == {
        "gating": {"applicable": True, "control_rejected": True, "untrained_rejected": False,
                   "power": True, "smallest_multiple_detected": 2.5},
        "exposure": {"applicable": False, "control_rejected": True, "untrained_rejected": False,
                     "power": False},
        "canary_extraction": {"applicable": True, "control_rejected": False,
                              "untrained_rejected": False, "power": False},
    }  # fmt: skip
    # The gating test is the only one with power: without it, none is left.
    for changed in (
        {"target": target | {"gating": silent}},
        {"untrained": untrained | {"gating": silent}},
        {"untrained": untrained | {"gating": tried(True), "rejected_by": ["gating"]}},
        {"untrained": untrained | {"exposure": tried(True), "rejected_by": ["exposure"]}},
        {"control": control | {"gating": quiet, "rejected_by": ["exposure"]}},
        {"control": None},
        {"untrained": None},
    ):
        assert power_of_tests(given | changed)["status"] == "not shown", changed
