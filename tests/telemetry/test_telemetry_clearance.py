"""Every place in clear times every figure: what is more secret than its clearance is not in its
bytes."""

import itertools
import json
import re
import struct
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec

import pytest

from dpmlm.errors import UserError
from dpmlm.telemetry import GAUGES, METRICS, EventFile, Label, Sinks, event
from dpmlm.telemetry.mlflow import Mlflow
from dpmlm.telemetry.prometheus import Board, Endpoint, Textfile
from dpmlm.telemetry.tensorboard import TensorBoard

needs_board = pytest.mark.skipif(find_spec("tensorboard") is None, reason="no tensorboard")
needs_mlflow = pytest.mark.skipif(find_spec("mlflow") is None, reason="no mlflow-skinny")
VALUES = {name: 1.5 + number for number, name in enumerate(METRICS)}
EVENTS = [event(step, VALUES, private_plan=True) for step in (1, 2, 3)]


class Server(HTTPServer):
    """Answers as an MLflow server that knows nothing yet, and keeps what it was sent."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.sent, self.status = [], 200
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"

    def metrics(self):
        batches = [body for path, body in self.sent if path.endswith("log-batch")]
        return [row for body in batches for row in json.loads(body)["metrics"]]

    def close(self):
        self.shutdown()
        self.server_close()


class Answers(BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.sent.append((self.path.partition("?")[0], body))
        run = {"info": {"run_id": "r1", "experiment_id": "7", "artifact_uri": "mlflow-artifacts:/"}}
        found = {"runs/create": {"run": run}, "runs/search": {"runs": []},
                 "experiments/create": {"experiment_id": "7"},
                 "runs/update": {"run_info": run["info"]}, "runs/get": {"run": run}}  # fmt: skip
        status, data = self.server.status, {}
        if self.path.partition("?")[0].endswith("get-by-name"):
            status, data = 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}
        for name, value in found.items():
            if self.path.partition("?")[0].endswith(name):
                data = value
        answer = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    one = Server()
    yield one
    one.close()


def scalars(folder):
    """(tag, step, value, time) of each scalar, by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return [(tag, one.step, one.value, one.wall_time)
            for tag in read.Tags()["scalars"] for one in read.Scalars(tag)]  # fmt: skip


def written(kind, clearance, times, folder, server):
    """Names of figures and gauges that a sink of a kind gave away, of all that it was handed."""
    makers = {
        "file": lambda: EventFile(folder / "e.jsonl", clearance),
        "textfile": lambda: Textfile(folder / "e.prom", "notes", clearance),
        "endpoint": lambda: Endpoint(0, "notes", clearance),
        "tensorboard": lambda: TensorBoard(folder / "board", clearance, times=times),
        "mlflow": lambda: Mlflow(server.uri, "notes", "notes", clearance, times=times),
    }
    sink = makers[kind]()
    sinks = Sinks({kind: sink}, times=times)
    for name, declared in GAUGES.items():
        sinks.gauge(name, 77.25, **dict.fromkeys(declared.labels, "x"))
    sinks.write(EVENTS)
    assert len(sinks) == 1  # it did not fail
    page = sink._board.page() if kind == "endpoint" else ""
    sinks.close()
    files = [path for path in folder.rglob("*") if path.is_file()]
    raw = b"".join(path.read_bytes() for path in files) + page.encode()
    raw += "".join(body for _, body in server.sent).encode() if kind == "mlflow" else b""
    return raw


def names(name, raw):
    """Whether the bytes speak of a figure, and not only of one whose name is longer."""
    return bool(re.search(rb"(?<![a-z_])(dpmlm_)?" + name.encode() + rb"(?![a-z_])", raw))


CASES = [
    pytest.param(kind, clearance, times, marks=marks)
    for (kind, marks), clearance, times in itertools.product(
        [("file", ()), ("textfile", ()), ("endpoint", ()), ("tensorboard", needs_board),
         ("mlflow", needs_mlflow)],
        [Label.PUBLIC, Label.DP], [False, True],
    )
]  # fmt: skip


@pytest.mark.parametrize(("kind", "clearance", "times"), CASES)
def test_a_place_in_clear_holds_what_it_is_cleared_for(kind, clearance, times, tmp_path, server):
    raw = written(kind, clearance, times, tmp_path, server)
    for name, metric in METRICS.items():
        shown = names(name, raw)
        if name != "units":  # a word in the help texts of others
            assert shown == (metric.label.secrecy <= clearance.secrecy), name
        if metric.label is Label.PRIVATE:  # by its value, too, as each of the formats spells it
            for spelled in (repr(VALUES[name]).encode(), struct.pack("<f", VALUES[name])):
                assert spelled not in raw, name
    for name, declared in GAUGES.items():
        shown = names(name, raw)
        if kind == "file":
            assert b"77.25" not in raw  # a file of steps has no gauges
        else:
            cleared = declared.label.secrecy <= clearance.secrecy
            assert shown == (cleared and (times or not declared.timing)), name


