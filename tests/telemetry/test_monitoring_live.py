"""Every expression of the dashboards finds data in a real Prometheus that scrapes a real run."""

import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path

import pytest
import yaml
from small_run import write_corpus, write_run_file

from dpmlm.config import load_config
from dpmlm.pipeline.run import execute_run
from dpmlm.pipeline.start import initialise

ROOT = Path(__file__).parents[2]
EXPRESSIONS = sorted(
    {
        target["expr"]
        for page in (ROOT / "examples/monitoring/dashboards").glob("*.json")
        for panel in json.loads(page.read_text())["panels"]
        for target in panel["targets"]
    }
)
WITH_A_GPU = [expression for expression in EXPRESSIONS if "dpmlm_gpu_" in expression]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def asked(port: int, path: str, **query: str) -> dict:
    url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """(port of a Prometheus, when the run began): it scraped the run's port while that went, and
    the text file that stays."""
    program = os.environ.get("DPMLM_PROMETHEUS") or shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus on the PATH or in DPMLM_PROMETHEUS")
    folder = tmp_path_factory.mktemp("watched")
    (folder / "shown").mkdir()
    run_port, file_port, port = free_port(), free_port(), free_port()
    config = {
        "global": {"scrape_interval": "200ms"},
        "scrape_configs": [
            {"job_name": "run", "static_configs": [{"targets": [f"127.0.0.1:{run_port}"]}]},
            {
                "job_name": "node",
                "metrics_path": "/run.prom",
                "static_configs": [{"targets": [f"127.0.0.1:{file_port}"]}],
            },
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    handler = partial(Quiet, directory=str(folder / "shown"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", file_port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    prometheus = subprocess.Popen(
        [
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        write_corpus(folder)
        telemetry = {
            "prometheus": {"port": run_port, "textfile": str(folder / "shown/run.prom")},
            "times": True,
        }
        run_file = write_run_file(folder, training__steps=20, telemetry=telemetry)
        initialise(folder)
        begun = time.time()
        execute_run(load_config(run_file))
        time.sleep(2)  # ten scrapes of what stays
        yield port, begun
    finally:
        prometheus.terminate()
        prometheus.wait(30)
        server.shutdown()


@pytest.mark.full
@pytest.mark.parametrize("expression", [e for e in EXPRESSIONS if e not in WITH_A_GPU])
def test_an_expression_of_a_dashboard_finds_data(watched, expression):
    port, begun = watched
    query = expression.replace("$__rate_interval", "1m").replace("$run", ".*")
    answer = asked(
        port, "/api/v1/query_range", query=query, start=begun, end=time.time(), step="200ms"
    )
    assert answer["status"] == "success"
    values = [value for one in answer["data"]["result"] for _, value in one["values"]]
    assert values
    assert all(one["metric"].get("run", "small") == "small" for one in answer["data"]["result"])


@pytest.mark.full
def test_what_was_never_told_finds_none(watched):
    port, begun = watched
    for query in (*WITH_A_GPU, "dpmlm_loss"):
        answer = asked(
            port,
            "/api/v1/query_range",
            query=query.replace("$run", ".*"),
            start=begun,
            end=time.time(),
            step="1s",
        )
        assert answer["data"]["result"] == []
