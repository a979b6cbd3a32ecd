"""Recognizers that a policy names by their class, against a real server on this machine."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from dpmlm.errors import UserError
from dpmlm.scrub import Scrubber, load_policy
from dpmlm.scrub.engine import Analyzer
from dpmlm.scrub.policy import ScrubPolicy

TEXT = "our hero was zaphod here; " + "nothing to see. " * 300 + "again zaphod left"


class _Server(HTTPServer):
    asked: list[dict[str, Any]]
    keys: list[str]
    status = 200


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        self.server.keys.append(self.headers["X-Key"])
        at = asked["text"].find("zaphod")
        found = [[at, at + 6, 0.3]] if at >= 0 else []
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(json.dumps([*found, [5, 10**9, 1.0]]).encode())

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as serving:
        serving.asked, serving.keys = [], []
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


def _policy(*, threshold: float = 0.25, **remote: Any) -> ScrubPolicy:
    remote = {"recognizer": "loopback_recognizer:LoopbackRecognizer", **remote}
    return ScrubPolicy.model_validate({
        "name": "remote", "description": "one rule",
        "engine": {"remote": [remote], "mode": "fast", "propagate_names": False},
        "other": {"operator": "keep", "why": "nothing else"},
        "rules": [{"entity": "PERSON", "operator": "redact", "threshold": threshold, "why": "x"}],
    })  # fmt: skip


def _asked(server: _Server, **more: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{server.server_port}/"
    return {"arguments": {"url": url, **more}, "environment": {"key": "LOOPBACK_KEY"}}


def test_a_remote_recognizer_is_asked_with_its_key(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPBACK_KEY", "hunter2")
    scrubbed = Scrubber(_policy(**_asked(server))).scrub(TEXT)
    assert "zaphod" not in scrubbed.text
    assert [TEXT[d.start : d.end] for d in scrubbed.decisions] == ["zaphod", "zaphod"]
    assert {d.recognizer for d in scrubbed.decisions} == {"Loopback"}
    assert "".join(asked["text"] for asked in server.asked) == TEXT
    assert {tuple(asked["entities"]) for asked in server.asked} == {("PERSON",)}
    assert set(server.keys) == {"hunter2"}


def test_its_context_words_count(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPBACK_KEY", "hunter2")
    analyzer = Analyzer(_policy(**_asked(server, context=["hero"])))
    scores = [f.score for f in analyzer.find(TEXT) if f.recognizer == "Loopback"]
    assert scores == [0.65, 0.3]


def test_its_failure_is_told_without_the_text(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPBACK_KEY", "hunter2")
    scrubber = Scrubber(_policy(**_asked(server)))
    server.status = 500
    with pytest.raises(UserError, match=r"LoopbackRecognizer: it failed \(HTTPError\)") as error:
        scrubber.scrub("zaphod was here")
    assert not any(word in str(error.value) for word in ("zaphod", "hunter2"))


@pytest.mark.parametrize(
    ("recognizer", "says"),
    [
        ("loopback_recognizer:NoSuch", "no such class"),
        ("no_such_module:Thing", "no such class"),
        ("loopback_recognizer:NotARecognizer", "no EntityRecognizer"),
        ("json:dumps", "no EntityRecognizer"),
        ("loopback_recognizer:GermanRecognizer", "not for English"),
        ("loopback_recognizer:LoopbackRecognizer", r"cannot be built .* \(TypeError\)"),
        ("presidio_analyzer.predefined_recognizers:AzureAILanguageRecognizer", "cannot be built"),
    ],
)
def test_what_cannot_be_built_is_refused(recognizer: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Analyzer(_policy(recognizer=recognizer))


def test_a_key_that_is_not_in_the_environment_is_refused(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOOPBACK_KEY", raising=False)
    with pytest.raises(UserError, match="the environment has no LOOPBACK_KEY"):
        Analyzer(_policy(**_asked(server)))


def test_another_recognizer_or_argument_is_another_policy() -> None:
    one, other = _policy(arguments={"url": "http://a"}), _policy(arguments={"url": "http://b"})
    assert len({one.digest, other.digest, load_policy("default").digest}) == 3
