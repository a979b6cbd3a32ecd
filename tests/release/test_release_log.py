"""The release log: vectors, appends that are killed anywhere, and changes of what was signed."""

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from faults import MODES, Faults, Killed

from dpmlm.artifacts import SigningKey, VerifyKey, canonical_json
from dpmlm.artifacts.notes import open_checkpoint
from dpmlm.errors import IntegrityError, UserError
from dpmlm.release.log.appending import append, check_log
from dpmlm.release.log.book import Listing
from dpmlm.release.log.check import _read
from dpmlm.release.log.entry import LogProof, name_of
from dpmlm.release.log.reading import MAX_PROOF_BYTES, read_head, read_log

VECTORS = sorted((Path(__file__).parents[1] / "formats/log").glob("*.json"))
KEY, OTHER = SigningKey(bytes([1]) * 32), SigningKey(bytes([2]) * 32)
TRUSTED = {KEY.key_id: KEY.verify_key}


def entry(number: int, name: str = "clinic") -> dict[str, str]:
    digests = {
        field: "sha256:" + hashlib.sha256(f"{field} {number}".encode()).hexdigest()
        for field in ("release", "model_digest", "plan_digest", "policy_digest")
    }
    return {
        "schema": "dpmlm.log-entry/1", "kind": "release", "name": name,
        "run_id": f"{name}-{number:012x}", "verdict": "PASS",
        "created": f"2026-11-27T08:00:{number:02d}+00:00", **digests,
    }  # fmt: skip


@pytest.fixture
def path(tmp_path):
    """A log of three releases."""
    for number in range(3):
        append(tmp_path / "releases.log", entry(number), KEY, TRUSTED)
    return tmp_path / "releases.log"


def beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")


def naive_root(entries: list[bytes]) -> bytes:
    """RFC 6962, section 2.1."""
    if len(entries) < 2:
        return hashlib.sha256(b"".join(b"\0" + entry for entry in entries)).digest()
    k = 1
    while 2 * k < len(entries):
        k *= 2
    left, right = naive_root(entries[:k]), naive_root(entries[k:])
    return hashlib.sha256(b"\1" + left + right).digest()


def naive_head(note: str, key: bytes) -> tuple[str, int, bytes] | None:
    """Origin, size and root of a checkpoint that this key signed, without any of our code."""
    text, _, signatures = note.rpartition("\n\n")
    origin, size, root = (text + "\n").split("\n")[:3]
    for line in signatures.splitlines():
        _, name, encoded = line.split(" ")
        raw = base64.b64decode(encoded)
        named = hashlib.sha256(name.encode() + b"\n\x01" + key).digest()[:4]
        if name == origin and raw[:4] == named:
            try:
                Ed25519PublicKey.from_public_bytes(key).verify(raw[4:], (text + "\n").encode())
            except InvalidSignature:
                return None
            return origin, int(size), base64.b64decode(root)
    return None


def read_vector(vector: dict, folder: Path) -> int | None:
    """What our reader makes of a vector: entries of a log; raises for what it refuses."""
    keys = [VerifyKey(bytes.fromhex(key)) for key in vector["trusted"]]
    trusted = {key.key_id: key for key in keys}
    if vector["kind"] == "proof":
        LogProof.read(json.dumps(vector["proof"]).encode(), trusted)
        return None
    path = folder / "vector.log"
    for suffix in ("log", "head", "next"):
        if vector.get(suffix):
            (path if suffix == "log" else beside(path, suffix)).write_text(vector[suffix])
    log = read_log(path, trusted)
    for noted in vector.get("noted", ()):
        if why := log.contradicts(open_checkpoint(noted.encode(), trusted)[0]):
            raise IntegrityError("noted head", why, "")
    return len(log.entries)


@pytest.mark.parametrize("file", VECTORS, ids=lambda file: file.stem)
def test_vectors_are_read_or_refused_as_they_say(file, tmp_path):
    vector = json.loads(file.read_text())
    if vector["valid"]:
        assert read_vector(vector, tmp_path) == vector.get("entries")
        return
    with pytest.raises(IntegrityError) as refused:
        read_vector(vector, tmp_path)
    assert re.search(vector["error"], str(refused.value)), refused.value


def test_the_valid_vectors_hold_for_another_implementation():
    logs = [json.loads(file.read_text()) for file in VECTORS]
    sound = [one for one in logs if one["valid"] and one["kind"] == "log"]
    assert len(VECTORS) == 50
    assert len(sound) == 7
    for vector in sound:
        lines = [line.encode() for line in vector["log"].split("\n")][: vector["entries"]]
        for note in (vector["head"], *vector.get("noted", ())):
            _, size, root = naive_head(note, bytes.fromhex(vector["trusted"][0]))
            assert naive_root(lines[:size]) == root


