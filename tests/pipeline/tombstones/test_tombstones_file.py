"""The file of tombstones: what was cut, changed, killed or written by two at once."""

import shutil

import pytest
from faults import Faults, Killed
from forgotten_rows import NAME, kinds
from small_stages import run_stages

from dpmlm.artifacts import create_keys
from dpmlm.config import load_config
from dpmlm.errors import IntegrityError, UserError
from dpmlm.pipeline.tombstones import (
    file_beside,
    forget,
    forgotten,
    refuse_forgotten,
)
from dpmlm.privacy import Ledger


def damage(lines: list[bytes], how: str) -> bytes | None:
    if how == "gone":
        return None
    if how == "empty":
        return b""
    if how == "cut":
        return b"".join(lines[:-1])
    if how == "a line out of the middle":
        return b"".join([*lines[:1], *lines[2:]])
    if how == "changed":
        return b"".join(lines).replace(b"request-1", b"request-2")
    assert how == "half a line"
    return b"".join(lines)[:-20]


@pytest.mark.parametrize(
    "how", ["gone", "empty", "cut", "half a line", "a line out of the middle", "changed"]
)
def test_a_file_that_was_cut_or_changed_is_refused_by_whoever_needs_it(config, how):
    forget(config, "p0", "request-1")
    forget(config, NAME, "request-2")
    file = file_beside(config.ledger.path)
    damaged = damage(file.read_bytes().splitlines(keepends=True), how)
    file.unlink()
    if damaged is not None:
        file.write_bytes(damaged)
    for need in (lambda: run_stages(config, "corpus"), lambda: forgotten(config),
                 lambda: forget(config, "p2", "request-3")):  # fmt: skip
        with pytest.raises(IntegrityError, match="tombstone file") as caught:
            need()
        assert "restore" in str(caught.value)


def test_two_who_forget_at_once_both_do(config, monkeypatch):
    from dpmlm.pipeline import tombstones

    made = tombstones.create

    def meanwhile(path, *arguments):
        monkeypatch.setattr(tombstones, "create", made)
        forget(config, "p0", "request-1")
        made(path, *arguments)

    monkeypatch.setattr(tombstones, "create", meanwhile)
    forget(config, NAME, "request-2")
    assert forgotten(config).persons == 2
    noted = Ledger.open(config.ledger.path).tombstones
    assert f"{noted['lines']}:{noted['head']}" == forgotten(config).head


def test_a_cut_file_is_found_by_a_workspace_that_read_it(config):
    plain = config.ledger.path.read_bytes()
    forget(config, NAME, "request-17")
    run = run_stages(config, "corpus")
    # Ledger and tombstones are put back to what they were: the workspace alone knows better.
    config.ledger.path.write_bytes(plain)
    file_beside(config.ledger.path).unlink()
    with pytest.raises(IntegrityError, match="workspace"):
        refuse_forgotten(run, Ledger.open(config.ledger.path))
    run.folder("corpus").unfinish()
    with pytest.raises(IntegrityError, match="workspace"):
        run_stages(config, "corpus")


def test_another_pseudonym_key_finds_nobody_and_is_refused(config, tmp_path):
    forget(config, NAME, "request-17")
    create_keys(tmp_path / "other")
    keys = config.keys.model_copy(update={"scrub": tmp_path / "other/pseudonym.key"})
    other = config.model_copy(update={"keys": keys})
    for need in (lambda: forget(other, NAME, "again"), lambda: run_stages(other, "corpus")):
        with pytest.raises(UserError, match="another pseudonym key"):
            need()


def test_a_signed_ledger_notes_it_signed(config):
    from dpmlm.artifacts import load_signing_key

    config.ledger.path.unlink()
    key = load_signing_key(config.keys.signing)
    Ledger.register(config.ledger.path, epsilon=16, delta=1e-3, corpus="posts", signer=key)
    forget(config, NAME, "request-17")
    Ledger.open(config.ledger.path).verify(trusted={key.key_id: key.verify_key})
    assert kinds(config) == ["register", "tombstones"]


def test_a_ledger_that_forgets_backwards_is_refused(config):
    forget(config, NAME, "request-17")
    ledger = Ledger.open(config.ledger.path)
    with pytest.raises(IntegrityError, match="grows"), ledger._journal.exclusive():
        ledger._write("tombstones", lines=1, head="sha256:0")
    Ledger.open(config.ledger.path)  # what is refused is not written
    ledger._journal._apply = lambda entry: None
    with ledger._journal.exclusive():
        ledger._write("tombstones", lines=1, head="sha256:0")
    with pytest.raises(IntegrityError, match="grows"):
        Ledger.open(config.ledger.path)


@pytest.mark.parametrize(
    "mode", ["torn", *(pytest.param(mode, marks=pytest.mark.full) for mode in ("kill", "ENOSPC"))]
)
def test_whatever_kills_it_a_repeat_completes_it(base, tmp_path, mode):
    nth = 0
    while True:
        nth += 1
        folder = tmp_path / f"{mode}-{nth}"
        shutil.copytree(base, folder)
        config = load_config(folder / "run.yaml")
        fault = Faults(nth, mode)
        try:
            with fault:
                forget(config, NAME, "request-17")
        except (Killed, UserError, OSError):
            pass
        if not fault.reached:
            break
        forget(config, NAME, "request-17")
        assert forgotten(config).persons == 1
        noted = Ledger.open(config.ledger.path).tombstones
        assert f"{noted['lines']}:{noted['head']}" == forgotten(config).head
        shutil.rmtree(folder)
    assert nth > 8
