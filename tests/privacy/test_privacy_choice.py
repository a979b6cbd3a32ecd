"""A choice among runs: its law, its epsilon, and what the ledger keeps of it."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from dpmlm.canonical import canonical_json, digest
from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy import Ledger, SecretStream, make_plan, noisy_best, statement
from dpmlm.privacy.summary import claim_of


def law(scores, epsilon) -> np.ndarray:
    """Probabilities of the exponential mechanism as they are published."""
    weights = np.exp(epsilon * (np.asarray(scores) - max(scores)))
    return weights / weights.sum()


def drawn(scores, epsilon, times=4000) -> np.ndarray:
    picks = [noisy_best(scores, epsilon, SecretStream.from_os()) for _ in range(times)]
    return np.bincount(picks, minlength=len(scores))


def test_candidates_come_out_as_the_exponential_mechanism_says():
    scores = [3.0, 5.0, 4.5, 1.0]
    expected = 4000 * law(scores, 0.7)
    assert stats.chisquare(drawn(scores, 0.7), expected).pvalue > 1e-6


def test_one_unit_changes_no_probability_by_more_than_epsilon():
    """Units that add the most to one candidate and nothing to the others, and random ones."""
    rng = np.random.default_rng(2)
    for epsilon in (0.1, 1.0, 4.0):
        added = [*np.eye(5), *(1 - np.eye(5)), *rng.random((200, 5))]
        scores = rng.random(5) * 10
        ratios = [np.log(law(scores + one, epsilon) / law(scores, epsilon)) for one in added]
        assert np.abs(ratios).max() <= epsilon + 1e-12
        assert np.abs(ratios).max() > 0.5 * epsilon


@pytest.mark.parametrize(("scores", "epsilon"), [([], 1.0), ([1.0], 0.0), ([1.0], math.inf)])
def test_no_choice_without_candidates_or_budget(scores, epsilon):
    with pytest.raises(ValueError, match="candidates"):
        noisy_best(scores, epsilon, SecretStream.from_os())


@pytest.fixture(scope="module")
def plan():
    return make_plan(
        epsilon=2.0, delta=1e-6, units=1000, expected_batch_size=50, steps=4, max_grad_norm=1.0
    )


@pytest.fixture
def ledger(tmp_path, plan):
    """Two committed runs under a cap with room for more."""
    ledger = Ledger.register(tmp_path / "ledger", epsilon=12.0, delta=1e-5, corpus="c")
    for run in ("a", "b"):
        ledger.reserve(run, plan)
        attempt = ledger.begin_attempt(run)
        for step in range(4):
            ledger.charge(run, attempt, step)
        ledger.commit(run, 4, attempt)
    return ledger


def test_a_noisy_choice_is_charged_like_any_mechanism(ledger, plan):
    before = ledger.spent().rdp
    ledger.choose(["a", "b"], label="dp", epsilon=0.5)
    cost = min(0.5, ledger.order * 0.125)
    assert ledger.spent().rdp - before == pytest.approx(cost)
    for run in ("a", "b"):
        summary = ledger.summary(run)
        assert summary["choices"] == [{"label": "dp", "epsilon": 0.5, "candidates": 2}]
        assert summary["choices_charged"] is True
        assert (summary["basis"], summary["epsilon"]) == ("filter", 12.0)
        assert "several runs" not in statement(plan, what="w", summary=summary).sentence


def test_an_exact_choice_is_recorded_and_no_claim_covers_it(ledger, plan):
    ledger.reserve("c", plan)
    before = ledger.spent()
    ledger.choose(["a", "b"], label="private")
    assert ledger.spent() == before
    summary = ledger.summary("a")
    assert summary["choices_charged"] is False
    assert "looked at private text uncharged" in statement(plan, what="w", summary=summary).sentence
    assert ledger.summary("c")["choices_charged"] is False, "what follows a look is chosen too"
    with pytest.raises(ValueError, match="charged or not"):
        claim_of(plan, {**summary, "choices_charged": True})


def test_a_choice_for_public_reasons_costs_nothing(ledger):
    before = ledger.spent()
    ledger.choose(["a", "b"], label="public")
    assert ledger.spent() == before
    assert ledger.summary("b")["choices_charged"] is True


def test_a_choice_over_the_budget_or_of_unknown_runs_is_refused(ledger):
    with pytest.raises(UserError, match="are left"):
        ledger.choose(["a", "b"], label="dp", epsilon=20.0)
    with pytest.raises(UserError, match="no reservation"):
        ledger.choose(["a", "x"], label="private")
    assert ledger.choices() == []
    for label, epsilon in (("dp", None), ("private", 1.0), ("other", None)):
        with pytest.raises(ValueError, match="labelled"):
            ledger.choose(["a", "b"], label=label, epsilon=epsilon)


CHARGES = {
    "choice": lambda ledger: ledger.choose(["a", "b"], label="dp", epsilon=0.5),
    "mechanism": lambda ledger: ledger.spend("metric", epsilon=0.5),
}


@pytest.mark.parametrize("what", CHARGES)
def test_what_was_charged_less_than_it_costs_is_found(ledger, tmp_path, what):
    CHARGES[what](ledger)
    path = tmp_path / "ledger"
    *lines, last = path.read_bytes().splitlines(keepends=True)
    entry = json.loads(last)
    entry["divergence"] /= 2
    entry["hash"] = digest({key: value for key, value in entry.items() if key != "hash"})
    path.write_bytes(b"".join(lines) + canonical_json(entry) + b"\n")
    with pytest.raises(IntegrityError, match=f"not those of its {what}"):
        Ledger.open(path).verify()
