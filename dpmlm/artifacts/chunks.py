"""Chunked authenticated encryption: the C2SP "chunked-encryption" format, instance Cobblestone-256.

Layout of a message, in bytes:

    salt 24 | commitment 32 | chunk 0 | chunk 1 | ... | final chunk

Every chunk but the last holds 16,384 bytes of plaintext and a 16-byte tag; the final one always
holds fewer, so a message of exactly 16 KiB has two chunks. Key, base nonce and commitment come
from the input key, the salt and the caller's context by HKDF-Expand with SHA-512; the nonce of a
chunk is the base nonce XOR its number. A chunk that was moved, copied, cut or changed does not
authenticate; a missing end shows in the length of the last chunk.

Errors name the message (`name`, mostly a path), the chunk and its offset in the encrypted bytes.
"""

import hashlib
import hmac
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from dpmlm.errors import IntegrityError

KEY_BYTES = 32
SALT_BYTES = 24
COMMITMENT_BYTES = 32
HEADER_BYTES = SALT_BYTES + COMMITMENT_BYTES
CHUNK_BYTES = 16_384
TAG_BYTES = 16
SEALED_CHUNK_BYTES = CHUNK_BYTES + TAG_BYTES
_NONCE_BYTES = 12
_BATCH_CHUNKS = 16
_INFO = b"c2sp.org/chunked-encryption@v1+" + b"AEAD_AES_256_GCM" + b"\x00"


@dataclass(frozen=True)
class _Schedule:
    """What one message derives from (input key, salt, context)."""

    cipher: AESGCM
    base_nonce: int
    commitment: bytes

    @classmethod
    def derive(cls, input_key: bytes, salt: bytes, context: bytes) -> "_Schedule":
        if len(input_key) != KEY_BYTES:
            raise ValueError(f"an input key has {KEY_BYTES} bytes, not {len(input_key)}")
        length = KEY_BYTES + _NONCE_BYTES + COMMITMENT_BYTES
        okm = HKDFExpand(hashes.SHA512(), length, _INFO + salt + context).derive(input_key)
        nonce = int.from_bytes(okm[KEY_BYTES : KEY_BYTES + _NONCE_BYTES])
        return cls(AESGCM(okm[:KEY_BYTES]), nonce, okm[KEY_BYTES + _NONCE_BYTES :])

    def nonce(self, chunk: int) -> bytes:
        return (self.base_nonce ^ chunk).to_bytes(_NONCE_BYTES)


def encrypt_bytes(input_key: bytes, data: bytes, *, context: bytes) -> bytes:
    """Encrypt `data` as one bare message under a 32-byte key; `context` must be given to decrypt.

    Source: C2SP chunked-encryption, instance Cobblestone-256.
    """
    out = io.BytesIO()
    writer = SealedWriter(out, input_key, context=context)
    writer.write(data)
    writer.finish()
    return out.getvalue()


def decrypt_bytes(
    input_key: bytes, blob: bytes, *, context: bytes, name: str = "encrypted bytes"
) -> bytes:
    """Decrypt what `encrypt_bytes` wrote; raises IntegrityError that names the place."""
    with SealedReader(io.BytesIO(blob), input_key, context=context, name=name) as reader:
        return reader.readall()


class SealedWriter(io.RawIOBase):
    """Encrypts a stream into `raw`. The message is whole only after `finish()`.

    Closing or dropping a writer does not finish it, so an interrupted message cannot be taken for
    a whole one. `digest` (sha256 of the encrypted bytes) and `size` (their number) are those of
    what was written so far.
    """

    def __init__(self, raw: BinaryIO, input_key: bytes, *, context: bytes) -> None:
        super().__init__()
        self.salt = os.urandom(SALT_BYTES)
        self.size = 0
        self._schedule = _Schedule.derive(input_key, self.salt, context)
        self._raw = raw
        self._hash = hashlib.sha256()
        self._chunk = 0
        self._pending = bytearray()
        self._out = bytearray(_BATCH_CHUNKS * SEALED_CHUNK_BYTES)
        self._finished = False
        self._emit(self.salt + self._schedule.commitment)

    @property
    def digest(self) -> str:
        """`sha256:` and the hex digest of the encrypted bytes written so far."""
        return "sha256:" + self._hash.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._finished:
            raise ValueError("write to a finished message")
        view = memoryview(data).cast("B")
        length, at = len(view), 0
        if self._pending:
            at = min(CHUNK_BYTES - len(self._pending), length)
            self._pending += view[:at]
            if len(self._pending) == CHUNK_BYTES:
                self._encrypt(memoryview(self._pending))
                self._pending = bytearray()
        whole = (length - at) // CHUNK_BYTES * CHUNK_BYTES
        self._encrypt(view[at : at + whole])
        self._pending += view[at + whole :]
        return length

    def finish(self) -> None:
        """Write the final chunk; a second call does nothing."""
        if not self._finished:
            self._finished = True
            self._emit(
                self._schedule.cipher.encrypt(
                    self._schedule.nonce(self._chunk), bytes(self._pending), None
                )
            )

    def _encrypt(self, whole: memoryview) -> None:
        """Encrypt whole chunks, a batch of them for each write, into one reused buffer."""
        out, cipher = memoryview(self._out), self._schedule.cipher
        for start in range(0, len(whole), _BATCH_CHUNKS * CHUNK_BYTES):
            batch = whole[start : start + _BATCH_CHUNKS * CHUNK_BYTES]
            count = len(batch) // CHUNK_BYTES
            for i in range(count):
                cipher.encrypt_into(
                    self._schedule.nonce(self._chunk),
                    batch[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES],
                    None,
                    out[i * SEALED_CHUNK_BYTES : (i + 1) * SEALED_CHUNK_BYTES],
                )
                self._chunk += 1
            self._emit(out[: count * SEALED_CHUNK_BYTES])

    def _emit(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)
        self._raw.write(data)


