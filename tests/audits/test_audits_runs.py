"""Several trainings: one guess each, by a threshold of the training's own other canaries."""

import json
import math
from functools import cache

import numpy as np
import pytest
from scipy import stats

from audits import runs
from audits.planting.canaries import plan_canaries
from audits.statistics import several_runs_epsilon
from dpmlm.artifacts import UserError
from tests.audits.conftest import PLAN, make_model, make_tokenizer, memorise

pytestmark = pytest.mark.xdist_group("audited-runs")

COINS = [True] * 7 + [False] * 8


def a_set(seed, *, copies=1):
    return plan_canaries(
        count=12, token_ids=range(200, 700), prefix_ids=range(5, 100), length=6,
        prefix_length=2, secret=b"runs %d" % seed, copies=copies,
    )  # fmt: skip


def sets_with(coins):
    """Sets whose declared canary is in as asked, drawn until one is."""
    seeds = iter(range(1000))
    return [
        next(s for n in seeds if (s := a_set(n)).opened.of(s.canaries)[0] == coin) for coin in coins
    ]


@pytest.fixture(scope="module")
def start():
    return make_model(make_tokenizer())


@pytest.fixture(scope="module")
def trainings(start):
    """Untrained models, all different: their guesses tell nothing."""
    sets = sets_with(COINS)
    return [(make_model(start.tokenizer, seed), one) for seed, one in enumerate(sets)]


def naive_guess(scores):
    others = sorted(scores[1:])
    half = len(others) // 2
    middle = others[half] if len(others) % 2 else (others[half - 1] + others[half]) / 2
    return scores[0] > middle


def test_a_guess_is_that_of_a_second_implementation():
    rng = np.random.default_rng(0)
    guesses = set()
    for size in (2, 3, 4, 9, 10):
        for _ in range(40):
            scores = rng.normal(size=size)
            guesses.add(runs.guessed_in(scores))
            assert runs.guessed_in(scores) == naive_guess(list(scores))
    assert guesses == {True, False}


def test_wrong_guesses_are_counted_by_the_coin(trainings, monkeypatch):
    guesses = iter([True] * 5 + [False] * 2 + [True] + [False] * 7)
    monkeypatch.setattr(runs, "guessed_in", lambda scores: next(guesses))
    found = runs.several_runs(trainings, PLAN | {"epsilon": 0.05})
    counts = {"in_runs": 7, "out_runs": 8, "false_negatives": 2, "false_positives": 1}
    assert {name: found[name] for name in counts} == counts
    assert found["epsilon"] == several_runs_epsilon(**counts, delta=PLAN["delta"])
    missed, alarmed = stats.beta.isf(0.025, 1, 7), stats.beta.isf(0.025, 1, 8)
    assert found["ceiling"] == pytest.approx(math.log((1 - missed - PLAN["delta"]) / alarmed))
    assert found["exceeds_claim"] == (found["epsilon"] > 0.05)


def test_alarms_at_the_edge_of_the_claim():
    """2,000 times 40 trainings whose scores tell each coin by randomised response: what they keep
    is refuted in at most 131 of them, a fifth of it in most."""
    rng, claim, alarms, caught = np.random.default_rng(1), 3.0, 0, 0
    bound = cache(lambda **counts: several_runs_epsilon(**counts, delta=0.0))
    for _ in range(2000):
        coins = rng.random((40, 60)) < 0.5
        told = coins ^ (rng.random(coins.shape) < 1 / (1 + math.exp(claim)))
        scores = np.where(told, 1, -1) * rng.random(coins.shape)
        coin, guessed = coins[:, 0], scores[:, 0] > np.median(scores[:, 1:], axis=1)
        found = bound(
            in_runs=int(coin.sum()), false_negatives=int((coin & ~guessed).sum()),
            out_runs=int((~coin).sum()), false_positives=int((~coin & guessed).sum()),
        )  # fmt: skip
        alarms += found > claim
        caught += found > claim / 5
    print(alarms, caught)
    assert alarms <= 131
    assert caught > 1000


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda given: [(given[0][0], one) for _, one in given], "one model in two"),
        (lambda given: [(model, given[0][1]) for model, _ in given], "one set of canaries in two"),
        (lambda given: [*given[:-1], (given[-1][0], a_set(77, copies=2))], "of 2 copies"),
        (lambda given: given[4:], "train 3 more with it and 0 more without it"),
    ],
)
def test_what_says_nothing_is_refused(trainings, changed, said):
    with pytest.raises(UserError, match=said):
        runs.several_runs(changed(trainings), PLAN)


@pytest.fixture
def folders(trainings, tmp_path):
    """Models and canary files as a user has them."""
    models, files = [], []
    for number, (model, one) in enumerate(trainings):
        models.append(str(tmp_path / f"model{number}"))
        model.model.save_pretrained(models[-1])
        model.tokenizer.save_pretrained(models[-1])
        files.append(str(tmp_path / f"canaries{number}.json"))
        (tmp_path / files[-1]).write_text(json.dumps(one.to_json()))
        beside = tmp_path / f"canaries{number}.labels.json"
        beside.write_text(json.dumps(one.opened.to_json()))
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    return [*models, "--plan", str(tmp_path / "plan.json"), "--canaries", *files]


def test_the_command_says_what_the_function_finds(folders, trainings, capsys):
    assert runs.main([*folders, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == runs.several_runs(trainings, PLAN)
    said = runs.told(runs.several_runs(trainings, PLAN))
    assert said.startswith("not contradicted: the claim is epsilon 8, which takes ")
    assert "of 7 trainings with their declared canary" in said
    assert runs.main(folders[:-1]) == 2
    assert "15 models and 14 files of canaries" in capsys.readouterr().err


@pytest.mark.full
def test_trainings_without_privacy_contradict_a_small_claim(start):
    trained = []
    for one in sets_with([True] * 12 + [False] * 12):
        planted = one.included()
        rows, spans = [c.tokens for c in planted], [c.secret_span for c in planted]
        trained.append((memorise(start, rows, spans, 40), one))
    plan = PLAN | {"epsilon": 0.3}
    found = runs.several_runs(trained, plan, reference=start)
    assert found["false_negatives"] + found["false_positives"] <= 2
    assert found["exceeds_claim"]
    assert "CONTRADICTED" in runs.told(found)
