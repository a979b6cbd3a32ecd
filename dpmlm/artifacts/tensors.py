"""Named tensors in a sealed safetensors file, read one at a time.

Encrypted tensors cannot be memory-mapped. `SealedTensors` reads the header once, then decrypts the
bytes of each tensor straight into its own memory when it is asked for: loading a model needs the
memory of the model and of one batch of chunks.
"""

import json
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from dpmlm.artifacts.chunks import SealedReader
from dpmlm.errors import IntegrityError

_LENGTH_BYTES = 8
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    """A safetensors file of contiguous CPU copies of `tensors`, in memory."""
    return safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    )


class SealedTensors:
    """The tensors of one sealed safetensors file; use as a context manager."""

    def __init__(self, reader: SealedReader) -> None:
        """Read the header; raises IntegrityError if it is no safetensors header."""
        self._reader = reader
        try:
            length = int.from_bytes(_read(reader, 0, _LENGTH_BYTES), "little")
            if length > reader.size - _LENGTH_BYTES:
                raise ValueError("header longer than the file")
            header: dict[str, Any] = json.loads(_read(reader, _LENGTH_BYTES, length))
            header.pop("__metadata__", None)
            self._start = _LENGTH_BYTES + length
            self._entries = {name: self._entry(entry) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise IntegrityError(
                reader.name, "it holds no safetensors header", "save the model again"
            ) from None

    def __enter__(self) -> "SealedTensors":
        return self

    def __exit__(self, *exception: object) -> None:
        self._reader.close()

    def names(self) -> list[str]:
        """Names of the tensors, sorted."""
        return sorted(self._entries)

    def get(self, name: str) -> Tensor:
        """Decrypt one tensor into new CPU memory."""
        dtype, shape, start = self._entries[name]
        tensor = torch.empty(shape, dtype=dtype)
        if tensor.numel():
            self._reader.seek(self._start + start)
            # A 1-d byte view of the tensor's own memory: the plaintext is written once.
            self._reader.readinto(tensor.view(-1).view(torch.uint8).numpy())
        return tensor

    def _entry(self, entry: dict[str, Any]) -> tuple[torch.dtype, tuple[int, ...], int]:
        dtype, shape = _DTYPES[entry["dtype"]], tuple(int(size) for size in entry["shape"])
        start, end = (int(offset) for offset in entry["data_offsets"])
        wanted = dtype.itemsize
        for size in shape:
            wanted *= size
        if not (0 <= start <= end <= self._reader.size - self._start and end - start == wanted):
            raise ValueError("offsets outside the file")
        return dtype, shape, start


def _read(reader: SealedReader, position: int, size: int) -> bytes:
    buffer = bytearray(size)
    reader.seek(position)
    if reader.readinto(buffer) != size:
        raise ValueError("ends early")
    return bytes(buffer)
