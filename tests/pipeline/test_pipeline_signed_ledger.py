"""A ledger that was registered with a signing key, through the commands and a run."""

import json

import pytest
from small_run import draw_keys, write_corpus, write_run_file

from dpmlm.artifacts import create_keys
from dpmlm.canonical import canonical_json, digest
from dpmlm.cli.main import status_of
from dpmlm.config import load_config
from dpmlm.errors import IntegrityError, UserError
from dpmlm.pipeline.accounts import check_ledger
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.outcome import gather
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_until
from dpmlm.privacy import Ledger

pytestmark = pytest.mark.xdist_group("signed-ledger")

REGISTER = ["ledger", "register", "ledger.jsonl", "--epsilon", "16", "--delta", "1e-3"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run up to its training on a signed ledger."""
    folder = tmp_path_factory.mktemp("signed")
    write_corpus(folder)
    write_run_file(folder, audit__control=None)
    create_keys(folder / "keys")
    register = [*REGISTER[:2], str(folder / "ledger.jsonl"), *REGISTER[3:]]
    assert status_of([*register, "--signing-key", str(folder / "keys/sign.key")]) == 0
    draw_keys(folder)
    execute_until(load_config(folder / "run.yaml"), "training")
    return folder


@pytest.fixture
def told(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)

    def run(*words):
        status = status_of([*words, "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


def test_every_line_is_signed_and_verified(told):
    status, found = told("ledger", "verify", "ledger.jsonl", "--trusted-keys", "keys/trusted")
    assert status == 0
    assert found["entries"] > 8
    assert told("ledger", "show", "ledger.jsonl")[1]["signed_by"] == found["signed_by"]


def test_another_signer_is_not_trusted(told, tmp_path):
    create_keys(tmp_path / "other")
    keys = str(tmp_path / "other/trusted")
    status, found = told("ledger", "verify", "ledger.jsonl", "--trusted-keys", keys)
    assert status == 1
    assert "is not trusted" in found["problem"]


def test_a_noted_head_finds_lines_that_were_cut_off(told, trained, tmp_path):
    head = told("ledger", "show", "ledger.jsonl")[1]["head"]
    assert told("ledger", "verify", "ledger.jsonl", "--head", head)[0] == 0
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(b"".join((trained / "ledger.jsonl").read_bytes().splitlines(True)[:-1]))
    assert told("ledger", "verify", str(cut))[0] == 0
    status, found = told("ledger", "verify", str(cut), "--head", head)
    assert status == 1
    assert "the file was cut or rewritten" in found["problem"]
    for odd in ("", "12", "x:sha256:00", "3:00"):
        assert told("ledger", "verify", str(cut), "--head", odd)[0] == 2


def test_a_run_without_the_key_is_refused_before_its_first_step(trained, tmp_path):
    create_keys(tmp_path / "keys")
    write_corpus(tmp_path)
    write_run_file(tmp_path, ledger__path=str(trained / "ledger.jsonl"), audit__control=None)
    before = (trained / "ledger.jsonl").read_bytes()
    with pytest.raises(UserError, match="give the signing key that registered it"):
        execute_until(load_config(tmp_path / "run.yaml"), "training")
    assert (trained / "ledger.jsonl").read_bytes() == before
    assert not (tmp_path / "work/corpus").exists()


def test_the_gate_holds_each_line_to_the_runs_own_key(trained, tmp_path):
    """A line with the right key id and a signature of nobody: the chain alone does not show it."""
    config = load_config(trained / "run.yaml")
    path = tmp_path / "ledger.jsonl"
    path.write_bytes((trained / "ledger.jsonl").read_bytes())
    ledger = Ledger.open(path)
    body = {
        "kind": "attempt", "number": ledger.head["number"] + 1, "previous": ledger.head["hash"],
        "run_id": ledger.run_ids[0], "attempt": 2, "from_step": 0,
        "key_id": ledger.key_id, "signature": "00",
    }  # fmt: skip
    with path.open("ab") as file:
        file.write(canonical_json({**body, "hash": digest(body)}) + b"\n")
    assert check_ledger(path).intact
    forged = config.model_copy(update={"ledger": config.ledger.model_copy(update={"path": path})})
    with pytest.raises(IntegrityError, match="signature does not verify"):
        gather(Run.load(forged, Progress(quiet=True)))
