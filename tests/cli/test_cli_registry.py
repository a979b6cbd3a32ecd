"""`dpmlm registry` on the bundle of a finished run, as a person types it."""

import json
import socket

import pytest

pytestmark = pytest.mark.xdist_group("finished")
TRUST = ["--trusted-keys", "keys/trusted"]
SIGN = [*TRUST, "--signing-key", "keys/sign.key"]


def test_from_a_bundle_to_a_champion_and_back(copy, call, refused):
    def ask(*words, status=0):
        called = call("registry", *words, "--json")
        assert called.status == status, called.err
        return json.loads(called.out)

    added = ask("add", "models", "work/bundle", "--name", "notes", *SIGN)
    assert added["schema"] == "dpmlm.registry.version/1"
    assert (added["number"], added["verdict"], added["state"]) == (1, "PASS", "registered")
    assert added["run_id"]
    assert "points nowhere" in refused("registry", "path", "models", "notes@champion", *TRUST)
    made = ask("promote", "models", "notes", "1", "--alias", "champion", *SIGN)
    assert (made["state"], made["aliases"]) == ("promoted", ["champion"])
    printed = call("registry", "path", "models", "notes@champion", *TRUST)
    assert printed.out == "models/notes/1\n"
    assert call("verify", printed.out.strip(), *TRUST).status == 0
    listed = ask("list", "models")
    assert listed == {**ask("show", "models", "notes"), "schema": "dpmlm.registry.versions/1"}
    assert [one["release"] for one in listed["versions"]] == [added["release"]]
    lines = ask("history", "models", *TRUST)
    assert [line["kind"] for line in lines["entries"]] == ["registry", "add", "promote"]
    told = call("registry", "history", "models", "--name", "notes").out.splitlines()
    assert [line.split()[2:4] for line in told[:2]] == [["add", "notes"], ["promote", "notes"]]
    assert told[-1] == f"head {lines['head']}"
    assert added["release"] in call("registry", "show", "models", "notes").out
    assert "PASS promoted" in call("registry", "list", "models").out
    assert "no version before" in refused(
        "registry", "rollback", "models", "notes", "--alias", "champion", *SIGN
    )
    assert "points to it" in refused("registry", "retire", "models", "notes", "1", *SIGN)
    # Recipients change in the registry's own copy, and it is the same release.
    assert call("keys", "new", "more", "--role", "consumer").status == 0
    rotated = call(
        "keys", "rotate", "models/notes/1", "--identity", "keys/trainer.key",
        "--add", "more/consumer.pub", "--signing-key", "keys/sign.key",
    )  # fmt: skip
    assert rotated.status == 0, rotated.err
    assert ask("verify", "models", *TRUST, "--head", lines["head"])["ok"]
    with open("models/notes/1/plan.json", "ab") as file:
        file.write(b" ")
    broken = ask("verify", "models", *TRUST, status=1)
    assert [one["file"] for one in broken["findings"]] == ["notes/1"]
    for words in (
        ["path", "models", "notes@champion", *TRUST],
        ["promote", "models", "notes", "1", "--alias", "other", *SIGN],
        ["add", "models", "models/notes/1", "--name", "more", *SIGN],
    ):
        answered = call("registry", *words)
        assert (answered.status, answered.out) == (1, "")
        assert "notes/1" in answered.err
    assert "notes/1" in call("registry", "verify", "models", *TRUST).out


def test_what_is_typed_wrongly_is_one_message(copy, call, refused, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert "there is none" in refused("registry", "list", "work")
    assert "a-z" in refused("registry", "add", "models", "work/bundle", "--name", "a/b", *SIGN)
    unsigned = call("registry", "add", "models", "keys", "--name", "a", *SIGN)
    assert unsigned.status == 1
    assert "manifest" in unsigned.err
    given = ["registry", "mlflow", "work/bundle", "--name", "notes", *TRUST, "--tracking-uri"]
    assert "credentials" in refused(*given, "https://me:secret@mlflow.example")
    assert "nothing was done there" in refused(*given, down)
