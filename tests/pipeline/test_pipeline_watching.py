"""What a run tells those who watch it, by a ledger and a clock that the test holds."""

import time
from types import SimpleNamespace

import pytest
from small_ledger import PLAN
from small_run import write_run_file

from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline import watching
from dpmlm.privacy import Ledger
from dpmlm.telemetry import Sinks


class Told:
    def __init__(self):
        self.gauges, self.order = {}, []

    def gauge(self, name, value, **labels):
        self.gauges[(name, *labels.values())] = value
        self.order.append(name)

    def write(self, events):
        self.order.append("write")

    def close(self):
        self.order.append("close")


class Account:
    """A ledger of which `charged` steps are this run's."""

    def __init__(self):
        self.run_ids, self.cap, self.charged = ["r"], (16.0, 1e-3), 3
        self.entries = [{"kind": "attempt", "run_id": "r"},
                        {"kind": "attempt", "run_id": "other"},
                        {"kind": "charge", "run_id": "r"}]  # fmt: skip

    def drawn_steps(self, run_id):
        return self.charged

    def spent(self):
        return SimpleNamespace(epsilon=self.charged / 10)


def config_of(folder, **telemetry):
    return load_config(write_run_file(folder, telemetry=telemetry))


@pytest.fixture
def plan():
    """With batches of 20, and of 60 from step 10 on."""
    return SimpleNamespace(
        steps=100, epsilon=8.0, delta=1e-5, expected_batch_size=20.0,
        batch_at=lambda step: 20.0 if step < 10 else 60.0,
    )  # fmt: skip


def test_a_training_tells_its_plan_at_once_and_its_ledger_with_each_checkpoint(
    tmp_path, plan, monkeypatch
):
    clock = iter([100.0, 110.0, 114.0])
    monkeypatch.setattr(watching.time, "monotonic", lambda: next(clock))
    told, ledger = Told(), Account()
    config = config_of(tmp_path, prometheus={"textfile": str(tmp_path / "r.prom")}, times=True)
    run = SimpleNamespace(config=config, sinks=Sinks({"textfile": told}, times=True))
    watched = watching.Watched(run, plan, ledger, "r", begun=3)
    assert told.gauges == {
        ("step",): 3,
        ("steps_planned",): 100, ("epsilon_planned",): 8, ("delta_planned",): 1e-5,
        ("expected_batch_size",): 20, ("epsilon_cap",): 16, ("attempts",): 2,
        ("steps_charged",): 3, ("epsilon_spent",): 0.3,
    }  # fmt: skip
    ledger.charged = 7
    watched.write([{}] * 6)
    assert told.order[-1] == "write"  # what belongs to the checkpoint came before
    assert (told.gauges["steps_charged",], told.gauges["step",]) == (7, 6)
    assert ("steps_per_second",) not in told.gauges  # of how many of these steps is not known
    watched.write([{}] * 14)
    window = config.tokens.window * config.training.windows_per_draw
    assert told.gauges["steps_per_second",] == (14 - 6) / 4
    drawn = (4 * 20 + 4 * 60) / 4
    assert told.gauges["examples_per_second",] == drawn
    assert told.gauges["tokens_per_second",] == drawn * window
    assert told.gauges["checkpoint_timestamp_seconds",] == pytest.approx(time.time(), abs=60)
    watched.close()
    assert "close" not in told.order  # other stages follow


