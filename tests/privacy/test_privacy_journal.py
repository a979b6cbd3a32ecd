"""The journal: every changed byte is found, torn lines are mended, a full disk harms nothing."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from variants import rest_in_full

from dpmlm.canonical import canonical_json, digest
from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy import Ledger, PrivacyPlan, journal, make_plan


class Key:
    """Ed25519, both halves."""

    def __init__(self, seed: int) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.key_id = f"key{seed}"

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    def verify(self, signature: bytes, data: bytes) -> bool:
        try:
            self._key.public_key().verify(signature, data)
        except InvalidSignature:
            return False
        return True


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return make_plan(
        epsilon=2.0, delta=1e-6, units=5000, expected_batch_size=500, steps=20, max_grad_norm=1.0
    )


@pytest.fixture
def path(tmp_path: Path, plan: PrivacyPlan) -> Path:
    return used(tmp_path / "ledger.jsonl", plan)


def used(path: Path, plan: PrivacyPlan, signer: Key | None = None) -> Path:
    ledger = Ledger.register(path, epsilon=16, delta=1e-5, corpus="posts", signer=signer)
    ledger.reserve("run", plan)
    attempt = ledger.begin_attempt("run")
    for step in range(3):
        ledger.charge("run", attempt, step)
    return path


def rechain(lines: list[dict[str, Any]]) -> bytes:
    """What somebody without a key can do: hash every line again."""
    head, out = journal.GENESIS, b""
    for number, line in enumerate(lines, start=1):
        body = {key: value for key, value in line.items() if key != "hash"}
        body.update(number=number, previous=head)
        body["hash"] = head = digest(body)
        out += canonical_json(body) + b"\n"
    return out


@pytest.mark.parametrize("signed", rest_in_full([False, True], [False]))
def test_a_flipped_byte_is_found_with_its_line(
    tmp_path: Path, plan: PrivacyPlan, signed: bool
) -> None:
    path = used(tmp_path / "ledger.jsonl", plan, Key(1) if signed else None)
    good = path.read_bytes()
    ledger = Ledger.open(path)
    ledger.verify()
    for at in range(0, len(good), 2 if signed else 5):
        mask = (0x01, 0x20, 0x80)[at % 3]
        line = good[:at].count(b"\n") + 1
        path.write_bytes(good[:at] + bytes([good[at] ^ mask]) + good[at + 1 :])
        with pytest.raises(IntegrityError, match=f"line {line}:"):
            list(ledger._journal.entries())
    for at in range(0, len(good), 37):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(IntegrityError, match="line"):
            Ledger.open(path)
    path.write_bytes(good)
    ledger.verify()


@pytest.mark.parametrize("edit", ["drop", "swap", "double", "insert"])
def test_moved_lines_are_found(path: Path, edit: str) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    changed = {
        "drop": lines[:2] + lines[3:],
        "swap": [*lines[:3], lines[4], lines[3], *lines[5:]],
        "double": [*lines, lines[-1]],
        "insert": [*lines[:2], b"{}\n", *lines[2:]],
    }[edit]
    path.write_bytes(b"".join(changed))
    with pytest.raises(IntegrityError, match=r"line [3-7]: the chain is broken"):
        Ledger.open(path)


def test_another_spelling_of_the_same_json_is_found(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"step":1', b'"step": 1'))
    with pytest.raises(IntegrityError, match=r"line 5: .*canonically"):
        Ledger.open(path)


def test_whole_lines_cut_off_are_found_against_a_noted_head(path: Path) -> None:
    ledger = Ledger.open(path)
    noted = ledger.head
    ledger.verify(head=noted)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(IntegrityError, match="shorter"):
        ledger.charge("run", 1, 3)
    again = Ledger.open(path)
    again.verify()
    with pytest.raises(IntegrityError, match=r"line 6: .*head is gone"):
        again.verify(head=noted)


def test_a_torn_line_of_a_signed_file_is_mended_by_its_signer_alone(
    tmp_path: Path, plan: PrivacyPlan
) -> None:
    path = used(tmp_path / "ledger.jsonl", plan, Key(1))
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1][:40])
    torn = path.read_bytes()
    reader = Ledger.open(path)
    assert reader.charged_steps("run") == 3
    assert path.read_bytes() == torn
    with pytest.raises(UserError, match="registered with signer key1"):
        reader.charge("run", 1, 3)
    writer = Ledger.open(path).sign_with(Key(1))
    writer.charge("run", 1, 3)
    assert [entry["kind"] for entry in writer.entries][-2:] == ["repair", "charge"]
    writer.verify(trusted={"key1": Key(1)})


def test_an_unsigned_ledger_stays_unsigned(path: Path) -> None:
    ledger = Ledger.open(path).sign_with(Key(1))
    ledger.charge("run", 1, 3)
    assert ledger.key_id is None
    assert "signature" not in ledger.entries[-1]


def test_every_torn_last_line_is_mended_and_recorded(path: Path) -> None:
    good = path.read_bytes()
    start = good[:-1].rindex(b"\n") + 1
    for end in [*range(start + 1, len(good) - 1, 9), len(good) - 1]:
        path.write_bytes(good[:end])
        ledger = Ledger.open(path)
        whole = end == len(good) - 1
        assert ledger.charged_steps("run") == (3 if whole else 2)
        assert ledger.entries[-1]["kind"] == "repair"
        assert ledger.entries[-1]["kept"] is whole
        ledger.charge("run", 1, 3 if whole else 2)
        ledger.verify()
    path.write_bytes(good[: start + 9] + bytes(40))
    assert Ledger.open(path).charged_steps("run") == 2


def test_only_an_incomplete_last_line_is_mended(path: Path) -> None:
    good = path.read_bytes()
    for broken in (good[:-1] + b"x", good + b"x", good[:-40] + b"\n", good + b"\n"):
        path.write_bytes(broken)
        with pytest.raises(IntegrityError, match=r"line [67]"):
            Ledger.open(path)
        assert path.read_bytes() == broken
    middle = good.index(b"\n") + 20
    path.write_bytes(good[:middle] + b"\n" + good[middle + 30 :])
    with pytest.raises(IntegrityError, match="line 2"):
        Ledger.open(path)


def test_a_complete_but_changed_last_line_is_not_mended(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1].replace(b'"step":2', b'"step":7'))
    with pytest.raises(IntegrityError, match="line 6"):
        Ledger.open(path)


@pytest.mark.parametrize("failure", ["nothing", "half", "sync"])
def test_a_full_disk_charges_nothing_and_leaves_the_file(
    path: Path, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, good, write = Ledger.open(path), path.read_bytes(), os.write

    def full(*rest: Any) -> int:
        raise OSError(28, "No space left on device")

    if failure == "sync":
        monkeypatch.setattr(journal, "_sync", full)
    else:
        half = lambda fd, data: write(fd, data[: len(data) // 2])  # noqa: E731
        monkeypatch.setattr(os, "write", full if failure == "nothing" else half)
    with pytest.raises(UserError, match="No space left"):
        ledger.charge("run", 1, 3)
    monkeypatch.undo()
    assert path.read_bytes() == good
    ledger.charge("run", 1, 3)
    ledger.verify()


def test_a_charge_is_synced_before_it_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, seen, sync = Ledger.open(path), [], journal._sync
    size = path.stat().st_size

    def record(handle: int) -> None:
        seen.append(os.fstat(handle).st_size)
        sync(handle)

    monkeypatch.setattr(journal, "_sync", record)
    ledger.charge("run", 1, 3)
    assert seen == [path.stat().st_size]
    assert seen[0] > size


def test_signatures(tmp_path: Path, plan: PrivacyPlan) -> None:
    path = used(tmp_path / "ledger.jsonl", plan, Key(1))
    ledger = Ledger.open(path, Key(1))
    ledger.verify(trusted={"key1": Key(1)})
    with pytest.raises(IntegrityError, match=r"line 1: .*not trusted"):
        ledger.verify(trusted={"key2": Key(2)})
    with pytest.raises(IntegrityError, match=r"line 1: .*signature"):
        ledger.verify(trusted={"key1": Key(2)})
    for signer in (None, Key(2)):
        with pytest.raises(UserError, match="registered with signer key1"):
            Ledger.open(path, signer).charge("run", 1, 3)
    ledger.charge("run", 1, 3)
    ledger.verify(trusted={"key1": Key(1)})


def test_a_chain_hashed_again_is_caught_by_signatures_alone(
    tmp_path: Path, plan: PrivacyPlan
) -> None:
    path = used(tmp_path / "ledger.jsonl", plan, Key(1))
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    lines[0]["epsilon"] = 99.0
    path.write_bytes(rechain(lines))
    forged = Ledger.open(path)
    forged.verify()
    with pytest.raises(IntegrityError, match=r"line 1: .*signature"):
        forged.verify(trusted={"key1": Key(1)})
    for line in lines:
        line.pop("signature")
        line.pop("key_id")
    path.write_bytes(rechain(lines))
    with pytest.raises(IntegrityError, match=r"line 1: .*not trusted"):
        Ledger.open(path).verify(trusted={"key1": Key(1)})


@pytest.mark.parametrize(
    ("at", "change", "words"),
    [
        (1, {"divergence": 1e-9}, "line 2: the amounts recorded"),
        (1, {"plan": {}}, "line 2: the entry makes no sense"),
        (3, {"step": 2}, "line 4: the entry makes no sense"),
        (4, {"run_id": "other"}, "line 5: the entry makes no sense"),
        (2, {"kind": "register"}, "line 3: .*registered once"),
        (2, {"kind": "gift"}, "line 3: .*unknown"),
        (0, {"kind": "attempt"}, "line 1: .*registered once"),
    ],
)
def test_entries_that_make_no_sense_are_refused(
    path: Path, at: int, change: dict[str, Any], words: str
) -> None:
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    lines[at].update(change)
    path.write_bytes(rechain(lines))
    with pytest.raises(IntegrityError, match=words):
        Ledger.open(path).verify()


def test_missing_empty_and_existing_files(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Ledger.open(tmp_path / "none.jsonl")
    good = path.read_bytes()
    with pytest.raises(UserError, match="already registered"):
        Ledger.register(path, epsilon=1, delta=1e-5, corpus="again")
    assert path.read_bytes() == good
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(IntegrityError, match="never registered"):
        Ledger.open(tmp_path / "empty.jsonl")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_held_lock_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LOCK_SECONDS", 0.05)
    first, second = Ledger.open(path), Ledger.open(path)
    with first._journal.exclusive(), pytest.raises(UserError, match="lock"):
        second.charge("run", 1, 3)
    second.charge("run", 1, 3)
    assert first.charged_steps("run") == 4


def test_an_entry_that_its_readers_would_refuse_is_not_left_in_the_file(path: Path) -> None:
    """A kind that no reader knows, written by whatever fault: the file stays one that opens."""
    ledger = Ledger.open(path)
    before = path.read_bytes()
    with ledger._journal.exclusive(), pytest.raises((IntegrityError, UserError)):
        ledger._journal.append("nonsense", {"time": "2026-01-01T00:00:00+00:00"})
    assert path.read_bytes() == before
    ledger.charge("run", 1, 3)
    Ledger.open(path).verify()
    assert [entry["kind"] for entry in Ledger.open(path).entries][-1] == "charge"
