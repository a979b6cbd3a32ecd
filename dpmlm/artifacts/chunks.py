"""Chunked authenticated encryption: the C2SP "chunked-encryption" format, instance Cobblestone-256.

Layout of a message, in bytes:

    salt 24 | commitment 32 | chunk 0 | chunk 1 | ... | final chunk

Every chunk but the last holds 16,384 bytes of plaintext and a 16-byte tag; the final one always
holds fewer, so a message of exactly 16 KiB has two chunks. Key, base nonce and commitment come
from the input key, the salt and the caller's context by HKDF-Expand with SHA-512; the nonce of a
chunk is the base nonce XOR its number. A chunk that was moved, copied, cut or changed does not
authenticate; a missing end shows in the length of the last chunk.

Whole messages, one after the other, go through the implementation of `cryptography`; reading from
any place, and saying where a message is damaged, is done here.

Errors name the message (`name`, mostly a path), the chunk and its offset in the encrypted bytes.
"""

import hmac
import io
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
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
MAX_CHUNKS = 1 << 38
"""A message of more is refused by writers and readers."""
_NONCE_BYTES = 12
_BATCH_CHUNKS = 64
_INFO = b"c2sp.org/chunked-encryption@v1+" + b"AEAD_AES_256_GCM" + b"\x00"


@dataclass(frozen=True)
class _Schedule:
    """What one message derives from (input key, salt, context)."""

    cipher: AESGCM
    base_nonce: int
    commitment: bytes

    @classmethod
    def derive(cls, input_key: bytes, salt: bytes, context: bytes) -> "_Schedule":
        _check_key(input_key)
        length = KEY_BYTES + _NONCE_BYTES + COMMITMENT_BYTES
        okm = HKDFExpand(hashes.SHA512(), length, _INFO + salt + context).derive(input_key)
        nonce = int.from_bytes(okm[KEY_BYTES : KEY_BYTES + _NONCE_BYTES])
        return cls(AESGCM(okm[:KEY_BYTES]), nonce, okm[KEY_BYTES + _NONCE_BYTES :])

    def nonce(self, chunk: int) -> bytes:
        return (self.base_nonce ^ chunk).to_bytes(_NONCE_BYTES)


