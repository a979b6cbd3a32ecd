"""The chunk format: a naive twin, buffers, streams, random access, threads."""

import contextlib
import io
import json
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from cobblestone import CHUNK, HEADER, SEALED, naive_decrypt, naive_encrypt

from dpmlm.artifacts import (
    IntegrityError,
    SealedReader,
    SealedWriter,
    chunks,
    decrypt_bytes,
    encrypt_bytes,
)
from dpmlm.artifacts.chunks import decrypt_into, encrypt_into, first_damage, sealed_size

KEY = bytes(range(32))
CONTEXT = b"tests/one"
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


def blob_of(data: bytes) -> bytes:
    return encrypt_bytes(KEY, data, context=CONTEXT)


@pytest.mark.parametrize("size", SIZES)
def test_twin_reads_ours_and_ours_reads_the_twin(size: int) -> None:
    data, salt = text(size), bytes(24)
    blob, twins = blob_of(data), naive_encrypt(KEY, data, CONTEXT, salt=salt)
    assert len(blob) == len(twins)
    assert naive_decrypt(KEY, blob, CONTEXT) == data
    assert decrypt_bytes(KEY, blob, context=CONTEXT) == data
    assert decrypt_bytes(KEY, twins, context=CONTEXT) == data


def test_buffers_are_used_again() -> None:
    data, room = bytearray(3 * CHUNK), bytearray(sealed_size(3 * CHUNK) + 9)
    back = bytearray(3 * CHUNK + 5)
    for size in (3 * CHUNK, 2 * CHUNK + 7, 0, CHUNK):
        data[:size] = text(size)
        used = encrypt_into(KEY, memoryview(data)[:size], room, context=CONTEXT)
        assert used == sealed_size(size)
        message = memoryview(room)[:used]
        assert naive_decrypt(KEY, bytes(message), CONTEXT) == text(size)
        assert decrypt_into(KEY, message, back, context=CONTEXT) == size
        assert back[:size] == text(size)


def test_buffers_that_are_too_small() -> None:
    blob = blob_of(text(CHUNK + 5))
    with pytest.raises(ValueError, match=f"{len(blob)} bytes are needed"):
        encrypt_into(KEY, text(CHUNK + 5), bytearray(len(blob) - 1), context=CONTEXT)
    with pytest.raises(ValueError, match=f"{CHUNK + 5} bytes are needed"):
        decrypt_into(KEY, blob, bytearray(CHUNK + 4), context=CONTEXT)


@pytest.mark.parametrize("offset", [0, 40, HEADER, HEADER + 2 * SEALED - 1, -1])
def test_decrypting_into_a_buffer_leaves_zeros_or_the_message(offset: int) -> None:
    data = text(3 * CHUNK + 9)
    changed = bytearray(blob_of(data))
    changed[offset] ^= 1
    out = bytearray(b"\xff") * len(data)
    with pytest.raises(IntegrityError, match=r"header|chunk"):
        decrypt_into(KEY, changed, out, context=CONTEXT)
    assert out.strip(b"\xff").strip(b"\0") == b""  # the header is checked before it is touched


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
    assert writer.tell() == len(data)
    assert len(blob) == sealed_size(len(data))
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


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        encrypt_bytes(b"short", b"", context=CONTEXT)
    with pytest.raises(ValueError, match="32 bytes"):
        decrypt_bytes(b"short", bytes(72), context=CONTEXT)


def test_a_with_block_that_ends_well_finishes_the_message() -> None:
    out = io.BytesIO()
    with SealedWriter(out, KEY, context=CONTEXT) as writer:
        writer.write(b"whole")
    assert decrypt_bytes(KEY, out.getvalue(), context=CONTEXT) == b"whole"
    broken = io.BytesIO()
    with contextlib.suppress(KeyError), SealedWriter(broken, KEY, context=CONTEXT) as writer:
        writer.write(b"half")
        raise KeyError
    with pytest.raises(IntegrityError, match="truncated"):
        decrypt_bytes(KEY, broken.getvalue(), context=CONTEXT)


class Sipping(io.BytesIO):
    """Takes at most 1,000 bytes at a time, as an unbuffered file may."""

    def write(self, data: Any) -> int:
        return super().write(bytes(data)[:1000])


def test_a_sink_that_takes_less_than_it_is_given() -> None:
    out = Sipping()
    with SealedWriter(out, KEY, context=CONTEXT) as writer:
        writer.write(text(70 * CHUNK))
    assert decrypt_bytes(KEY, out.getvalue(), context=CONTEXT) == text(70 * CHUNK)