@pytest.mark.parametrize("best", [True, False])
def test_the_end_tells_the_newest_step_and_not_the_one_whose_weights_were_best(
    tmp_path, monkeypatch, best
):
    """Of a plan of 20 that ended after 8 steps, or of all 20: which were best is not for everybody,
    and steps that nobody drew are no steps that were drawn again."""
    from dpmlm.pipeline import run

    ledger = Ledger.register(tmp_path / "l", epsilon=PLAN.epsilon, delta=1e-5, corpus="c")
    ledger.reserve("r", PLAN)
    ledger.begin_attempt("r")
    for step in range(done := 8 if best else 20):
        ledger.charge("r", 1, step)
    ledger.keep("r", 1, done)
    if best:
        ledger.forgo("r", 1)
    ledger.commit("r", 5 if best else done, 1)
    told = Told()
    config = config_of(tmp_path, prometheus={"textfile": str(tmp_path / "r.prom")})
    monkeypatch.setattr(run, "planned", lambda active: (PLAN, "r"))
    monkeypatch.setattr(run, "read_outcome", lambda active: {"covers_verdict": True})
    monkeypatch.setattr(run, "open_ledger", lambda settings: ledger)
    active = SimpleNamespace(config=config, sinks=Sinks({"textfile": told}))
    run._tell_end(active, SimpleNamespace(verdict="PASS", public={}), released=True)
    assert (told.gauges["step",], told.gauges["steps_charged",]) == (done, done)
    assert told.gauges["steps_planned",] == 20
    assert told.gauges["epsilon_spent",] == pytest.approx(PLAN.epsilon, rel=0.01)  # all of it


def test_a_file_alone_costs_no_look_into_the_ledger(tmp_path, plan):
    told = Told()
    run = SimpleNamespace(config=config_of(tmp_path, file="e.jsonl"), sinks=Sinks({"file": told}))
    watching.Watched(run, plan, None, "r").write([{}])
    assert told.order == ["write"]


@pytest.mark.parametrize(
    ("covered", "covers_verdict"), [(True, True), (True, False), (False, False)]
)
@pytest.mark.parametrize("verdict", ["PASS", "FAIL", None])
def test_the_end_is_told_with_the_verdict_that_there_is(verdict, covered, covers_verdict):
    told = Told()
    public = {"audit": {"target": {"extracted": 2}}} if verdict else {}
    result = SimpleNamespace(verdict=verdict, public=public)
    watching.tell_result(
        Sinks({"textfile": told}), result, covered=covered, covers_verdict=covers_verdict
    )
    said = {labels[0]: value for (name, *labels), value in told.gauges.items() if labels}
    shown = verdict if covers_verdict else None
    assert said == ({name: name == shown for name in watching._VERDICTS} if shown else {})
    assert told.gauges.get(("canaries_extracted",)) == (2 if verdict and covered else None)
    assert told.gauges["ended",] == 1


def test_places_are_closed_however_a_run_ends_and_a_port_is_free_again(tmp_path):
    prometheus = {"textfile": str(tmp_path / "r.prom")}
    config = config_of(tmp_path, prometheus=prometheus)
    run = SimpleNamespace(config=config)

    def replaced(run, sinks):
        return SimpleNamespace(config=run.config, sinks=sinks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching, "replace", replaced)
        with pytest.raises(RuntimeError), watching.watched(run) as active:  # noqa: PT012
            active.sinks.gauge("step", 41)
            raise RuntimeError
    page = (tmp_path / "r.prom").read_text()
    assert 'dpmlm_step{run="small"} 41.0' in page
    assert 'dpmlm_ended{run="small"} 0.0' in page


def test_other_machines_get_public_figures_alone_unless_the_run_file_says_more(
    tmp_path, monkeypatch
):
    made = []
    monkeypatch.setattr(watching, "Endpoint", lambda *args, **more: made.append(args[2]) or Told())
    for address, remote in [("127.0.0.1", None), ("0.0.0.0", None), ("0.0.0.0", "dp")]:
        more = {"remote": remote} if remote else {}
        watching.sinks_of(config_of(tmp_path, prometheus={"port": 9, "address": address}, **more))
    assert [label.value for label in made] == ["dp", "public", "dp"]


@pytest.mark.parametrize("given", [{}, {"port": 0}, {"port": 9100, "address": "localhost"}])
def test_a_prometheus_that_is_nowhere_or_a_name_is_refused(tmp_path, given):
    with pytest.raises(UserError, match=r"telemetry\.prometheus"):
        config_of(tmp_path, prometheus=given)
