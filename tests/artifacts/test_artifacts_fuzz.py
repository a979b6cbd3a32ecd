"""Random input for a fixed time: what reads untrusted bytes takes the right ones or says no.

A fraction of a second each in the fast suite, a minute each in the full one; the seeds are fixed,
so the longer run begins with the shorter one. `FUZZ_SECONDS` sets another time.
"""

import functools
import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import pytest
import safetensors
import safetensors.torch
from cobblestone import CHUNK, HEADER, SEALED, oracle_opens
from fuzzing import JSON, TIMES, fuzz, spoilt

from dpmlm.artifacts import (
    IntegrityError,
    SealedReader,
    SealedTensors,
    UserError,
    atomic_write,
    canonical_json,
    decrypt_bytes,
    encrypt_bytes,
    load_identity,
    load_recipient,
    load_secret_key,
    load_signing_key,
    load_verify_key,
    new_identity,
    new_signing_key,
    open_envelope,
    sign_envelope,
)
from dpmlm.artifacts.keys import _VERSIONS, create_keys, read_key_file
from dpmlm.artifacts.recipients import WrappedKey

KEY = bytes(range(32))
CONTEXT = b"tests/fuzz"
PLAIN = {size: (bytes(range(256)) * 200)[:size] for size in (0, 5, CHUNK, 3 * CHUNK - 1, 50_000)}
MESSAGES = {size: encrypt_bytes(KEY, data, context=CONTEXT) for size, data in PLAIN.items()}

CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("xor"), st.integers(0, 1 << 20), st.integers(1, 255)),
        st.tuples(st.just("cut"), st.integers(0, 1 << 20)),
        st.tuples(st.just("cut at"), st.integers(0, 8)),
        st.tuples(st.just("append"), st.binary(max_size=40)),
        st.tuples(st.just("insert"), st.integers(0, 1 << 20), st.binary(max_size=20)),
        st.tuples(st.just("swap"), st.integers(0, 8), st.integers(0, 8)),
        st.tuples(st.just("double"), st.integers(0, 8)),
        st.tuples(st.just("drop"), st.integers(0, 8)),
        st.tuples(st.just("other header"), st.sampled_from(sorted(MESSAGES))),
    ),
    max_size=3,
)


def changed(blob: bytes, changes: list[tuple[Any, ...]]) -> bytes:
    for what, *how in changes:
        head, body = blob[:HEADER], blob[HEADER:]
        parts = [body[i : i + SEALED] for i in range(0, len(body), SEALED)]
        if what == "xor" and blob:
            at = how[0] % len(blob)
            blob = blob[:at] + bytes([blob[at] ^ how[1]]) + blob[at + 1 :]
        elif what == "cut":
            blob = blob[: how[0] % (len(blob) + 1)]
        elif what == "cut at":
            blob = head + b"".join(parts[: how[0]])
        elif what == "append":
            blob += how[0]
        elif what == "insert":
            at = how[0] % (len(blob) + 1)
            blob = blob[:at] + how[1] + blob[at:]
        elif what == "other header":
            blob = MESSAGES[how[0]][:HEADER] + body
        elif parts:
            i = how[0] % len(parts)
            if what == "swap":
                j = how[1] % len(parts)
                parts[i], parts[j] = parts[j], parts[i]
            elif what == "double":
                parts.insert(i, parts[i])
            elif what == "drop":
                del parts[i]
            blob = head + b"".join(parts)
    return blob


def check_message(size: int, changes: list[tuple[Any, ...]]) -> None:
    blob = changed(MESSAGES[size], changes)
    whole = blob == MESSAGES[size]
    assert oracle_opens(KEY, blob, CONTEXT) is whole
    errors = []
    for read in (in_memory, through_reader):
        try:
            data = read(blob)
        except IntegrityError as error:
            errors.append(str(error))
        else:
            assert whole
            assert data == PLAIN[size]
    assert len(errors) == (0 if whole else 2)
    assert len(set(errors)) < 2  # both name the same place


def in_memory(blob: bytes) -> bytes:
    return decrypt_bytes(KEY, blob, context=CONTEXT, name="f")


def through_reader(blob: bytes) -> bytes:
    with SealedReader(io.BytesIO(blob), KEY, context=CONTEXT, name="f") as reader:
        return reader.readall()


ENTRIES = st.dictionaries(
    st.sampled_from(["a", "b", "c", "__metadata__"]),
    JSON
    | st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["U8", "F32", "F64", "BOOL", "F3"]),
            "shape": st.lists(st.integers(-1, 9) | JSON, max_size=2),
            "data_offsets": st.lists(st.integers(-1, 24), min_size=2, max_size=2),
        }
    ),
    max_size=3,
)