def test_no_message_has_more_than_2_to_the_38_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chunks.MAX_CHUNKS == 2**38

    class Huge(io.BytesIO):
        length = HEADER + 2**38 * SEALED + 16

        def seek(self, offset: int, whence: int = 0) -> int:
            return self.length if whence else super().seek(offset)

    with pytest.raises(IntegrityError, match="at most 274877906944"):
        SealedReader(Huge(), KEY, context=CONTEXT, name="x")
    monkeypatch.setattr(chunks, "MAX_CHUNKS", 3)
    assert decrypt_bytes(KEY, blob_of(text(3 * CHUNK - 1)), context=CONTEXT)
    writer = SealedWriter(io.BytesIO(), KEY, context=CONTEXT)
    writer.write(text(3 * CHUNK - 1))
    with pytest.raises(ValueError, match="at most 3 chunks"):
        writer.write(b"1")
    with pytest.raises(ValueError, match="at most 3 chunks"):
        blob_of(text(3 * CHUNK))


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


class Slow(io.BytesIO):
    """Lets other threads go first wherever they could do harm."""

    def seek(self, offset: int, whence: int = 0) -> int:
        found = super().seek(offset, whence)
        time.sleep(1e-4)
        return found


def test_threads_share_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv = os.preadv

    def slowly(*arguments: Any) -> int:
        got = preadv(*arguments)
        time.sleep(1e-4)
        return got

    monkeypatch.setattr(os, "preadv", slowly)
    data = text(40 * CHUNK + 77)
    (tmp_path / "f").write_bytes(blob_of(data))

    def read(reader: SealedReader, seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(20):
            start, size = draw.randrange(len(data)), draw.choice([1, 100, CHUNK, 5 * CHUNK + 3])
            buffer = bytearray(size)
            got = reader.read_at(start, buffer)
            assert buffer[:got] == data[start : start + size]

    file = open(tmp_path / "f", "rb", buffering=0)  # noqa: SIM115
    for raw in (file, Slow(blob_of(data))):
        with SealedReader(raw, KEY, context=CONTEXT, name="f") as reader:
            reader.seek(5)
            with ThreadPoolExecutor(4) as pool:
                for done in [pool.submit(read, reader, seed) for seed in range(4)]:
                    done.result()
            assert reader.tell() == 5


def test_threads_that_read_on_get_every_byte_once(tmp_path: Path) -> None:
    """They share one position, as in any file; no byte is lost, and none is another chunk's."""
    pieces = [number.to_bytes(4) * 250 for number in range(2000)]
    (tmp_path / "f").write_bytes(blob_of(b"".join(pieces)))
    raw = open(tmp_path / "f", "rb", buffering=0)  # noqa: SIM115
    found: list[bytes] = []
    start = threading.Barrier(4)

    def read() -> None:
        start.wait()
        while piece := reader.read(1000):
            found.append(piece)

    with SealedReader(raw, KEY, context=CONTEXT, name="f") as reader:
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(read) for _ in range(4)]:
                done.result()
    assert sorted(found) == pieces


def test_pyarrow_and_json_read_and_write(tmp_path: Path) -> None:
    table = pyarrow.table({"n": list(range(30_000)), "s": [f"word {n}" for n in range(30_000)]})
    with open(tmp_path / "t", "wb") as file, SealedWriter(file, KEY, context=CONTEXT) as writer:
        pyarrow.parquet.write_table(table, writer, row_group_size=5000)
    raw = open(tmp_path / "t", "rb", buffering=0)  # noqa: SIM115
    with SealedReader(raw, KEY, context=CONTEXT, name="t") as reader:
        assert pyarrow.parquet.read_table(reader).equals(table)
        assert pyarrow.parquet.read_table(reader, columns=["s"]).equals(table.select(["s"]))
    out = io.BytesIO()
    with SealedWriter(out, KEY, context=CONTEXT) as writer:
        text_file = io.TextIOWrapper(io.BufferedWriter(writer), encoding="utf-8")
        json.dump({"a": ["ü"] * 20_000}, text_file)
        text_file.flush()
        writer.finish()
    reader = SealedReader(io.BytesIO(out.getvalue()), KEY, context=CONTEXT, name="j")
    assert json.load(reader) == {"a": ["ü"] * 20_000}