def test_an_append_writes_canonical_lines_under_a_head_that_others_can_check(path):
    lines = path.read_bytes().splitlines()
    assert lines == [canonical_json(entry(number)) for number in range(3)]
    note = beside(path, "head").read_text()
    origin, size, root = naive_head(note, KEY.verify_key.public)
    assert re.fullmatch(r"dpmlm-log/[0-9a-f]{16}", origin)
    assert (size, root) == (3, naive_root(lines))
    assert not beside(path, "next").exists()
    for index in range(3):
        proof = json.dumps(read_log(path, TRUSTED).prove(index)).encode()
        read, checkpoint = LogProof.read(proof, TRUSTED)
        assert (read.entry, read.index, checkpoint.size) == (entry(index), index, 3)


def test_a_release_is_entered_once_and_a_new_key_takes_a_log_over(path):
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    assert append(path, entry(1), KEY, TRUSTED)[1:] == (1, False)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before
    with pytest.raises(IntegrityError, match="none of the trusted keys"):
        append(path, entry(1), OTHER, {OTHER.key_id: OTHER.verify_key})
    both = {**TRUSTED, OTHER.key_id: OTHER.verify_key}
    log, index, added = append(path, entry(1), OTHER, both)
    assert (index, added, log.signers) == (1, False, (OTHER.key_id,))
    assert log.former == (KEY.key_id,)
    assert append(path, entry(1), OTHER, both)[0].former == ()
    assert path.read_bytes() == before[path]
    now = read_log(path, {OTHER.key_id: OTHER.verify_key})
    assert now.contradicts(open_checkpoint(before[beside(path, "head")], TRUSTED)[0]) is None