def check_header(header: dict[str, Any], room: int, spoilt: bytes) -> None:
    spelled = json.dumps(header).encode() + spoilt
    content = len(spelled).to_bytes(8, "little") + spelled + bytes(range(room))
    blob = encrypt_bytes(KEY, content, context=CONTEXT)
    reader = SealedReader(io.BytesIO(blob), KEY, context=CONTEXT, name="f")
    try:
        ours = SealedTensors(reader).get_tensors()
    except IntegrityError:
        return
    theirs = safetensors.torch.load(content)  # what we take, they take
    assert {name: (t.dtype, t.shape) for name, t in ours.items()} == {
        name: (t.dtype, t.shape) for name, t in theirs.items()
    }


IDENTITY = new_identity()
LISTING = WrappedKey.wrap(KEY, [IDENTITY.recipient], label="file", context=CONTEXT).to_bytes()


def check_listing(content: bytes) -> None:
    try:
        wrapped = WrappedKey.parse(content, name="f")
        key = wrapped.unwrap([IDENTITY], context=CONTEXT, name="f")
    except UserError:
        assert content != LISTING
    else:
        assert content == LISTING
        assert key == KEY


SIGNER = new_signing_key()
ENVELOPE = canonical_json(sign_envelope({"a": 1}, "application/json", [SIGNER]))


def check_envelope(content: bytes) -> None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return
    try:
        payload = open_envelope(value, {SIGNER.verify_key.key_id: SIGNER.verify_key})
    except UserError:
        assert value != json.loads(ENVELOPE)
    else:
        assert value == json.loads(ENVELOPE)
        assert payload == {"a": 1}


def check_bytes(blob: bytes) -> None:
    assert not oracle_opens(KEY, blob, CONTEXT)
    with pytest.raises(IntegrityError):
        in_memory(blob)


FORMATS = [f"{kind}/{version}" for kind in sorted(_VERSIONS) for version in range(4)]
LOADERS = (load_identity, load_recipient, load_signing_key, load_verify_key, load_secret_key)


@functools.cache
def key_files() -> dict[str, bytes]:
    """A whole file of every kind, with and without a passphrase."""
    folder = Path(tempfile.mkdtemp())
    create_keys(folder / "plain", roles=["trainer", "approver"])
    cheap = {"m": 64, "t": 1, "p": 1}
    with mock.patch.dict("dpmlm.artifacts.passphrase.COST", cheap):
        create_keys(folder / "sealed", roles=["consumer", "approver"], passphrase="x" * 12)
    files = {f"{path.parent.name}/{path.name}": path for path in folder.glob("*/*.*")}
    contents = {name: path.read_bytes() for name, path in sorted(files.items())}
    shutil.rmtree(folder)
    return contents


def check_key_file(content: bytes) -> None:
    """Each loader gives a key or a UserError, and of whole files at most one takes each."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.key"
        with atomic_write(path, mode=0o600) as file:
            file.write(content)
        taken = [load.__name__ for load in (read_key_file, *LOADERS) if _takes(load, path)]
    assert len(taken) < 3, taken
    if taken:
        assert taken[0] == "read_key_file"


def _takes(load: Any, path: Path) -> bool:
    try:
        found = load(path)
    except UserError:
        return False
    for part in ("role", "kem", "key_id", "protected"):
        getattr(found, part, None)
    return True


TARGETS: dict[str, tuple[Any, ...]] = {
    "message": (check_message, st.sampled_from(sorted(MESSAGES)), CHANGES),
    "bytes": (check_bytes, st.binary(max_size=200)),
    "tensors": (check_header, ENTRIES, st.integers(0, 24), st.sampled_from([b"", b" ", b"}"])),
    "recipients": (check_listing, spoilt(LISTING)),
    "envelope": (check_envelope, spoilt(ENVELOPE)),
    "keys": (
        check_key_file,
        st.sampled_from(sorted(key_files())).flatmap(lambda name: spoilt(key_files()[name]))
        | st.fixed_dictionaries(
            {"format": st.sampled_from(FORMATS) | JSON},
            optional=dict.fromkeys(("kem", "role", "key", "key_id", "sealed", "argon2id"), JSON),
        ).map(lambda fields: json.dumps(fields).encode()),
    ),
}


@pytest.mark.parametrize("seconds", TIMES)
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_fuzz(target: str, seconds: float) -> None:
    check, *strategies = TARGETS[target]
    assert fuzz(seconds, check, *strategies) > 0
