"""The page that a Prometheus server reads, in a file and behind a port."""

import http.client
import math
import re
import socket
import threading
import time
import tracemalloc

import pytest

from dpmlm.errors import UserError
from dpmlm.telemetry import GAUGES, METRICS, Label, Sinks, event
from dpmlm.telemetry.prometheus import (
    CONTENT_TYPE,
    Board,
    Endpoint,
    Textfile,
    _Handler,
    is_loopback,
)

FIGURES = {name: 1 + number / 8 for number, name in enumerate(METRICS)}
EVENTS = [event(step, FIGURES, private_plan=True) for step in (1, 2)]
PRIVATE = {name for name, metric in METRICS.items() if metric.label is Label.PRIVATE}


def read(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples of a page by name and labels: a second reader of the format, by its grammar."""
    found = {}
    label = r'([a-z_]+)="((?:[^"\\]|\\.)*)"'
    undo = {"\\\\": "\\", "\\n": "\n", '\\"': '"'}
    for line in page.split("\n")[:-1]:
        if line.startswith("#"):
            continue
        name, labels, value = re.fullmatch(r"([a-z_]+)\{(.*)\} (\S+)", line).groups()
        assert re.fullmatch(f"{label}(,{label})*", labels)
        pairs = tuple((key, re.sub(r"\\.", lambda m: undo[m[0]], text))
                      for key, text in re.findall(label, labels))  # fmt: skip
        assert (name, pairs) not in found
        found[name, pairs] = float(value)
    return found


def get(port: int, path: str = "/metrics", method: str = "GET"):
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.request(method, path)
    answer = client.getresponse()
    body = answer.read().decode()
    client.close()
    return answer, body


@pytest.fixture
def endpoint():
    one = Endpoint(0, "notes")
    yield one
    one.close()


NASTY = 'a "quoted" \\ back\nslash'


def test_a_page_reads_back_what_was_told_whatever_the_labels_and_values_are():
    board = Board("notes", Label.DP)
    values = {"PASS": math.nan, "FAIL": math.inf, NASTY: -math.inf, "é": 1e-300}
    for label, value in values.items():
        board.gauge("verdict", value, verdict=label)
    board.gauge("step", 12)
    found = read(board.page())
    assert found.pop(("dpmlm_step", (("run", "notes"),))) == 12
    assert {labels[1][1] for _, labels in found} == set(values)
    for label, value in values.items():
        shown = found["dpmlm_verdict", (("run", "notes"), ("verdict", label))]
        assert shown == value or (math.isnan(shown) and math.isnan(value))


def test_prometheus_own_parser_reads_the_same():
    parser = pytest.importorskip("prometheus_client.parser", reason="no prometheus_client")
    board = Board(NASTY, Label.DP)
    board.write(EVENTS)
    for name, kind in GAUGES.items():
        board.gauge(name, 2.5, **dict.fromkeys(kind.labels, NASTY))
    families = list(parser.text_string_to_metric_families(board.page()))
    theirs = {(sample.name, tuple(sample.labels.items())): sample.value
              for family in families for sample in family.samples}  # fmt: skip
    assert theirs == read(board.page())
    assert len(theirs) == len(GAUGES) + len(METRICS) - len(PRIVATE)
    assert all(family.documentation and family.type == "gauge" for family in families)


def test_the_last_step_is_shown_and_a_figure_that_is_none_is_left_out():
    board = Board("notes", Label.DP)
    board.write([event(1, {"learning_rate": 0.5, "noised_gradient_norm": 3.0}, private_plan=True),
                 event(2, {"learning_rate": 0.25, "noised_gradient_norm": math.nan},
                       private_plan=True)])  # fmt: skip
    assert read(board.page()) == {("dpmlm_learning_rate", (("run", "notes"),)): 0.25}


def test_nobody_serves_private_figures():
    for make in (Board, lambda run, label: Endpoint(0, run, label)):
        with pytest.raises(ValueError, match="private"):
            make("notes", Label.PRIVATE)


def test_the_port_serves_one_page_and_nothing_else(endpoint):
    endpoint.write(EVENTS)
    answer, body = get(endpoint.port)
    assert (answer.status, answer.headers["Content-Type"]) == (200, CONTENT_TYPE)
    assert ("dpmlm_learning_rate", (("run", "notes"),)) in read(body)
    assert not {name for name, _ in read(body)} & {f"dpmlm_{name}" for name in PRIVATE}
    assert get(endpoint.port, "/")[0].status == 404
    assert get(endpoint.port, "/metrics/../../etc/passwd")[0].status == 404
    assert get(endpoint.port, method="POST")[0].status == 501


def test_a_port_that_is_taken_is_refused_by_its_number_and_free_after_close(endpoint):
    with pytest.raises(UserError, match=f"port {endpoint.port}: nothing can listen there"):
        Endpoint(endpoint.port, "other")
    one = Endpoint(0, "one")
    one.close()
    again = Endpoint(one.port, "two")
    again.close()
    with pytest.raises(UserError, match="nothing can listen there"):
        Endpoint(0, "notes", address="192.0.2.1")


def test_a_port_is_this_machines_alone_unless_an_address_is_named(endpoint):
    assert endpoint._server.server_address[0] == "127.0.0.1"
    assert is_loopback("::1")
    assert is_loopback("127.0.0.2")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("::")


def test_a_slow_client_holds_up_neither_others_nor_the_end():
    one = Endpoint(0, "notes")
    with socket.create_connection(("127.0.0.1", one.port)) as slow:
        slow.sendall(b"GET /met")
        assert get(one.port)[0].status == 200
        begun = time.monotonic()
        one.close()
        assert time.monotonic() - begun < 2


def test_a_silent_client_is_left_after_a_while(monkeypatch):
    assert 0 < _Handler.timeout <= 10
    monkeypatch.setattr(_Handler, "timeout", 0.1)
    one = Endpoint(0, "notes")
    with socket.create_connection(("127.0.0.1", one.port), timeout=5) as slow:
        slow.sendall(b"GET /met")
        assert slow.recv(100) == b""
    one.close()


def test_a_thousand_pages_are_whole_while_figures_change_and_leave_nothing(endpoint):
    done = threading.Event()

    def change():
        while not done.is_set():
            for step in (1, 2):  # both or neither, whatever moment is asked
                endpoint.gauge("step", step)
                endpoint.write(EVENTS[:step])
            time.sleep(0)

    writer = threading.Thread(target=change)
    get(endpoint.port)
    threads = threading.active_count()
    writer.start()
    tracemalloc.start()
    for count in range(1000):
        if count == 100:
            before = tracemalloc.get_traced_memory()[0]
        page = endpoint._board.page() if count % 5 else get(endpoint.port)[1]
        assert page.endswith("\n")
        names = {name for name, _ in read(page)} - {"dpmlm_step"}
        assert len(names) in (0, len(METRICS) - len(PRIVATE))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    done.set()
    writer.join()
    assert grown < 1 << 18
    assert threading.active_count() <= threads + 2


def test_a_file_is_whole_keeps_the_last_word_and_tells_no_time(tmp_path):
    path = tmp_path / "new" / "notes.prom"
    sinks = Sinks({"textfile": Textfile(path, "notes")})
    sinks.write(EVENTS)
    sinks.gauge("verdict", 1, verdict="PASS")
    sinks.close()
    found = read(path.read_text())
    assert found["dpmlm_verdict", (("run", "notes"), ("verdict", "PASS"))] == 1
    assert (
        found["dpmlm_noised_gradient_norm", (("run", "notes"),)] == FIGURES["noised_gradient_norm"]
    )
    assert not {name for name, _ in found} & {f"dpmlm_{name}" for name in PRIVATE}
    assert [entry.name for entry in path.parent.iterdir()] == ["notes.prom"]
    again = Textfile(path, "notes")  # taken up
    again.gauge("step", 3)
    again.close()
    assert read(path.read_text()) == {("dpmlm_step", (("run", "notes"),)): 3.0}


def test_gauges_alone_reach_the_file_at_the_latest_when_it_is_closed(tmp_path):
    path = tmp_path / "notes.prom"
    one = Textfile(path, "notes")
    one.gauge("step", 1)
    one.gauge("step", 2)  # too soon after the one before
    assert "} 1.0\n" in path.read_text()
    one.close()
    assert "} 2.0\n" in path.read_text()


def test_a_file_of_another_run_or_another_thing_is_left_alone(tmp_path):
    path = tmp_path / "notes.prom"
    Textfile(path, "notes").write(EVENTS)
    for run in ("other", "note", "notes2"):
        with pytest.raises(UserError, match="another run"):
            Textfile(path, run)
    path.write_text("node_load1 3\n")
    with pytest.raises(UserError, match="would be replaced"):
        Textfile(path, "notes")
    (tmp_path / "folder.prom").mkdir()
    with pytest.raises(UserError, match="another run"):
        Textfile(tmp_path / "folder.prom", "notes")
    with pytest.raises(UserError, match="collectors read names"):
        Textfile(tmp_path / "notes.txt", "notes")
    assert path.read_text() == "node_load1 3\n"