class SealedReader(io.RawIOBase):
    """A seekable plaintext view of one encrypted message; decrypts the chunks that are asked for.

    The commitment and the final chunk are checked when it is opened, so `size` (bytes of
    plaintext) is authentic from then on; every other chunk is checked when it is read. Wrap it in
    `io.BufferedReader` to read lines. One thread at a time. Closing it closes `raw`.
    Raises IntegrityError with `name`, chunk and offset.
    """

    def __init__(self, raw: BinaryIO, input_key: bytes, *, context: bytes, name: str) -> None:
        super().__init__()
        self.name = name
        self._raw = raw
        length = raw.seek(0, io.SEEK_END)
        raw.seek(0)
        header = raw.read(HEADER_BYTES)
        self.salt = header[:SALT_BYTES]
        final = (length - HEADER_BYTES) % SEALED_CHUNK_BYTES
        self._last = (length - HEADER_BYTES) // SEALED_CHUNK_BYTES
        if length < HEADER_BYTES + TAG_BYTES or final < TAG_BYTES:
            raise self._error(
                f"ends at offset {length}", "its final chunk is missing or cut: it is truncated"
            )
        self._schedule = _Schedule.derive(input_key, self.salt, context)
        if not hmac.compare_digest(header[SALT_BYTES:], self._schedule.commitment):
            raise self._error(
                f"header, offset 0 to {HEADER_BYTES}",
                "its commitment does not match: other key, other context, or changed bytes",
            )
        self.size = self._last * CHUNK_BYTES + final - TAG_BYTES
        self._position = 0
        self._encrypted = bytearray(_BATCH_CHUNKS * SEALED_CHUNK_BYTES)
        self._cached = -1
        self._cache = bytearray(CHUNK_BYTES)
        self._load(self._last)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} is before the start")
        self._position = base + offset
        return self._position

    def readall(self) -> bytes:
        out = bytearray(max(0, self.size - self._position))
        self.readinto(out)
        return bytes(out)

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position on, as far as the message goes, in one call."""
        self._check_open()
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(0, self.size - self._position))
        done = 0
        while done < wanted:
            chunk, start = divmod(self._position, CHUNK_BYTES)
            whole = min((wanted - done) // CHUNK_BYTES, _BATCH_CHUNKS)
            if start == 0 and whole:
                step = whole * CHUNK_BYTES
                self._decrypt(chunk, whole, view[done : done + step])
            else:
                self._load(chunk)
                step = min(CHUNK_BYTES - start, wanted - done)
                view[done : done + step] = memoryview(self._cache)[start : start + step]
            done += step
            self._position += step
        return done

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("read from a closed reader")

    def _load(self, chunk: int) -> None:
        """Bring one chunk, the final one too, into the cache."""
        if chunk != self._cached:
            self._cached = -1
            size = min(CHUNK_BYTES, self.size - chunk * CHUNK_BYTES)
            self._decrypt(chunk, 1, memoryview(self._cache)[:size])
            self._cached = chunk

    def _decrypt(self, first: int, count: int, out: memoryview) -> None:
        """Decrypt `count` consecutive chunks from `first` on straight into `out`."""
        sealed = memoryview(self._encrypted)[: len(out) + count * TAG_BYTES]
        self._raw.seek(HEADER_BYTES + first * SEALED_CHUNK_BYTES)
        _fill(self._raw, sealed)
        for i in range(count):
            piece = out[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES]
            at = i * SEALED_CHUNK_BYTES
            try:
                self._schedule.cipher.decrypt_into(
                    self._schedule.nonce(first + i),
                    sealed[at : at + len(piece) + TAG_BYTES],
                    None,
                    piece,
                )
            except InvalidTag:
                # The cipher writes before it checks the tag: nobody may see those bytes.
                out[:] = bytes(len(out))
                raise self._chunk_error(first + i) from None

    def _chunk_error(self, chunk: int) -> IntegrityError:
        offset = HEADER_BYTES + chunk * SEALED_CHUNK_BYTES
        last = " (the last)" if chunk == self._last else ""
        return self._error(
            f"chunk {chunk}{last} at offset {offset}",
            "it does not authenticate: bytes were changed, moved or cut",
        )

    def _error(self, place: str, rule: str) -> IntegrityError:
        return IntegrityError(f"{self.name}, {place}", rule, "restore the file from a good copy")


def first_damage(open_reader: Callable[[], SealedReader]) -> IntegrityError | None:
    """Read a whole message and return the error of its first damaged place, None if it is sound."""
    try:
        with open_reader() as reader:
            batch = bytearray(_BATCH_CHUNKS * CHUNK_BYTES)
            while reader.readinto(batch):
                pass
    except IntegrityError as error:
        return error
    return None


def _fill(raw: BinaryIO, view: memoryview) -> None:
    """Fill `view` from an unbuffered file, which may hand over less than it was asked for."""
    done = 0
    while done < len(view):
        got = raw.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            # The file shrank after it was opened: zeros fail to authenticate.
            view[done:] = bytes(len(view) - done)
            return
        done += got