@needs_board
def test_tensorboard_reads_each_step_once_also_of_a_training_that_was_taken_up(tmp_path):
    for steps in (1, 3):  # the second one begins anew
        board = TensorBoard(tmp_path / "board")
        for done in range(1, steps + 1):
            board.gauge("step", done)
            board.write(EVENTS[:done])
        board.close()
    found = scalars(tmp_path / "board")
    rates = [(step, value) for tag, step, value, _ in found if tag == "training/learning_rate"]
    assert rates == [(1, 1.5), (2, 1.5), (3, 1.5)]
    assert {time for _, step, _, time in found if step} == {1.0, 2.0, 3.0}  # steps and no clock
    timed = TensorBoard(tmp_path / "timed", times=True)
    timed.write(EVENTS)
    timed.close()
    assert min(time for *_, time in scalars(tmp_path / "timed")) > 1.7e9


@needs_board
def test_a_file_is_no_folder_for_tensorboard(tmp_path):
    (tmp_path / "board").touch()
    with pytest.raises(UserError, match="no folder"):
        TensorBoard(tmp_path / "board")


@needs_mlflow
def test_mlflow_gets_each_step_once_and_no_clock(server):
    sink = Mlflow(server.uri, "notes", "quickstart", Label.DP)
    assert server.sent == []  # nothing before the first checkpoint
    for done in (1, 3):
        sink.write(EVENTS[:done])
    sink.gauge("verdict", 1, verdict="PASS")
    sink.close()
    rows = server.metrics()
    rates = [(row["step"], row["value"]) for row in rows if row["key"] == "learning_rate"]
    assert rates == [(1, 1.5), (2, 1.5), (3, 1.5)]
    assert {row["timestamp"] - row["step"] for row in rows} == {0}
    assert [row["value"] for row in rows if row["key"] == "run/verdict/PASS"] == [1.0]
    assert any("quickstart" in body for path, body in server.sent if path.endswith("runs/create"))
    assert server.sent[-1][0].endswith("runs/update")


@needs_mlflow
def test_mlflow_looks_for_a_run_of_the_same_name_and_settings(server):
    for settings in ("aa", "bb"):
        Mlflow(server.uri, "notes", "quickstart", settings=settings).write(EVENTS[:1])
    asked = [json.loads(body)["filter"] for path, body in server.sent if path.endswith("search")]
    assert [part.rpartition("= ")[2] for part in asked] == ["'quickstart aa'", "'quickstart bb'"]
    made = [body for path, body in server.sent if path.endswith("runs/create")]
    assert ["quickstart aa" in body for body in made] == [True, False]


@needs_mlflow
@pytest.mark.parametrize(("ended", "status"), [(1, "FINISHED"), (0, "KILLED")])
def test_mlflow_hears_whether_the_run_came_to_its_end(server, ended, status):
    sink = Mlflow(server.uri, "notes", "quickstart")
    sink.write(EVENTS[:1])
    sink.gauge("ended", ended)
    sink.close()
    path, body = server.sent[-1]
    assert path.endswith("runs/update")
    assert json.loads(body)["status"] == status


@needs_mlflow
def test_a_server_that_is_down_or_refuses_is_dropped_and_the_file_goes_on(server, tmp_path):
    server.status = 400
    path = tmp_path / "events.jsonl"
    sinks = Sinks({"mlflow": Mlflow(server.uri, "notes", "quickstart"), "file": EventFile(path)})
    with pytest.warns(UserWarning, match=r"telemetry\.mlflow failed"):
        sinks.write(EVENTS)
    assert len(path.read_text().splitlines()) == 3
    assert len(sinks) == 1


@pytest.mark.parametrize(
    ("uri", "said"),
    [("http://192.0.2.1:5000", "TLS"), ("file:///tmp/runs", "no address"),
     ("https://me:secret@example.org", "credentials"), ("https://", "no address")],
)  # fmt: skip
def test_an_address_that_is_none_or_in_clear_is_refused(uri, said):
    with pytest.raises(UserError, match=said) as caught:
        Mlflow(uri, "notes", "quickstart")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("make", [
    lambda: EventFile("e", Label.PRIVATE), lambda: Board("e", Label.PRIVATE),
    lambda: TensorBoard("e", Label.PRIVATE), lambda: Mlflow("https://e", "e", "e", Label.PRIVATE),
])  # fmt: skip
def test_no_place_in_clear_takes_private_figures(make):
    with pytest.raises(ValueError, match="private"):
        make()
