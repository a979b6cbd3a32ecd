"""The chunk format: a naive twin, vectors that must fail, random access."""

import hashlib
import hmac
import io
import os
import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dpmlm.artifacts import IntegrityError, SealedWriter, decrypt_bytes, encrypt_bytes
from dpmlm.artifacts.chunks import SealedReader, first_damage

KEY = bytes(range(32))
CONTEXT = b"tests/one"
CHUNK = 16_384
SEALED = CHUNK + 16
HEADER = 56
SIZES = [
    0,
    1,
    15,
    CHUNK - 1,
    CHUNK,
    CHUNK + 1,
    2 * CHUNK,
    3 * CHUNK + 7,
    70 * CHUNK,
    150 * CHUNK + 3,
]


def text(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# A second implementation, as slow and literal as the description allows.


def naive_schedule(key: bytes, salt: bytes, context: bytes) -> tuple[bytes, bytes, bytes]:
    info = b"c2sp.org/chunked-encryption@v1+" + b"AEAD_AES_256_GCM" + b"\x00" + salt + context
    one = hmac.new(key, info + b"\x01", hashlib.sha512).digest()
    two = hmac.new(key, one + info + b"\x02", hashlib.sha512).digest()
    okm = one + two
    return okm[:32], okm[32:44], okm[44:76]


def naive_nonce(base: bytes, number: int) -> bytes:
    return bytes(a ^ b for a, b in zip(base, number.to_bytes(12, "big"), strict=True))


def naive_encrypt(
    key: bytes, data: bytes, context: bytes, *, salt: bytes, pieces: list[bytes] | None = None
) -> bytes:
    """`pieces` overrides how the plaintext is cut, for messages that no writer may produce."""
    aead_key, base, commitment = naive_schedule(key, salt, context)
    if pieces is None:
        pieces = [data[i : i + CHUNK] for i in range(0, len(data) + 1, CHUNK)]
    out = salt + commitment
    for number, piece in enumerate(pieces):
        out += AESGCM(aead_key).encrypt(naive_nonce(base, number), piece, b"")
    return out


def naive_decrypt(key: bytes, blob: bytes, context: bytes) -> bytes:
    salt, commitment, body = blob[:24], blob[24:56], blob[56:]
    aead_key, base, expected = naive_schedule(key, salt, context)
    assert commitment == expected
    out = b""
    for number, start in enumerate(range(0, len(body), SEALED)):
        piece = body[start : start + SEALED]
        out += AESGCM(aead_key).decrypt(naive_nonce(base, number), piece, b"")
    return out


def blob_of(data: bytes) -> bytes:
    return encrypt_bytes(KEY, data, context=CONTEXT)


def chunks_of(blob: bytes) -> tuple[bytes, list[bytes]]:
    body = blob[HEADER:]
    return blob[:HEADER], [body[i : i + SEALED] for i in range(0, len(body), SEALED)]


@pytest.mark.parametrize("size", SIZES)
def test_twin_reads_ours_and_ours_reads_the_twin(size: int) -> None:
    data, salt = text(size), bytes(24)
    blob, twins = blob_of(data), naive_encrypt(KEY, data, CONTEXT, salt=salt)
    assert len(blob) == len(twins)
    assert naive_decrypt(KEY, blob, CONTEXT) == data
    assert decrypt_bytes(KEY, blob, context=CONTEXT) == data
    assert decrypt_bytes(KEY, twins, context=CONTEXT) == data


def test_format_vector() -> None:
    """The bytes of one message, fixed: a change of the format cannot pass unseen."""
    blob = naive_encrypt(KEY, text(CHUNK), CONTEXT, salt=bytes(range(24)))
    commitment = "0c0a66f3c1bae7593c0bc11d5f9f6984c6fb4e4c0ca0739b50fcdd7f9139dab2"
    whole = "9803e3da2ee14854023faacece177dd2ce3011a117288e54e971680e6ac84890"
    assert (blob[24:56].hex(), hashlib.sha256(blob).hexdigest()) == (commitment, whole)
    assert decrypt_bytes(KEY, blob, context=CONTEXT) == text(CHUNK)


def test_salt_is_fresh_for_every_message() -> None:
    assert len({blob_of(b"same")[:24] for _ in range(20)}) == 20


@pytest.mark.parametrize("steps", [[1], [CHUNK], [5, CHUNK - 5, 1], [100_000, 3], [7_777]])
def test_writer_gives_the_same_message_however_it_is_fed(steps: list[int]) -> None:
    data = text(20_000 if steps == [1] else 90 * CHUNK + 11)
    out = io.BytesIO()
    writer = SealedWriter(out, KEY, context=CONTEXT)
    at = turn = 0
    while at < len(data):
        step = steps[turn % len(steps)]
        assert writer.write(data[at : at + step]) == len(data[at : at + step])
        at, turn = at + step, turn + 1
    writer.finish()
    writer.finish()
    blob = out.getvalue()
    assert decrypt_bytes(KEY, blob, context=CONTEXT) == data
    assert blob == naive_encrypt(KEY, data, CONTEXT, salt=blob[:24])
    assert writer.digest == "sha256:" + hashlib.sha256(blob).hexdigest()
    assert writer.size == len(blob)
    with pytest.raises(ValueError, match="finished"):
        writer.write(b"more")


def test_unfinished_message_is_refused() -> None:
    for size in (0, 5, CHUNK, 3 * CHUNK):
        out = io.BytesIO()
        writer = SealedWriter(out, KEY, context=CONTEXT)
        writer.write(text(size))
        writer.close()
        with pytest.raises(IntegrityError, match="truncated"):
            decrypt_bytes(KEY, out.getvalue(), context=CONTEXT)


def broken_messages() -> dict[str, tuple[bytes, str]]:
    """Messages that no reader may accept, and what its error says."""
    data = text(3 * CHUNK + 100)
    blob = blob_of(data)
    head, parts = chunks_of(blob)
    other_head, other = chunks_of(blob_of(data))
    exact_head, exact = chunks_of(blob_of(text(2 * CHUNK)))
    salt = bytes(24)
    full = [data[:CHUNK], data[CHUNK : 2 * CHUNK]]
    flipped = bytes([blob[30] ^ 1])
    return {
        "nothing": (b"", "truncated"),
        "header cut": (blob[:55], "truncated"),
        "header alone": (blob[:56], "truncated"),
        "header and 15 bytes": (blob[:71], "truncated"),
        "bad commitment": (blob[:30] + flipped + blob[31:], "commitment"),
        "salt of another message": (other_head[:24] + blob[24:], "commitment"),
        "header of another message": (other_head + blob[56:], "chunk 3 .the last. at offset 49256"),
        "cut at a chunk": (head + b"".join(parts[:3]), "truncated"),
        "cut at the first chunk": (head + parts[0], "truncated"),
        "cut inside a chunk": (
            blob[: HEADER + SEALED + 5000],
            "chunk 1 .the last. at offset 16456",
        ),
        "cut 5 bytes into a chunk": (blob[: HEADER + SEALED + 5], "truncated"),
        "cut inside the last chunk": (blob[:-1], "chunk 3 .the last."),
        "empty last chunk cut off": (exact_head + b"".join(exact[:2]), "truncated"),
        "swapped": (head + parts[1] + parts[0] + parts[2] + parts[3], "chunk 0 at offset 56:"),
        "duplicated": (head + parts[0] + parts[0] + b"".join(parts[1:]), "chunk 4 .the last."),
        "first dropped": (head + b"".join(parts[1:]), "chunk 2 .the last."),
        "chunk of another message": (
            head + parts[0] + other[1] + parts[2] + parts[3],
            "chunk 1 at offset 16456",
        ),
        "full chunk appended": (head + b"".join(parts) + parts[0], "chunk 4 .the last."),
        "last chunk appended again": (blob + parts[3], "chunk 3 .the last."),
        "one byte appended": (blob + b"\x00", "chunk 3 .the last."),
        "final chunk of full 16 KiB": (
            naive_encrypt(KEY, b"", CONTEXT, salt=salt, pieces=full),
            "truncated",
        ),
        "short chunk in the middle": (
            naive_encrypt(KEY, b"", CONTEXT, salt=salt, pieces=[data[:100], data[:CHUNK], b""]),
            "chunk 1 .the last.|chunk 0",
        ),
    }


@pytest.mark.parametrize("case", sorted(broken_messages()))
def test_broken_message_is_refused_and_the_place_named(case: str) -> None:
    blob, message = broken_messages()[case]
    with pytest.raises(IntegrityError, match=message) as caught:
        decrypt_bytes(KEY, blob, context=CONTEXT, name="some/file")
    assert "some/file" in caught.value.given


def test_wrong_key_and_wrong_context_are_refused() -> None:
    blob = blob_of(b"message")
    for key, context in ((bytes(32), CONTEXT), (KEY, b"tests/two"), (KEY, b"")):
        with pytest.raises(IntegrityError, match="header, offset 0 to 56: its commitment"):
            decrypt_bytes(key, blob, context=context)
    with pytest.raises(ValueError, match="32 bytes"):
        encrypt_bytes(b"short", b"", context=CONTEXT)


def test_every_header_byte_counts() -> None:
    blob = blob_of(b"message")
    for offset in range(HEADER):
        changed = bytearray(blob)
        changed[offset] ^= 1
        with pytest.raises(IntegrityError, match="header, offset 0 to 56"):
            decrypt_bytes(KEY, bytes(changed), context=CONTEXT)


def test_a_changed_byte_anywhere_is_found_in_its_chunk() -> None:
    blob = blob_of(text(5 * CHUNK + 321))
    draw = random.Random(7)
    for offset in draw.sample(range(HEADER, len(blob)), 150):
        changed = bytearray(blob)
        changed[offset] ^= 1 << draw.randrange(8)
        chunk = (offset - HEADER) // SEALED
        place = rf"chunk {chunk}( \(the last\))? at offset {HEADER + chunk * SEALED}:"
        with pytest.raises(IntegrityError, match=place):
            decrypt_bytes(KEY, bytes(changed), context=CONTEXT)


def test_random_access_equals_slices() -> None:
    data = text(9 * CHUNK + 77)
    blob = blob_of(data)
    draw = random.Random(3)
    edges = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, len(data) - 1, len(data), len(data) + 9]
    with SealedReader(io.BytesIO(blob), KEY, context=CONTEXT, name="x") as reader:
        assert reader.size == len(data)
        for _ in range(400):
            start = draw.choice([*edges, draw.randrange(len(data))])
            size = draw.choice([0, 1, 100, CHUNK, 3 * CHUNK, draw.randrange(len(data))])
            assert reader.seek(start) == start
            assert reader.read(size) == data[start : start + size]
            assert reader.tell() == max(start, min(start + size, len(data)))
        assert reader.seek(-7, io.SEEK_END) == len(data) - 7
        assert reader.read() == data[-7:]
        assert reader.seek(-5, io.SEEK_CUR) == len(data) - 5
        with pytest.raises(ValueError, match="before the start"):
            reader.seek(-1)
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


