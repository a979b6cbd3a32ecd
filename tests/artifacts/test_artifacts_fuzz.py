"""Random input for a fixed time: what reads untrusted bytes takes the right ones or says no.

A fraction of a second each in the fast suite, a minute each in the full one; the seeds are fixed,
so the longer run begins with the shorter one. `FUZZ_SECONDS` sets another time.
"""

import io
import json
import os
import time
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import safetensors
import safetensors.torch
from cobblestone import CHUNK, HEADER, SEALED, oracle_opens
from hypothesis import HealthCheck, Verbosity, given, seed, settings

from dpmlm.artifacts import (
    IntegrityError,
    SealedReader,
    SealedTensors,
    UserError,
    canonical_json,
    decrypt_bytes,
    encrypt_bytes,
    new_identity,
    new_signing_key,
    open_envelope,
    sign_envelope,
)
from dpmlm.artifacts.recipients import WrappedKey

KEY = bytes(range(32))
CONTEXT = b"tests/fuzz"
TIMES = [
    pytest.param(float(os.environ.get("FUZZ_SECONDS", 0.3)), id="briefly"),
    pytest.param(60.0, id="long", marks=pytest.mark.full),
]
QUIETLY = settings(
    max_examples=40,
    database=None,
    deadline=None,
    verbosity=Verbosity.quiet,
    suppress_health_check=list(HealthCheck),
)


def fuzz(seconds: float, check: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> int:
    """Rounds of examples until the processor time is spent; how many rounds."""
    end, rounds = time.process_time() + seconds, 0
    while time.process_time() < end or not rounds:
        seed(rounds)(QUIETLY(given(*strategies)(check)))()
        rounds += 1
    return rounds


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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 1 << 70) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
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


def spoilt(content: bytes) -> st.SearchStrategy[bytes]:
    """`content`, some other bytes, and `content` with pieces replaced, doubled or gone."""
    place = st.integers(0, len(content))
    return st.one_of(
        st.just(content),
        st.binary(max_size=99),
        JSON.map(lambda value: json.dumps(value).encode()),
        st.tuples(place, place, st.binary(max_size=3)).map(
            lambda p: content[: min(p[:2])] + p[2] + content[max(p[:2]) :]
        ),
        st.tuples(place, st.integers(0, 4)).map(
            lambda p: content[: p[0]] + content[p[0] : p[0] + p[1]] * 2 + content[p[0] + p[1] :]
        ),
        st.tuples(place, st.integers(1, 255)).map(
            lambda p: bytes(b ^ p[1] if i == p[0] else b for i, b in enumerate(content))
        ),
    )


def check_bytes(blob: bytes) -> None:
    assert not oracle_opens(KEY, blob, CONTEXT)
    with pytest.raises(IntegrityError):
        in_memory(blob)


TARGETS: dict[str, tuple[Any, ...]] = {
    "message": (check_message, st.sampled_from(sorted(MESSAGES)), CHANGES),
    "bytes": (check_bytes, st.binary(max_size=200)),
    "tensors": (check_header, ENTRIES, st.integers(0, 24), st.sampled_from([b"", b" ", b"}"])),
    "recipients": (check_listing, spoilt(LISTING)),
    "envelope": (check_envelope, spoilt(ENVELOPE)),
}


@pytest.mark.parametrize("seconds", TIMES)
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_fuzz(target: str, seconds: float) -> None:
    check, *strategies = TARGETS[target]
    assert fuzz(seconds, check, *strategies) > 0
