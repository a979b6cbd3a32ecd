"""Releases on a real MLflow server, and what happens where there is none, or one that refuses."""

import http.server
import json
import logging
import shutil
import socket
import threading
from importlib.util import find_spec

import pytest
from leaks import find_leaks

from dpmlm.artifacts import IntegrityError, UserError
from dpmlm.cli.main import status_of
from dpmlm.release import load_released
from dpmlm.release.consistency import read_contents
from dpmlm.release.inventory import files_of, release_digest
from dpmlm.release.registry.figures import FIGURES, SETTINGS, metrics, params, tags
from dpmlm.release.registry.passing import read_release

pytestmark = pytest.mark.xdist_group("mlflow-server")

needs_client = pytest.mark.skipif(
    find_spec("mlflow") is None, reason="mlflow-skinny is not installed (it is in the dev extra)"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of a real server, and where it keeps what it gets."""
    reason = "no whole mlflow is installed (pip install 'dpmlm-framework[mlflow-server]')"
    for part in ("mlflow", "flask", "sqlalchemy"):
        pytest.importorskip(part, reason=reason)
    from mlflow_server import running

    folder = tmp_path_factory.mktemp("mlflow")
    with running(folder) as address:
        yield address, folder


@pytest.fixture
def client(server):
    """The server asked past our code."""
    from mlflow import MlflowClient

    return MlflowClient(server[0], server[0])


@pytest.fixture
def publish(keys, server):
    from dpmlm.release.registry import mlflow

    def published(bundle, name, **more):
        return mlflow.publish(bundle, server[0], name, trusted_keys=keys.trusted, **more)

    return published


@pytest.fixture
def fetch(keys, server):
    from dpmlm.release.registry import mlflow

    return lambda reference, to: mlflow.fetch(reference, server[0], to, trusted_keys=keys.trusted)


@needs_client
def test_a_bundle_of_another_policy_is_refused_before_a_server_is_asked(bundle, keys):
    from dpmlm.release.registry import mlflow

    nowhere = "http://127.0.0.1:1"
    with pytest.raises(UserError, match=r"partner/v1 .* is asked for"):
        mlflow.publish(bundle, nowhere, "notes", trusted_keys=keys.trusted, policy="partner")


@pytest.mark.full
def test_a_release_that_passed_goes_there_and_comes_back(
    bundle, check, publish, fetch, client, server, keys, tmp_path, released_model
):
    done = publish(bundle, "notes")
    assert (done.version, done.verdict, done.alias, done.withheld) == (1, "PASS", "passed", None)
    manifest = check(bundle).manifest
    release = release_digest(manifest["files"])
    version = client.get_model_version_by_alias("notes", "passed")
    run = client.get_run(version.run_id)
    ledger = json.loads((bundle / "ledger.json").read_text())
    claim = json.loads((bundle / "statement.json").read_text())
    for tagged in (version.tags, run.data.tags):
        assert tagged["dpmlm.verdict"] == "PASS"
        assert tagged["dpmlm.release"] == release == done.release
        assert tagged["dpmlm.run_id"] == ledger["run_id"] == "run"
        assert tagged["dpmlm.policy_digest"] == manifest["policy_digest"]
        assert tagged["dpmlm.epsilon"] == str(claim["epsilon"])
        assert tagged["dpmlm.delta"] == str(claim["delta"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["epsilon"] == pytest.approx(claim["epsilon"])
    assert set(run.data.metrics) == set(FIGURES)
    assert set(run.data.params) == set(SETTINGS)
    # Bytes on the server's disk are the bundle's, file for file.
    (manifest_there,) = (server[1] / "artifacts").rglob(f"*{version.run_id}*/**/manifest.dsse.json")
    there = manifest_there.parent
    assert files_of(there) == files_of(bundle)
    assert all((there / n).read_bytes() == (bundle / n).read_bytes() for n in files_of(bundle))
    got = fetch("notes@passed", tmp_path / "got")
    assert (got.verdict, got.release) == ("PASS", release)
    assert fetch("notes@1", tmp_path / "second").version == 1
    opened, _ = load_released(tmp_path / "got", identity=keys.consumer, trusted_keys=keys.trusted)
    import torch

    ours = released_model[0].state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in opened.state_dict().items())


@pytest.mark.full
def test_nothing_of_the_model_lies_in_clear_on_the_server(bundle, publish, server, released_model):
    publish(bundle, "clear")
    model, tokenizer = released_model
    store = server[1]
    tensors = [
        t.numpy().tobytes()[-64:] for t in model.state_dict().values() if t.unique().numel() > 15
    ]
    words = ["aspirin", "embeddings.word_embeddings", "intermediate_size", "weights.safetensors"]
    files = [path for path in store.rglob("*") if path.is_file() and path.name != "server.log"]
    assert any(path.name == "weights.sealed" for path in files)
    for path in files:
        data = path.read_bytes()
        assert not any(tensor in data for tensor in tensors), path
        assert not any(word.encode() in data for word in words), path
    # The search finds what does lie there in clear.
    plain = store / "plain"
    model.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    found = {path.name for path in plain.iterdir() if any(t in path.read_bytes() for t in tensors)}
    assert found == {"model.safetensors"}
    assert find_leaks(plain, "aspirin", [1, 2, 3, 4, 5]) == ["tokenizer.json"]
    shutil.rmtree(plain)


@pytest.mark.full
def test_a_release_that_failed_gets_no_alias(failed, publish, fetch, client, tmp_path):
    done = publish(failed, "sorry")
    assert (done.verdict, done.alias) == ("FAIL", None)
    assert "did not pass" in done.withheld
    assert client.get_model_version("sorry", "1").tags["dpmlm.verdict"] == "FAIL"
    assert client.get_registered_model("sorry").aliases == {}
    with pytest.raises(UserError, match="no such version"):
        fetch("sorry@passed", tmp_path / "got")
    # Somebody sets the alias on the server: it is believed by nobody who fetches.
    client.set_registered_model_alias("sorry", "passed", "1")
    with pytest.raises(IntegrityError, match="did not pass"):
        fetch("sorry@passed", tmp_path / "got")
    assert list(tmp_path.glob("*got*")) == []
    assert fetch("sorry@1", tmp_path / "got").verdict == "FAIL"


@pytest.mark.full
def test_the_same_again_changes_nothing_and_an_alias_never_goes_back(
    bundle, write, facts, publish, client, tmp_path
):
    first = publish(bundle, "again")
    assert first.uploaded == len(files_of(bundle))
    assert publish(bundle, "again") == type(first)(**{**first.to_json(), "uploaded": 0})
    facts["training"]["near_duplicates"] = 0.7
    second = write(tmp_path / "second", facts)
    assert publish(second, "again").version == 2
    assert publish(bundle, "again").withheld == "passed points to version 2, which is later"
    assert client.get_model_version_by_alias("again", "passed").version in ("2", 2)
    assert len(client.search_model_versions("name='again'")) == 2
    assert publish(second, "again", alias="champion").alias == "champion"
    # Another way to look: one run a release.
    experiment = client.get_experiment_by_name("again").experiment_id
    assert len(client.search_runs([experiment])) == 2


@pytest.mark.full
@pytest.mark.parametrize("step", ["log_artifact", "create_model_version", "log_batch"])
def test_after_a_failure_in_the_middle_the_same_command_goes_on(
    bundle, publish, fetch, tmp_path, monkeypatch, step
):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    calls = []

    def broken(*arguments, **named):
        calls.append(step)
        if len(calls) == (3 if step == "log_artifact" else 1):
            raise MlflowException("the line is dead")
        return true(*arguments, **named)

    name, true = f"broken-{step.replace('_', '-')}", getattr(MlflowClient, step)
    monkeypatch.setattr(MlflowClient, step, broken)
    with pytest.raises(UserError, match="made run"):
        publish(bundle, name)
    with pytest.raises(UserError, match="no such version"):
        fetch(f"{name}@passed", tmp_path / "got")
    assert publish(bundle, name).version == 1
    assert fetch(f"{name}@passed", tmp_path / "got").verdict == "PASS"


@pytest.mark.full
def test_what_was_changed_on_the_server_is_not_left_here(
    bundle, publish, fetch, client, server, tmp_path
):
    publish(bundle, "changed")
    run = client.get_model_version_by_alias("changed", "passed").run_id
    (page,) = (server[1] / "artifacts").rglob(f"*{run}*/**/plan.json")
    page.write_bytes(page.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match=r"plan\.json"):
        fetch("changed@passed", tmp_path / "got")
    page.unlink()
    with pytest.raises(IntegrityError, match=r"plan\.json .*missing|plan\.json"):
        fetch("changed@passed", tmp_path / "got")
    assert list(tmp_path.glob("*got*")) == []
    client.set_model_version_tag("changed", "1", "dpmlm.release", "sha256:00")
    shutil.copy(bundle / "plan.json", page)
    with pytest.raises(IntegrityError, match="tag says"):
        fetch("changed@passed", tmp_path / "got")


@pytest.mark.full
def test_a_changed_bundle_never_gets_there(bundle, publish, client):
    (bundle / "plan.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"plan\.json"):
        publish(bundle, "never")
    assert client.get_experiment_by_name("never") is None


_KEPT: dict[str, object] = {}


@pytest.fixture
def offered(request, monkeypatch):
    """A bundle that is verified once, for servers that never get it."""
    from dpmlm.release.registry import mlflow

    if not _KEPT:
        bundle, keys, now = (request.getfixturevalue(name) for name in ("bundle", "keys", "now"))
        _KEPT["release"] = read_release(bundle, keys.trusted, now)
    monkeypatch.setattr(mlflow, "read_release", lambda *_: _KEPT["release"])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return _KEPT["release"].folder


def test_only_public_figures_are_told(offered):
    release = _KEPT["release"]
    assert set(metrics(release)) == set(FIGURES)
    assert set(params(release)) == set(SETTINGS)
    contents, _ = read_contents(offered)
    target = contents.evidence["subjects"]["target"]
    target["exposure"]["label"] = "private"
    contents.statement["epsilon"] = "inf"
    private = type(release)(release.folder, release.checked, contents)
    assert set(metrics(private)) == set(FIGURES) - {"exposure_mean_bits", "epsilon"}
    assert params(private)["epsilon"] == "inf"


def test_epsilon_is_the_one_that_is_claimed(offered):
    release = _KEPT["release"]
    contents, _ = read_contents(offered)
    contents.ledger["epsilon"], contents.statement["epsilon"] = 7.997823, 7.9979
    rounded = type(release)(release.folder, release.checked, contents)
    assert tags(rounded)["dpmlm.epsilon"] == "7.9979"
    assert metrics(rounded)["epsilon"] == 7.9979


def test_a_changed_bundle_is_exit_status_1(bundle, keys, capsys):
    (bundle / "plan.json").write_text("{}")
    words = ["registry", "mlflow", str(bundle), "--name", "notes", "--tracking-uri"]
    assert status_of([*words, "http://127.0.0.1:1", "--trusted-keys", str(keys.trusted)]) == 1
    assert "plan.json" in capsys.readouterr().err


class _Refusing(http.server.BaseHTTPRequestHandler):
    """Answers every request with one status; `mlflow` itself is in the tests above."""

    status = 403

    def do_GET(self):
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"<html>secret page of a proxy</html>")

    do_POST = do_PUT = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def refusing(request):
    """Address of a server that answers with a status."""
    kind = type("Handler", (_Refusing,), {"status": request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as there:
        thread = threading.Thread(target=there.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{there.server_address[1]}"
        there.shutdown()
        thread.join()


@needs_client
@pytest.mark.parametrize("refusing", [403, 404, 500, 302], indirect=True)
def test_a_server_that_refuses_is_one_message(offered, keys, refusing, tmp_path):
    from dpmlm.release.registry import mlflow

    for ask in (
        lambda: mlflow.publish(offered, refusing, "notes", trusted_keys=keys.trusted),
        lambda: mlflow.fetch("notes@passed", refusing, tmp_path / "got", trusted_keys=keys.trusted),
    ):
        with pytest.raises(UserError, match="nothing was done there") as refused:
            ask()
        assert refusing in str(refused.value)
        assert "secret page" not in str(refused.value)
    assert not (tmp_path / "got").exists()


@needs_client
def test_a_server_that_is_down_is_one_message(offered, keys, monkeypatch, caplog):
    from dpmlm.release.registry import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    logging.getLogger("urllib3").setLevel(logging.NOTSET)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(UserError, match="nothing was done there"):
        mlflow.publish(offered, address, "notes", trusted_keys=keys.trusted)
    assert caplog.records == []  # nor a line on standard error before it


@needs_client
def test_nothing_is_told_to_anybody_else():
    from dpmlm.release.registry.server import Server

    Server("http://127.0.0.1:1")
    from mlflow.telemetry import get_telemetry_client
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()
    assert get_telemetry_client() is None


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://mlflow.example", "TLS"),
        ("http://127.0.0.1.example:5000", "TLS"),
        ("http://localhost@mlflow.example", "credentials"),
        ("https://user:word@mlflow.example", "credentials"),
        ("sqlite:///mlflow.db", "no address"),
        ("file:///tmp", "no address"),
        ("databricks", "no address"),
        ("", "no address"),
        ("https://", "no address"),
        ("http://[::1", "no address"),
        ("https://a\nb", "no address"),
    ],
)
def test_addresses_that_are_refused(address, said):
    from dpmlm.release.registry.server import Server

    with pytest.raises(UserError, match=said) as refused:
        Server(address)
    assert "word" not in str(refused.value)


class _Listing:
    """A server's answers to `fetch`, as a hostile one would give them."""

    def __init__(self, root, uri="mlflow-artifacts:/1/2/artifacts"):
        self.root, self.uri = root, uri

    def get_run(self, run_id):
        from mlflow.entities import RunInfo

        class Run:
            info = RunInfo(run_id, "1", "u", "FINISHED", 0, 0, "active", artifact_uri=self.uri)

        return Run

    def list_artifacts(self, run_id, folder):
        from mlflow.entities import FileInfo

        return [FileInfo(name, is_dir, 1) for name, is_dir in self.root.get(folder, [])]

    def download_artifacts(self, run_id, name, folder):
        raise AssertionError(name)


@needs_client
@pytest.mark.parametrize(
    "names",
    [
        {"bundle": [("bundle/../../evil", False)]},
        {"bundle": [("/etc/evil", False)]},
        {"bundle": [("bundle/.evil", False)]},
        {"bundle": [("bundle/a\nb", False)]},
        {"bundle": [("bundle/model", True)], "bundle/model": [("bundle/evil", False)]},
        {"bundle": [(f"bundle/{n}", False) for n in range(2000)]},
        {},
    ],
)
def test_names_that_no_bundle_has_are_not_fetched(monkeypatch, tmp_path, names):
    from dpmlm.release.registry import mlflow, server

    monkeypatch.setattr(server, "_client", lambda uri: _Listing(names))
    with pytest.raises(UserError, match="no bundle"):
        mlflow._download(server.Server("http://127.0.0.1:1"), "run", tmp_path)
    assert list(tmp_path.iterdir()) == []


@needs_client
@pytest.mark.parametrize(
    "uri", ["/srv/mlruns", "file:///srv", "s3://bucket/x", "mlflow-artifacts://other/1"]
)
def test_artifacts_that_lie_elsewhere_are_refused(monkeypatch, tmp_path, uri):
    from dpmlm.release.registry import mlflow, server

    monkeypatch.setattr(server, "_client", lambda _: _Listing({}, uri))
    with pytest.raises(UserError, match="not behind it"):
        mlflow._download(server.Server("http://127.0.0.1:1"), "run", tmp_path)


def test_without_the_extra_the_command_that_installs_it_is_said(offered, keys, monkeypatch):
    import sys

    from dpmlm.release.registry import mlflow

    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r"pip install 'dpmlm-framework\[mlflow\]'"):
        mlflow.publish(offered, "http://127.0.0.1:1", "notes", trusted_keys=keys.trusted)