def test_reader_only_needs_the_chunks_that_are_read() -> None:
    data = text(6 * CHUNK + 1)
    changed = bytearray(blob_of(data))
    changed[HEADER + 2 * SEALED + 9] ^= 1
    with SealedReader(io.BytesIO(bytes(changed)), KEY, context=CONTEXT, name="x") as reader:
        reader.seek(3 * CHUNK)
        assert reader.read() == data[3 * CHUNK :]
        reader.seek(2 * CHUNK + 5)
        with pytest.raises(IntegrityError, match="chunk 2 at"):
            reader.read(1)


def test_nothing_unauthenticated_is_left_in_the_callers_buffer() -> None:
    data = text(4 * CHUNK)
    changed = bytearray(blob_of(data))
    changed[HEADER + SEALED + SEALED - 1] ^= 1
    buffer = bytearray(4 * CHUNK)
    with SealedReader(io.BytesIO(bytes(changed)), KEY, context=CONTEXT, name="x") as reader:
        with pytest.raises(IntegrityError, match="chunk 1 "):
            reader.readinto(buffer)
    assert buffer == bytes(4 * CHUNK)


def test_a_failed_chunk_is_not_served_from_the_cache() -> None:
    data = text(3 * CHUNK + 5)
    changed = bytearray(blob_of(data))
    changed[HEADER + SEALED] ^= 1
    with SealedReader(io.BytesIO(bytes(changed)), KEY, context=CONTEXT, name="x") as reader:
        for _ in range(2):
            reader.seek(CHUNK + 3)
            with pytest.raises(IntegrityError, match="chunk 1 "):
                reader.read(10)
        # The last chunk was cached when the reader was opened, and its bytes are gone since.
        reader.seek(-3, io.SEEK_END)
        assert reader.read() == data[-3:]


