"""A real Prometheus scrapes a real run; what dashboards and alerts ask, it can answer."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from small_run import write_corpus, write_run_file

from dpmlm.pipeline.start import initialise

FOLDER = Path(__file__).parents[2] / "examples" / "monitoring"
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
pytestmark = pytest.mark.full


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def prometheus(folder: Path, targets: list[int]):
    """Address of a server that scrapes the ports each second and judges the shipped rules."""
    program = os.environ.get("DPMLM_PROMETHEUS") or shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus on the PATH or in DPMLM_PROMETHEUS")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in sorted((FOLDER / "rules").glob("*.yml"))],
        "scrape_configs": [
            {"job_name": f"port{port}", "metrics_path": "/metrics",
             "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for port in targets
        ],
    }  # fmt: skip
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        program,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"{address}/-/ready", timeout=1).status == 200:
                    break
            time.sleep(0.1)
        yield address
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


class OneFile(SimpleHTTPRequestHandler):
    """Serves a textfile at /metrics, as node_exporter does with its folder."""

    def do_GET(self):
        path = Path(self.directory) / "run.prom"
        body = path.read_bytes() if path.exists() else b""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


def ask(address: str, path: str, **query):
    url = f"{address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    try:
        answer = json.loads(urllib.request.urlopen(url, timeout=30).read())
    except urllib.error.HTTPError as error:
        return json.loads(error.read())
    return answer


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """(address of a Prometheus that has seen a whole run, when it began and ended)."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "run").mkdir()
    write_corpus(folder / "run")
    port = free_port()
    telemetry = {"prometheus": {"port": port, "textfile": "run.prom"}, "times": True}
    # So many steps last longer than it takes to be scraped twice.
    write_run_file(folder / "run", telemetry=telemetry, training__steps=80)
    initialise(folder / "run")
    files = ThreadingHTTPServer(("127.0.0.1", 0), partial(OneFile, directory=folder / "run"))
    Thread(target=files.serve_forever, daemon=True).start()
    with prometheus(folder, [port, files.server_address[1]]) as address:
        begun = time.time()
        command = [sys.executable, "-m", "dpmlm.cli.main", "run", str(folder / "run" / "run.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr  # 1: the verdict of so short a run
        time.sleep(4)
        yield address, begun, time.time()
    files.shutdown()
    files.server_close()


def seen(watched, expression: str):
    """What an expression of a dashboard gives in the time of the run."""
    address, begun, ended = watched
    for name, value in {"$run": "small", "$__rate_interval": "30s"}.items():
        expression = expression.replace(name, value)
    return ask(address, "query_range", query=expression, start=begun, end=ended, step=1)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_expression_of_a_dashboard_returns_data_of_a_run(path, watched):
    asked = [target["expr"] for panel in json.loads(path.read_text())["panels"]
             for target in panel["targets"]]  # fmt: skip
    for expression in asked:
        answer = seen(watched, expression)
        assert answer["status"] == "success", answer
        if "dpmlm_gpu_" not in expression:  # there may be none here
            assert answer["data"]["result"], expression


def test_an_expression_that_reads_nothing_or_is_none_is_noticed(watched):
    assert seen(watched, 'dpmlm_loss{run=~"$run"}')["data"]["result"] == []
    assert seen(watched, "dpmlm_step{")["status"] == "error"


def test_a_run_of_no_trouble_is_seen_whole_and_raises_no_alert(watched):
    address, _, ended = watched
    steps = seen(watched, "dpmlm_step")["data"]["result"]
    assert {row["values"][-1][1] for row in steps} == {"80"}
    verdicts = ask(address, "query", query="sum(dpmlm_verdict)", time=ended)
    assert verdicts["data"]["result"][0]["value"][1] == "1"
    assert seen(watched, "dpmlm_checkpoint_write_seconds > 0")["data"]["result"]
    rules = [rule for group in ask(address, "rules")["data"]["groups"] for rule in group["rules"]]
    assert len(rules) == 9
    assert {rule["health"] for rule in rules} == {"ok"}
    assert [rule["name"] for rule in rules if rule["state"] != "inactive"] == []
