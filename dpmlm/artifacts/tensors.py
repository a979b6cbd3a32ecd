"""Named tensors in a sealed safetensors file, with the interface of `safetensors.safe_open`.

Encrypted tensors cannot be memory-mapped. `SealedTensors` reads the header once. One tensor, or
some rows of it, costs its own chunks; the plaintext is written once, into the memory of the tensor.
`get_tensors` decrypts the whole file into one block of memory and returns views of it.
"""

import contextlib
import json
import mmap
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpmlm.artifacts.chunks import SealedReader
from dpmlm.artifacts.folder import SealedFolder
from dpmlm.artifacts.identities import Identity
from dpmlm.artifacts.sealed import open_sealed
from dpmlm.errors import IntegrityError, UserError

WEIGHTS = "weights"
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
_ALIGNMENT = 64
_STEP_BYTES = 1 << 20
_MADV_POPULATE_WRITE = 23
_METADATA = "__metadata__"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def write_tensors(folder: SealedFolder, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Seal `tensors` as the safetensors file `name`, one after the other: there is no second copy
    of them all. A tensor under two names is written twice. Raises ValueError for the one name
    that the format keeps for itself.
    """
    if _METADATA in tensors:
        raise ValueError(f"no tensor is called {_METADATA}")
    # Larger types first, so that each tensor lies at a multiple of its numbers' size.
    ordered = sorted(tensors, key=lambda each: (-tensors[each].dtype.itemsize, each))
    header, end = {}, 0
    for each in ordered:
        start, end = end, end + tensors[each].nbytes
        dtype, shape = _NAMES[tensors[each].dtype], list(tensors[each].shape)
        header[each] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % _LENGTH_BYTES)
    with folder.writer(name) as file:
        file.write(len(head).to_bytes(_LENGTH_BYTES, "little") + head)
        for each in ordered:
            whole = tensors[each].detach().cpu().resolve_conj().resolve_neg().contiguous()
            file.write(whole.reshape(-1).view(torch.uint8).numpy())


def open_tensors(
    path: Path | str,
    identities: Sequence[Identity],
    *,
    name: str = WEIGHTS,
    context: bytes | None = None,
) -> "SealedTensors":
    """The tensors of file `name` in a sealed folder, or of one file that `seal` wrote.

    A single file needs the `context` it was sealed with. Use the result as a context manager.

    Raises:
        UserError: there is nothing, or nothing that these identities open.
        IntegrityError: bytes were changed, or they are no safetensors file.
    """
    path = Path(path)
    if path.is_dir():
        reader = SealedFolder.open(path, identities).open(name)
    elif context is None:
        raise UserError(
            str(path),
            "it is no sealed folder, and a single sealed file opens with its context alone",
            "name the folder, or give the context that the file was sealed with",
        )
    else:
        reader = open_sealed(path, identities, context=context)
    try:
        return SealedTensors(reader)
    except BaseException:
        reader.close()
        raise


@dataclass(frozen=True)
class _Entry:
    """One tensor of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the end of the header."""
    size: int
    """Bytes."""

    @classmethod
    def read(cls, fields: dict[str, Any]) -> "_Entry":
        """Raises ValueError, KeyError or TypeError for what no writer writes."""
        dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
        start, end = offsets
        if any(type(number) is not int or number < 0 for number in (*shape, start, end)):
            raise ValueError("a size is a whole number from 0 on")
        if end - start != prod(shape) * _DTYPES[dtype].itemsize:
            raise ValueError("its bytes are not those of its shape")
        return cls(dtype, tuple(shape), start, end - start)


class SealedTensors:
    """The tensors of one sealed safetensors file; use as a context manager.

    Several threads may read at once.
    """

    def __init__(self, reader: SealedReader) -> None:
        """Read the header; raises IntegrityError if it is not one that safetensors writes."""
        self._reader = reader
        try:
            length = int.from_bytes(_read(reader, 0, _LENGTH_BYTES), "little")
            if length > min(reader.size - _LENGTH_BYTES, _MAX_HEADER_BYTES):
                raise ValueError("header longer than the file, or than any")
            header = json.loads(
                _read(reader, _LENGTH_BYTES, length), object_pairs_hook=_without_duplicates
            )
            self._metadata: dict[str, str] | None = header.pop(_METADATA, None)
            notes = {} if self._metadata is None else self._metadata
            if not all(isinstance(text, str) for pair in notes.items() for text in pair):
                raise ValueError("metadata is text under names")
            self._start = _LENGTH_BYTES + length
            self._entries = {name: _Entry.read(fields) for name, fields in header.items()}
            self._check_cover()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise IntegrityError(
                reader.name, "it holds no safetensors header", "save the model again"
            ) from None

    def __enter__(self) -> "SealedTensors":
        return self

    def __exit__(self, *exception: object) -> None:
        self._reader.close()

    def keys(self) -> list[str]:
        """Names of the tensors, sorted."""
        return sorted(self._entries)

    def offset_keys(self) -> list[str]:
        """Names of the tensors in the order of their bytes."""
        return sorted(self._entries, key=lambda name: self._entries[name].start)

    def metadata(self) -> dict[str, str] | None:
        """What the writer noted beside the tensors."""
        return self._metadata

    def get_tensor(self, name: str) -> Tensor:
        """Decrypt one tensor into new CPU memory."""
        entry = self._entry(name)
        return self._rows(entry, entry.shape, 0)

    def get_slice(self, name: str) -> "SealedSlice":
        """A view that decrypts what it is indexed with."""
        return SealedSlice(self, self._entry(name))

    def get_tensors(self) -> dict[str, Tensor]:
        """Every tensor; they share one block of memory, which lasts as long as any of them."""
        skip = -self._start % _ALIGNMENT
        size = self._reader.size
        block = mmap.mmap(-1, skip + max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with memoryview(block) as view:
            for start in range(0, size, _STEP_BYTES):
                end = min(size, start + _STEP_BYTES)
                _populate(block, skip + start, skip + end)
                self._reader.read_at(start, view[skip + start : skip + end])
        found = {}
        for name, entry in self._entries.items():
            offset = skip + self._start + entry.start
            found[name] = _shaped(
                torch.frombuffer(block, dtype=torch.uint8, count=entry.size, offset=offset)
                if entry.size
                else torch.empty(0, dtype=torch.uint8),
                entry,
                entry.shape,
            )
        return found

    def _rows(self, entry: _Entry, shape: tuple[int, ...], skip: int) -> Tensor:
        """`shape` of the tensor's values, beginning `skip` bytes after its first."""
        room = torch.empty(prod(shape) * _DTYPES[entry.dtype].itemsize, dtype=torch.uint8)
        self._reader.read_at(self._start + entry.start + skip, room.numpy())
        return _shaped(room, entry, shape)

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise UserError(
                f"tensor {name!r} of {self._reader.name}",
                f"it holds {len(self._entries)} tensors, and none of that name",
                "see keys()",
            )
        return self._entries[name]

    def _check_cover(self) -> None:
        """Every byte belongs to one tensor: neither gaps nor overlaps, and none is missing."""
        ordered = sorted(self._entries.values(), key=lambda entry: (entry.start, entry.size))
        end = 0
        for entry in ordered:
            if entry.start != end:
                raise ValueError("a gap or an overlap")
            end += entry.size
        if end != self._reader.size - self._start:
            raise ValueError("bytes after the last tensor, or missing")


class SealedSlice:
    """One tensor that is not read yet: `part[3]`, `part[10:20]`, `part[:5, 7]`, `part[..., 0]`.

    A number or a range in the first place costs the chunks of those rows alone.
    """

    def __init__(self, tensors: SealedTensors, entry: _Entry) -> None:
        self._tensors, self._entry = tensors, entry

    def get_shape(self) -> list[int]:
        """Sizes of the whole tensor."""
        return list(self._entry.shape)

    def get_dtype(self) -> str:
        """Its type, as safetensors spells it."""
        return self._entry.dtype

    def __getitem__(self, index: Any) -> Tensor:
        first, *rest = index if isinstance(index, tuple) and index else (index,)
        shape = self._entry.shape
        rows = None
        if shape and type(first) is int and -shape[0] <= first < shape[0]:
            row = first % shape[0]
            rows, first = range(row, row + 1), 0
        elif shape and isinstance(first, slice) and (first.step is None or first.step > 0):
            start, stop, step = first.indices(shape[0])
            rows, first = range(start, stop), slice(None, None, step)
        if rows is None:
            whole = self._tensors._rows(self._entry, shape, 0)
        else:
            row_bytes = prod(shape[1:]) * _DTYPES[self._entry.dtype].itemsize
            part = (len(rows), *shape[1:])
            whole = self._tensors._rows(self._entry, part, rows.start * row_bytes)
        return whole[(first, *rest)].contiguous()


def _shaped(content: Tensor, entry: _Entry, shape: tuple[int, ...]) -> Tensor:
    dtype = _DTYPES[entry.dtype]
    return content.view(dtype).view(shape) if content.numel() else torch.empty(shape, dtype=dtype)


def _populate(block: mmap.mmap, start: int, end: int) -> None:
    """Have the system prepare these pages at once, where it can, and not one fault at a time.

    Large pages would need fewer faults still, but on a virtual machine whose host gave that memory
    away they cost several times as much.
    """
    if sys.platform == "linux":
        start -= start % mmap.PAGESIZE
        with contextlib.suppress(OSError):  # older than Linux 5.14
            block.madvise(_MADV_POPULATE_WRITE, start, end - start)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("a name twice")
    return dict(pairs)


def _read(reader: SealedReader, position: int, size: int) -> bytes:
    buffer = bytearray(size)
    if reader.read_at(position, buffer) != size:
        raise ValueError("ends early")
    return bytes(buffer)
