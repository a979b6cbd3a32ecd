"""`dpmlm runs select`: several trained runs, one ledger, one choice."""

import itertools
import json
from datetime import UTC, datetime

import pytest
from small_run import PASSING, draw_keys, write_corpus, write_run_file

from dpmlm.cli.main import status_of
from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.evaluation import EvaluationSpec
from dpmlm.pipeline.run import execute_until
from dpmlm.pipeline.runs import tuning
from dpmlm.pipeline.runs.tuning import select_run
from dpmlm.privacy import Ledger

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("tuning")]

SHORT = {**PASSING, "ledger__cap": {"epsilon": 60, "delta": 1e-4}}


def write(folder, name, **changes):
    """A run file of its own name and workspace beside the others."""
    path = write_run_file(folder, **{**SHORT, "name": name, "workspace": name, **changes})
    return path.rename(folder / f"{name}.yaml")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs a and b of one corpus, trained, and c on another split."""
    folder = tmp_path_factory.mktemp("tuning")
    write_corpus(folder)
    write_run_file(folder, **SHORT)
    draw_keys(folder)
    changes = {
        "a": {"training__learning_rate": 1e-2, "training__steps": 60},
        "b": {"training__learning_rate": 1e-6, "training__steps": 2},
        "c": {"split__validation": 0.5, "training__steps": 2},
    }
    for name, change in changes.items():
        execute_until(load_config(write(folder, name, **change)), "training")
    return folder


@pytest.fixture
def config(trained, tmp_path):
    """Run files under a ledger that the test alone writes to."""
    text = (trained / "ledger.jsonl").read_text()
    (tmp_path / "ledger.jsonl").write_text(text)

    def load(name):
        found = load_config(trained / f"{name}.yaml")
        ledger = found.ledger.model_copy(update={"path": tmp_path / "ledger.jsonl"})
        return found.model_copy(update={"ledger": ledger})

    return load


def entries(config):
    return Ledger.open(config("a").ledger.path).entries


def test_with_much_budget_the_better_run_is_chosen_and_paid_for(config, monkeypatch):
    seen = []
    monkeypatch.setattr(
        tuning, "noisy_best",
        lambda scores, epsilon, stream: seen.append((scores, epsilon)) or scores.index(max(scores)),
    )  # fmt: skip
    choice = select_run([config("a"), config("b")], epsilon=0.5)
    ((scores, epsilon),) = seen
    assert (epsilon, choice.label, choice.epsilon) == (0.5, "dp", 0.5)
    assert all(0 <= score <= 20 for score in scores)
    assert scores[0] > scores[1]
    assert choice.chosen == "a"
    assert entries(config)[-1]["kind"] == "choose"
    assert entries(config)[-1]["epsilon"] == 0.5
    assert choice.scores is None, "whoever saw the scores could choose again"
    assert f"{scores[0]:.3f}" not in choice.text(private=True)


def test_the_choice_is_charged_before_anything_is_measured(config, monkeypatch):
    def fails(*_):
        assert entries(config)[-1]["kind"] == "choose"
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "_score", fails)
    with pytest.raises(KeyboardInterrupt):
        select_run([config("a"), config("b")], epsilon=0.5)
    assert len(Ledger.open(config("a").ledger.path).choices()) == 1


def test_a_unit_adds_its_share_whoever_is_beside_it(config, monkeypatch):
    """Units taken away one by one: the score falls by between 0 and 1 each time."""
    from dpmlm.pipeline.context import Run
    from dpmlm.pipeline.progress import Progress

    run = Run.load(config("a"), Progress(quiet=True))
    units = tuning._held_out(run)

    class First:
        def __init__(self, count):
            self.names = units.names[:count]

        def views(self, *asked):
            return units.views(*asked)

    spec = EvaluationSpec(run.config.tokens.window)
    counts = range(len(units.names) + 1)
    scores = [tuning._score(run, First(n), spec, lambda *_: None) for n in counts]
    steps = [after - before for before, after in itertools.pairwise(scores)]
    assert scores[0] == 0
    assert all(0 <= step <= 1 for step in steps)
    assert max(steps) > 0


def test_candidates_are_asked_the_same_whatever_they_were_trained_with(config):
    """A run that was trained with easier masks is not asked easier questions."""
    from dpmlm.pipeline.context import Run
    from dpmlm.pipeline.progress import Progress

    config_a = config("a")
    run = Run.load(config_a, Progress(quiet=True))
    masking = config_a.masking.model_copy(update={"strategy": "token", "ratio": 0.4})
    tokens = config_a.tokens.model_copy(update={"window": 96})
    other = config_a.model_copy(update={"masking": masking, "tokens": tokens, "seed": 9})
    again = Run.load(other, Progress(quiet=True))
    spec = EvaluationSpec(48)
    scores = [tuning._score(r, tuning._held_out(r), spec, lambda *_: None) for r in (run, again)]
    assert scores[0] == scores[1] > 0


def test_a_free_look_stops_every_candidate_at_the_gate(config):
    choice = select_run([config("a"), config("b")])
    assert choice.label == "private"
    assert "NOT charged" in choice.text()
    assert set(choice.to_json(private=True)["private"]) == {"a", "b"}
    assert choice.to_json()["private"] is None
    from dpmlm.release import decide, load_policy

    now = datetime.now(UTC)
    summary = Ledger.open(config("a").ledger.path).summary(entries(config)[-1]["runs"][0])
    facts = {"ledger": summary}
    status = {
        rule.id: rule.status for rule in decide(load_policy("internal"), facts, now=now).rules
    }
    assert status["ledger.choices"] == "fail"
    assert status["ledger.intact"] == "pass"


def test_a_reason_that_is_public_is_recorded_without_a_look(config, monkeypatch):
    monkeypatch.setattr(tuning, "_score", None)
    choice = select_run([config("b"), config("a")], public="b")
    assert (choice.chosen, choice.label, choice.epsilon) == ("b", "public", None)
    assert entries(config)[-1]["label"] == "public"


@pytest.mark.parametrize(
    ("names", "options", "rule"),
    [
        (["a"], {}, "at least two runs"),
        (["a", "a"], {}, "at least two runs"),
        (["a", "c"], {}, "same held-out units"),
        (["a", "b"], {"public": "z"}, "the candidates are a, b"),
        (["a", "b"], {"epsilon": 90.0}, "are left"),
        (["a", "b"], {"epsilon": -1.0}, "above 0"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_nothing_is_charged(config, names, options, rule):
    before = entries(config)
    with pytest.raises(UserError, match=rule):
        select_run([config(name) for name in names], **options)
    assert entries(config) == before


def test_the_command(trained, capsys, monkeypatch):
    monkeypatch.chdir(trained)
    assert status_of(["runs", "select", "a.yaml", "b.yaml"]) == 2
    assert "exactly one of --epsilon" in capsys.readouterr().err
    words = ["runs", "select", "a.yaml", "b.yaml", "--epsilon", "0.5"]
    assert status_of([*words, "--json", "--show-private"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "dpmlm.choice/1"
    assert set(found) == {"schema", "chosen", "candidates", "label", "epsilon", "private"}
    assert found["private"] is None
    assert status_of(words) == 0
    assert "charged epsilon 0.5" in capsys.readouterr().out