def sealed_size(size: int) -> int:
    """Bytes of the message that holds `size` bytes of plaintext."""
    return HEADER_BYTES + size + (size // CHUNK_BYTES + 1) * TAG_BYTES


def encrypt_into(input_key: bytes, data: Any, out: Any, *, context: bytes) -> int:
    """Encrypt `data` as one message into the buffer `out`; returns how many bytes it has.

    `data` is any buffer and `out` a writable one of at least `sealed_size(len(data))` bytes that
    does not overlap it (ValueError). Other threads go on meanwhile.
    """
    plain, sealed = memoryview(data).cast("B"), memoryview(out).cast("B")
    if len(sealed) < sealed_size(len(plain)):
        raise ValueError(f"{sealed_size(len(plain))} bytes are needed, `out` has {len(sealed)}")
    _check_key(input_key)
    _check_length(len(plain))
    encryptor = Cobblestone256Encryptor(input_key, context)
    done = encryptor.update_into(plain, sealed)
    final = encryptor.finalize()
    sealed[done : done + len(final)] = final
    return done + len(final)


def decrypt_into(
    input_key: bytes, blob: Any, out: Any, *, context: bytes, name: str = "encrypted bytes"
) -> int:
    """Decrypt one message into the buffer `out`; returns how many bytes of plaintext it has.

    `out` has room for all of it (ValueError) and does not overlap `blob`. Raises IntegrityError
    that names the first damaged place, and then leaves nothing but zeros where plaintext would be.
    """
    sealed, plain = memoryview(blob).cast("B"), memoryview(out).cast("B")
    _check_key(input_key)
    size = _plain_size(len(sealed), name)
    if len(plain) < size:
        raise ValueError(f"{size} bytes are needed, `out` has {len(plain)}")
    decryptor = Cobblestone256Decryptor(input_key, context)
    try:
        done = decryptor.update_into(sealed, plain)
        final = decryptor.finalize()
    except InvalidTag:
        plain[:size] = bytes(size)
        raise _damage(input_key, sealed, context, name) from None
    plain[done : done + len(final)] = final
    return done + len(final)


def encrypt_bytes(input_key: bytes, data: bytes, *, context: bytes) -> bytes:
    """Encrypt `data` as one bare message under a 32-byte key; `context` must be given to decrypt.

    Source: C2SP chunked-encryption, instance Cobblestone-256.
    """
    out = bytearray(sealed_size(len(data)))
    encrypt_into(input_key, data, out, context=context)
    return bytes(out)


def decrypt_bytes(
    input_key: bytes, blob: bytes, *, context: bytes, name: str = "encrypted bytes"
) -> bytes:
    """Decrypt what `encrypt_bytes` wrote; raises IntegrityError that names the place."""
    out = bytearray(_plain_size(len(blob), name))
    decrypt_into(input_key, blob, out, context=context, name=name)
    return bytes(out)


class Sink(Protocol):
    """Takes encrypted bytes; like an unbuffered file it may take less than it is given."""

    def write(self, data: Any, /) -> int: ...


class SealedWriter(io.RawIOBase):
    """Encrypts a stream into `raw`. The message is whole only after `finish()`.

    A `with` block that ends well finishes it. Closing or dropping a writer does not, so an
    interrupted message cannot be taken for a whole one. It cannot seek: what was encrypted is
    never encrypted again. `tell()` counts plaintext.
    """

    def __init__(self, raw: Sink, input_key: bytes, *, context: bytes) -> None:
        super().__init__()
        _check_key(input_key)
        self._raw = raw
        self._encryptor = Cobblestone256Encryptor(input_key, context)
        self._out = bytearray((_BATCH_CHUNKS + 1) * SEALED_CHUNK_BYTES)
        self._position = 0
        self._finished = False
        header = self._encryptor.update(b"")
        self.salt = header[:SALT_BYTES]
        self._emit(header)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        if self._finished:
            raise ValueError("write to a finished message")
        view = memoryview(data).cast("B")
        _check_length(self._position + len(view))
        out = memoryview(self._out)
        for start in range(0, len(view), _BATCH_CHUNKS * CHUNK_BYTES):
            batch = view[start : start + _BATCH_CHUNKS * CHUNK_BYTES]
            self._emit(out[: self._encryptor.update_into(batch, self._out)])
        self._position += len(view)
        return len(view)

    def finish(self) -> None:
        """Write the final chunk; a second call does nothing."""
        if not self._finished:
            self._finished = True
            self._emit(self._encryptor.finalize())

    def __exit__(self, *exception: Any) -> None:
        if exception[0] is None:
            self.finish()
        super().__exit__(*exception)

    def _emit(self, data: bytes | memoryview) -> None:
        done = 0
        while done < len(data):
            done += self._raw.write(data[done:])


class SealedReader(io.RawIOBase):
    """A seekable plaintext view of one encrypted message; decrypts the chunks that are asked for.

    The commitment and the final chunk are checked when it is opened, so `size` (bytes of
    plaintext) is authentic from then on; every other chunk is checked when it is read. Wrap it in
    `io.BufferedReader` to read lines. Several threads may read at once: with `read_at`, which
    leaves the position alone. Closing it closes `raw`.
    Raises IntegrityError with `name`, chunk and offset.
    """

    def __init__(self, raw: BinaryIO, input_key: bytes, *, context: bytes, name: str) -> None:
        super().__init__()
        self.name = name
        self._raw = raw
        self._position = 0
        self._moving = threading.Lock()
        self._buffers = threading.local()
        length = raw.seek(0, io.SEEK_END)
        self._fill = _positioned(raw)
        self.size = _plain_size(length, name)
        self._last = self.size // CHUNK_BYTES
        header = bytearray(HEADER_BYTES)
        self._fill(0, memoryview(header))
        self.salt = bytes(header[:SALT_BYTES])
        self._schedule = _Schedule.derive(input_key, self.salt, context)
        if not hmac.compare_digest(header[SALT_BYTES:], self._schedule.commitment):
            raise _refused(
                name,
                f"header, offset 0 to {HEADER_BYTES}",
                "its commitment does not match: other key, other context, or changed bytes",
            )
        # Replaced as a whole, never changed: threads may use it while another replaces it.
        self._cached = (-1, b"")
        self._chunk(self._last)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._moving:
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
        with self._moving:
            done = self.read_at(self._position, buffer)
            self._position += done
        return done

    def read_at(self, offset: int, buffer: Any) -> int:
        """Fill `buffer` with the plaintext from `offset` on; returns how much there was."""
        if self.closed:
            raise ValueError("read from a closed reader")
        view = memoryview(buffer).cast("B")
        view = view[: min(len(view), max(0, self.size - offset))]
        done = 0
        while done < len(view):
            chunk, start = divmod(offset + done, CHUNK_BYTES)
            whole = min((len(view) - done) // CHUNK_BYTES, _BATCH_CHUNKS)
            if start == 0 and whole:
                step = whole * CHUNK_BYTES
                self._decrypt(chunk, whole, view[done : done + step])
            else:
                step = min(CHUNK_BYTES - start, len(view) - done)
                view[done : done + step] = self._chunk(chunk)[start : start + step]
            done += step
        return done

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

    def _chunk(self, chunk: int) -> bytes:
        """The plaintext of one chunk, the final one too; the last that was asked for is kept."""
        number, plain = self._cached
        if number != chunk:
            size = self.size - chunk * CHUNK_BYTES if chunk == self._last else CHUNK_BYTES
            sealed = memoryview(self._buffer())[: size + TAG_BYTES]
            self._fill(HEADER_BYTES + chunk * SEALED_CHUNK_BYTES, sealed)
            try:
                plain = self._schedule.cipher.decrypt(self._schedule.nonce(chunk), sealed, None)
            except InvalidTag:
                raise self._chunk_error(chunk) from None
            self._cached = (chunk, plain)
        return plain

    def _decrypt(self, first: int, count: int, out: memoryview) -> None:
        """Decrypt `count` consecutive whole chunks from `first` on straight into `out`."""
        sealed = memoryview(self._buffer())[: count * SEALED_CHUNK_BYTES]
        self._fill(HEADER_BYTES + first * SEALED_CHUNK_BYTES, sealed)
        cipher, nonce = self._schedule.cipher, self._schedule.nonce
        for i in range(count):
            try:
                cipher.decrypt_into(
                    nonce(first + i),
                    sealed[i * SEALED_CHUNK_BYTES : (i + 1) * SEALED_CHUNK_BYTES],
                    None,
                    out[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES],
                )
            except InvalidTag:
                # The cipher writes before it checks the tag: nobody may see those bytes.
                out[:] = bytes(len(out))
                raise self._chunk_error(first + i) from None

    def _buffer(self) -> bytearray:
        """This thread's room for encrypted chunks, used again and again."""
        if not hasattr(self._buffers, "encrypted"):
            self._buffers.encrypted = bytearray(_BATCH_CHUNKS * SEALED_CHUNK_BYTES)
        room: bytearray = self._buffers.encrypted
        return room

    def _chunk_error(self, chunk: int) -> IntegrityError:
        offset = HEADER_BYTES + chunk * SEALED_CHUNK_BYTES
        last = " (the last)" if chunk == self._last else ""
        return _refused(
            self.name,
            f"chunk {chunk}{last} at offset {offset}",
            "it does not authenticate: bytes were changed, moved or cut",
        )


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


def _damage(input_key: bytes, sealed: memoryview, context: bytes, name: str) -> IntegrityError:
    """Where a message that did not decrypt is damaged."""
    found = first_damage(
        lambda: SealedReader(io.BytesIO(sealed), input_key, context=context, name=name)
    )
    return found or _refused(name, "some chunk", "it does not authenticate")


def _plain_size(length: int, name: str) -> int:
    """Bytes of plaintext in a message of `length` bytes; IntegrityError where none has so many."""
    whole, final = divmod(length - HEADER_BYTES, SEALED_CHUNK_BYTES)
    if length < HEADER_BYTES + TAG_BYTES or final < TAG_BYTES:
        raise _refused(
            name,
            f"ends at offset {length}",
            "its final chunk is missing or cut: it is truncated",
        )
    if whole >= MAX_CHUNKS:
        raise _refused(name, f"{whole + 1} chunks", f"a message has at most {MAX_CHUNKS}")
    return whole * CHUNK_BYTES + final - TAG_BYTES


def _check_length(size: int) -> None:
    if size // CHUNK_BYTES >= MAX_CHUNKS:
        raise ValueError(f"a message of {size} bytes: it has at most {MAX_CHUNKS} chunks")


def _check_key(input_key: bytes) -> None:
    if len(input_key) != KEY_BYTES:
        raise ValueError(f"an input key has {KEY_BYTES} bytes, not {len(input_key)}")


def _refused(name: str, place: str, rule: str) -> IntegrityError:
    return IntegrityError(f"{name}, {place}", rule, "restore the file from a good copy")


def _positioned(raw: BinaryIO) -> Callable[[int, memoryview], None]:
    """A function (offset, buffer) that fills the buffer, in any thread.

    Where the bytes end too early (the file shrank after it was opened) it puts zeros, which do not
    authenticate.
    """
    try:
        handle = raw.fileno()
    except OSError:
        handle, turn = -1, threading.Lock()

    def read(offset: int, view: memoryview) -> int:
        if handle >= 0:
            return os.preadv(handle, [view], offset)
        with turn:
            raw.seek(offset)
            return int(raw.readinto(view))  # type: ignore[attr-defined]

    def fill(offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            got = read(offset + done, view[done:])
            if not got:
                view[done:] = bytes(len(view) - done)
            done += got or len(view) - done

    return fill
