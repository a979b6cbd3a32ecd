"""A sink that fails loses its figures and not the training; nothing undeclared is told."""

import warnings
from pathlib import Path

import pytest

from dpmlm.errors import UserError
from dpmlm.telemetry import GAUGES, EventFile, Sinks, event


class Kept:
    """Remembers what it was called with."""

    def __init__(self):
        self.calls = []

    def write(self, events):
        self.calls.append(("write", len(events)))

    def gauge(self, name, value, **labels):
        self.calls.append((name, value, labels))

    def close(self):
        self.calls.append("close")


class Failing(Kept):
    """Fails from the call `begins` on."""

    def __init__(self, begins, error):
        super().__init__()
        self.begins, self.error = begins, error

    def write(self, events):
        super().write(events)
        if self.begins == "write":
            raise self.error

    def close(self):
        super().close()
        if self.begins == "close":
            raise self.error


EVENTS = [event(1, {"learning_rate": 0.1, "loss": 7.25}, private_plan=True)]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "/somewhere/7.25"), "No space left on device"),
        (UserError("that server", "it is down", "start it"), "it is down"),
        (ValueError("loss 7.25 is odd"), "ValueError"),
    ],
)
def test_a_sink_that_fails_is_dropped_with_one_warning_and_the_others_hear_of_it(error, said):
    bad, good = Failing("write", error), Kept()
    sinks = Sinks({"file": bad, "textfile": good})
    sinks.announce()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sinks.write(EVENTS)
        sinks.write(EVENTS)
        sinks.close()
    assert len(caught) == 1
    assert said in str(caught[0].message)
    assert "7.25" not in str(caught[0].message)
    assert [call for call in bad.calls if call != ("sink_up", 1, {"sink": "file"})] == [
        ("sink_up", 1, {"sink": "textfile"}),
        ("write", 1),
    ]
    up = [call for call in good.calls if call[0] == "sink_up"]
    assert up[-1] == ("sink_up", 0, {"sink": "file"})
    assert good.calls[-3:] == [up[-1], ("write", 1), "close"]


def test_all_may_fail_at_once_and_at_the_end():
    sinks = Sinks({name: Failing("close", OSError("gone")) for name in ("file", "mlflow")})
    with pytest.warns(UserWarning, match="gets no more") as caught:
        sinks.close()
    assert (len(caught), len(sinks)) == (2, 0)


def test_an_undeclared_gauge_or_label_is_an_error_with_sinks_or_without():
    for sinks in (Sinks({}), Sinks({"file": Kept()})):
        with pytest.raises(KeyError):
            sinks.gauge("loss", 3.0)
        with pytest.raises(ValueError, match="labels"):
            sinks.gauge("step", 3, unit="someone")
        with pytest.raises(ValueError, match="labels"):
            sinks.gauge("stage", 1)


@pytest.mark.parametrize("times", [False, True])
def test_times_are_told_only_where_they_are_asked_for(times):
    kept = Kept()
    sinks = Sinks({"file": kept}, times=times)
    for name, kind in GAUGES.items():
        sinks.gauge(name, 1, **dict.fromkeys(kind.labels, "x"))
    told = {call[0] for call in kept.calls}
    timing = {name for name, kind in GAUGES.items() if kind.timing}
    assert {"checkpoint_timestamp_seconds", "examples_per_second"} <= timing
    assert told == set(GAUGES) - (set() if times else timing)


def test_a_file_of_events_takes_gauges_and_shows_none(tmp_path):
    path = tmp_path / "events.jsonl"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sinks = Sinks({"file": EventFile(path)})
        sinks.gauge("step", 1)
        sinks.write(EVENTS)
        sinks.close()
    assert path.read_text() == '{"step": 1, "public": {"learning_rate": 0.1}}\n'


def test_the_table_of_gauges_in_the_docs_is_what_is_declared():
    page = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    rows = [line.strip("|").split("|") for line in page.split("| gauge |")[1].split("\n\n")[0]
            .splitlines() if line.startswith("| `")]  # fmt: skip
    told = {name.strip(" `"): tuple(cell.strip() for cell in cells) for name, *cells in rows}
    assert told == {
        name: (", ".join(f"`{label}`" for label in kind.labels),
               "times" if kind.timing else kind.label.value, kind.meaning)
        for name, kind in GAUGES.items()
    }  # fmt: skip
