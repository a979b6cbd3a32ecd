"""One sealed file with its recipients beside it."""

import errno
import io
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from dpmlm.artifacts import (
    Identity,
    IntegrityError,
    UserError,
    encrypt_bytes,
    new_identity,
    open_sealed,
    seal,
    sealed,
)
from dpmlm.artifacts.recipients import WrappedKey

CONTEXT = b"tests/sealed"
TEXT = b"The patient was seen on Monday. " * 3000


@pytest.fixture(scope="module")
def identity() -> Identity:
    return new_identity()


def test_every_kind_of_source(tmp_path: Path, identity: Identity) -> None:
    (tmp_path / "plain").write_bytes(TEXT)
    sources: list[bytes | Path | BinaryIO] = [TEXT, tmp_path / "plain", io.BytesIO(TEXT)]
    for number, source in enumerate(sources):
        target = tmp_path / f"{number}.sealed"
        seal(source, target, [identity.recipient], context=CONTEXT)
        assert (tmp_path / f"{number}.sealed.recipients").is_file()
        assert TEXT[:20] not in target.read_bytes()
        with open_sealed(target, [identity], context=CONTEXT) as reader:
            assert reader.read() == TEXT
            assert reader.seek(-10, io.SEEK_END) == len(TEXT) - 10


def test_refusals(tmp_path: Path, identity: Identity) -> None:
    target = tmp_path / "f.sealed"
    seal(TEXT, target, [identity.recipient], context=CONTEXT)
    with pytest.raises(UserError, match="use the identity file of a recipient"):
        open_sealed(target, [new_identity()], context=CONTEXT)
    with pytest.raises(IntegrityError, match="another context"):
        open_sealed(target, [identity], context=b"tests/other")
    with pytest.raises(UserError, match="No such file"):
        open_sealed(tmp_path / "absent", [identity], context=CONTEXT)
    whole = target.read_bytes()
    for offset, place in ((0, "header"), (40, "header"), (20_000, "chunk 1 at offset 16456")):
        changed = bytearray(whole)
        changed[offset] ^= 1
        target.write_bytes(changed)
        with pytest.raises(IntegrityError, match=rf"f\.sealed, {place}"):
            open_sealed(target, [identity], context=CONTEXT).read()
    target.unlink()
    with pytest.raises(UserError, match="No such file"):
        open_sealed(target, [identity], context=CONTEXT)


def test_recipients_of_another_file_do_not_fit(tmp_path: Path, identity: Identity) -> None:
    for name in ("a", "b"):
        seal(TEXT, tmp_path / name, [identity.recipient], context=CONTEXT)
    os.replace(tmp_path / "b.recipients", tmp_path / "a.recipients")
    with pytest.raises(IntegrityError, match="commitment"):
        open_sealed(tmp_path / "a", [identity], context=CONTEXT)


def earlier_pair(target: Path, text: bytes, identity: Identity) -> None:
    """As earlier versions wrote it: its list names no payload."""
    key = bytes(range(32))
    target.write_bytes(encrypt_bytes(key, text, context=CONTEXT))
    listing = WrappedKey.wrap(key, [identity.recipient], label="file", context=CONTEXT)
    target.with_name(target.name + ".recipients").write_bytes(listing.to_bytes())


def test_pairs_of_earlier_versions_open(tmp_path: Path, identity: Identity) -> None:
    target = tmp_path / "f"
    earlier_pair(target, b"earlier", identity)
    with open_sealed(target, [identity], context=CONTEXT) as reader:
        assert reader.read() == b"earlier"
    # A newer list was written, and its payload never came.
    seal(b"new", tmp_path / "g", [identity.recipient], context=CONTEXT)
    os.replace(tmp_path / "g.recipients", tmp_path / "f.recipients.next")
    with open_sealed(target, [identity], context=CONTEXT) as reader:
        assert reader.read() == b"earlier"
    # Its payload came, and the list had no time to move.
    os.replace(tmp_path / "g", target)
    with open_sealed(target, [identity], context=CONTEXT) as reader:
        assert reader.read() == b"new"
    seal(b"newest", target, [identity.recipient], context=CONTEXT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "f.recipients"]


def test_a_pair_that_is_replaced_while_it_is_opened(
    tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The payload was open already when the list of the next one took its place."""
    target = tmp_path / "f"
    seal(b"old", target, [identity.recipient], context=CONTEXT)
    listing, times = sealed._listing, []

    def late(path: Path, salt: bytes) -> tuple[Path, WrappedKey]:
        if not times:
            times.append(1)
            seal(b"new", target, [identity.recipient], context=CONTEXT)
        return listing(path, salt)

    monkeypatch.setattr(sealed, "_listing", late)
    with open_sealed(target, [identity], context=CONTEXT) as reader:
        assert reader.read() == b"new"


@pytest.mark.parametrize("nth", [1, 2])
def test_a_full_disk_leaves_the_earlier_pair(
    tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """The disk fills at the payload, or at the listing."""
    target = tmp_path / "f"
    seal(b"first", target, [identity.recipient], context=CONTEXT)
    real, calls = os.fsync, []

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match="No space left"):
        seal(b"second", target, [identity.recipient], context=CONTEXT)
    monkeypatch.undo()
    with open_sealed(target, [identity], context=CONTEXT) as reader:
        assert reader.read() == b"first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "f.recipients"]


def test_no_recipient_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0 recipients"):
        seal(TEXT, tmp_path / "f", [], context=CONTEXT)
    assert list(tmp_path.iterdir()) == []
