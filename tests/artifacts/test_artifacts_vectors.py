"""The files of tests/formats/chunks, against our readers and against the one of `cryptography`."""

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cobblestone import naive_encrypt, oracle_opens
from cryptography.cobblestone import Cobblestone256Decryptor

from dpmlm.artifacts import IntegrityError, SealedReader, decrypt_bytes

FILES = sorted((Path(__file__).parents[1] / "formats/chunks").glob("*.json"))
NEEDED = (
    "bad commitment", "wrong context", "wrong key", "truncated at a chunk",
    "truncated inside a chunk", "swapped", "duplicated", "full chunk appended",
    "final chunk of full 16 kib", "empty", "exactly 16 kib",
)  # fmt: skip


def plaintext(vector: dict[str, Any]) -> bytes:
    return bytes((7 * i + i // 251) % 256 for i in range(vector["plaintext_bytes"]))


def message(vector: dict[str, Any]) -> bytes:
    key, context = (bytes.fromhex(vector[name]) for name in ("key", "context"))
    data, pieces, at = plaintext(vector), None, 0
    if "pieces" in vector:
        pieces = []
        for size in vector["pieces"]:
            pieces.append(data[at : at + size])
            at += size
    sources = {
        source: naive_encrypt(key, data, context, salt=bytes.fromhex(vector[salt]), pieces=pieces)
        for source, salt in (("message", "salt"), ("other", "other_salt"))
        if salt in vector
    }
    parts = vector.get("parts", [["message", 0, None]])
    made = bytearray().join(sources[source][start:end] for source, start, end in parts)
    for offset, mask in vector.get("xor", []):
        made[offset] ^= mask
    return bytes(made)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_vector(path: Path) -> None:
    vector = json.loads(path.read_text())
    blob = message(vector)
    assert hashlib.sha256(blob).hexdigest() == vector["sha256"]
    key = bytes.fromhex(vector.get("open_with_key", vector["key"]))
    context = bytes.fromhex(vector.get("open_with_context", vector["context"]))

    def read() -> bytes:
        with SealedReader(io.BytesIO(blob), key, context=context, name="some/file") as reader:
            return reader.readall()

    assert oracle_opens(key, blob, context) is vector["opens"]
    if vector["opens"]:
        decryptor = Cobblestone256Decryptor(key, context)
        ours = decrypt_bytes(key, blob, context=context), read()
        theirs = decryptor.update(blob) + decryptor.finalize()
        assert {*ours, theirs} == {plaintext(vector)}
        return
    for way in (read, lambda: decrypt_bytes(key, blob, context=context, name="some/file")):
        with pytest.raises(IntegrityError, match=vector["error"]) as caught:
            way()
        assert caught.value.given.startswith("some/file, ")


def test_every_failure_has_its_vector() -> None:
    vectors = {json.loads(path.read_text())["what"] for path in FILES}
    assert set(NEEDED) <= vectors
    assert all(re.fullmatch(r"[a-z0-9-]+\.json", path.name) for path in FILES)