@pytest.mark.parametrize("text", ["a letter\n", "no newline", '{"kind":"register"}\n'])
def test_a_file_that_is_no_log_is_left_as_it_is(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    for work in (lambda: check_log(path, TRUSTED), lambda: append(path, entry(0), KEY, TRUSTED)):
        with pytest.raises(IntegrityError, match=r"head .* is missing"):
            work()
    assert path.read_text() == text
    with pytest.raises(UserError, match="it is no file"):
        check_log(tmp_path, TRUSTED)
    with pytest.raises(UserError, match="there is no such log"):
        read_log(tmp_path / "none", TRUSTED)


@pytest.mark.parametrize("what", ["name", "created"])
def test_an_entry_is_printable_ascii(path, what):
    for bad in ("caf\u00e9", "a\x1b[2J", "\ud800", 3):
        with pytest.raises(UserError, match="printable ASCII"):
            append(path, entry(4) | {what: bad}, KEY, TRUSTED)


def test_every_changed_byte_of_a_log_is_found_before_it_is_extended(path):
    for file in (path, beside(path, "head")):
        good = file.read_bytes()
        for at in range(0, len(good), 7):
            file.write_bytes(good[:at] + bytes([good[at] ^ (1, 16, 128)[at % 3]]) + good[at + 1 :])
            with pytest.raises(IntegrityError):
                read_log(path, TRUSTED)
            with pytest.raises(IntegrityError):
                append(path, entry(9), KEY, TRUSTED)
        for cut in (0, 1, len(good) // 2, len(good) - 1):
            file.write_bytes(good[:cut])
            with pytest.raises(UserError):
                append(path, entry(9), KEY, TRUSTED)
        file.write_bytes(good)
    assert append(path, entry(9), KEY, TRUSTED)[1:] == (3, True)


def test_a_head_that_was_to_follow_must_go_on_from_the_head(path, tmp_path):
    """Two histories of one log under one key: the files of one beside the head of the other."""
    other = tmp_path / "other"
    shutil.copytree(path.parent, other, ignore=shutil.ignore_patterns("other"))
    append(path, entry(3), KEY, TRUSTED)
    append(other / path.name, entry(4), KEY, TRUSTED)
    append(other / path.name, entry(5), KEY, TRUSTED)
    path.write_bytes((other / path.name).read_bytes())
    last = path.read_bytes().splitlines()[-1]
    beside(path, "next").write_bytes(last + b"\n" + beside(other / path.name, "head").read_bytes())
    for work in (lambda: append(path, entry(6), KEY, TRUSTED), lambda: read_log(path, TRUSTED)):
        with pytest.raises(IntegrityError, match="not those that its head"):
            work()
    path.write_bytes(b"".join(canonical_json(entry(number)) + b"\n" for number in range(4)))
    assert len(read_log(path, TRUSTED).entries) == 4
    with pytest.raises(IntegrityError, match=r"LOG\.next does not go on from its head"):
        append(path, entry(6), KEY, TRUSTED)


def test_a_head_that_was_signed_is_never_taken_back(path):
    """Whoever saw the next head of a killed append could show it beside another one later."""
    with Faults(nth_write(path), "kill"), contextlib.suppress(Killed):
        append(path, entry(3), KEY, TRUSTED)
    signed = beside(path, "next").read_bytes().partition(b"\n")[2]
    assert len(path.read_bytes().splitlines()) == 3
    assert read_log(path, TRUSTED).under_way
    log, index, added = append(path, entry(4), KEY, TRUSTED)
    assert (index, added, log.entries[3]) == (4, True, entry(3))
    assert log.contradicts(open_checkpoint(signed, TRUSTED)[0]) is None


def nth_write(path: Path) -> int:
    """The call in which an append begins to write its line, counted on a copy."""
    copy = path.parent / "copy"
    shutil.copytree(path.parent, copy, ignore=shutil.ignore_patterns("copy"))
    with Faults() as faults:
        append(copy / path.name, entry(3), KEY, TRUSTED)
    return faults.calls.index("ftruncate") + 1


def attempted(path: Path, number: int, nth: int, mode: str) -> Faults:
    with Faults(nth, mode) as faults:
        with contextlib.suppress(Killed, UserError, OSError):
            append(path, entry(number), KEY, TRUSTED)
    return faults


@pytest.mark.parametrize(
    ("mode", "begun"),
    [
        pytest.param(mode, begun, marks=[] if mode in MODES[:2] else pytest.mark.full)
        for mode in MODES
        for begun in (True, False)
    ],
)
def test_an_append_that_fails_at_any_call_leaves_a_log_that_goes_on(tmp_path, mode, begun):
    base = tmp_path / "base"
    base.mkdir()
    if begun:
        append(base / "r.log", entry(0), KEY, TRUSTED)
    heads, nth = set(), 1
    while True:
        folder = tmp_path / f"at-{nth}"
        shutil.copytree(base, folder)
        path = folder / "r.log"
        faults = attempted(path, 1, nth, mode)
        if not faults.reached:
            break
        if begun:  # whoever reads now sees the old log or the new one
            heads.add(len(read_log(path, TRUSTED).entries))
            noted = read_log(path, TRUSTED).checkpoint
        check_log(path, TRUSTED)
        append(path, entry(2), KEY, TRUSTED)
        log = read_log(path, TRUSTED)
        releases = [one["run_id"] for one in log.entries]
        assert releases in (
            [entry(n)["run_id"] for n in numbers]
            for numbers in ([0, 1, 2] if begun else [1, 2], [0, 2] if begun else [2])
        )
        assert not log.under_way
        if begun:
            assert log.contradicts(noted) is None
        nth += 1
    assert nth > 8
    assert heads == ({1, 2} if begun else set())


def test_a_full_disk_names_the_log_and_leaves_it(path, monkeypatch):
    before = path.read_bytes()
    real = os.write

    def full(handle, data):
        return real(handle, data[:20] if bytes(data).startswith(b'{"created"') else data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match="it cannot be written"):
        append(path, entry(7), KEY, TRUSTED)
    assert path.read_bytes() == before


def test_the_name_of_a_run_is_its_id_without_the_random_end():
    assert name_of("clinic-notes-0123456789ab") == "clinic-notes"
    for whole in ("run", "clinic-0123456789aB", "-0123456789ab", "clinic-0123456789a"):
        assert name_of(whole) == whole


def test_only_plain_files_of_a_sane_size_are_read(path, tmp_path):
    """A pipe would be waited for without end."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"log .*pipe: it is no plain file|log .*plain file"):
        read_log(tmp_path / "pipe", TRUSTED)
    for odd in (tmp_path / "pipe", tmp_path):
        for work in (lambda odd=odd: read_head(odd), lambda odd=odd: Listing.of(path, odd)):
            with pytest.raises(UserError, match=r"^head .*it is no plain file"):
                work()
        with pytest.raises(UserError, match=r"^proof .*it is no plain file"):
            _read(odd)
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", MAX_PROOF_BYTES + 1)
    with pytest.raises(IntegrityError, match="more than the 8,388,608 bytes of a proof"):
        _read(tmp_path / "large")
    with pytest.raises(IntegrityError, match="more than the 1,048,576 bytes of a head"):
        read_head(tmp_path / "large")


def test_what_is_no_head_is_a_problem_of_the_listing_with_its_path(path, tmp_path):
    (tmp_path / "bad").write_bytes(b"\xff")
    listing = Listing.of(path, tmp_path / "bad")
    assert not listing.ok
    assert f"{tmp_path}/bad: signed note" in listing.text()
    assert listing.noted["size"] is None


def test_where_no_key_is_trusted_the_message_says_so(path):
    with pytest.raises(IntegrityError, match="no key is trusted"):
        read_log(path, {})