def test_buffered_lines(tmp_path: Path) -> None:
    lines = [f"line {i} " + "x" * (i % 5000) + "\n" for i in range(60)]
    (tmp_path / "f").write_bytes(blob_of("".join(lines).encode()))
    raw = open(tmp_path / "f", "rb", buffering=0)  # noqa: SIM115
    reader = SealedReader(raw, KEY, context=CONTEXT, name="f")
    with io.TextIOWrapper(io.BufferedReader(reader), encoding="utf-8") as file:
        assert list(file) == lines
    assert raw.closed


def test_a_file_that_shrinks_under_the_reader_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(blob_of(text(3 * CHUNK)))
    raw = open(path, "rb", buffering=0)  # noqa: SIM115
    with SealedReader(raw, KEY, context=CONTEXT, name="f") as reader:
        whole = bytearray(3 * CHUNK)
        assert reader.readinto(whole) == len(whole)
        os.truncate(path, HEADER + SEALED + 10)
        reader.seek(0)
        # What an earlier read left in the reader's own buffer must not stand in for the bytes.
        with pytest.raises(IntegrityError, match="chunk 1 "):
            reader.readinto(whole)


def test_first_damage_names_the_first_of_two() -> None:
    changed = bytearray(blob_of(text(100 * CHUNK)))
    changed[HEADER + 70 * SEALED] ^= 1
    changed[HEADER + 80 * SEALED] ^= 1

    def reader() -> SealedReader:
        return SealedReader(io.BytesIO(bytes(changed)), KEY, context=CONTEXT, name="x")

    damage = first_damage(reader)
    assert damage is not None
    assert "chunk 70 at offset" in damage.given
    changed[HEADER + 70 * SEALED] ^= 1
    changed[HEADER + 80 * SEALED] ^= 1
    assert first_damage(reader) is None
