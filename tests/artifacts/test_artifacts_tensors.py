"""Sealed tensors against `safe_open` on the same bytes, and headers that nobody may trust."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from dpmlm.artifacts import (
    Identity,
    IntegrityError,
    SealedFolder,
    SealedTensors,
    UserError,
    new_identity,
    open_tensors,
    seal,
    write_tensors,
)
from dpmlm.artifacts import tensors as tensors_module

CONTEXT = b"tests/tensors"


@pytest.fixture(scope="module")
def identity() -> Identity:
    return new_identity()


def some_tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made = {
        "large": torch.randn(700, 33),
        "cube": torch.randint(-9, 9, (5, 7, 300)),
        "half": torch.randn(9, 4).half(),
        "brain": torch.randn(3, 3).bfloat16(),
        "flags": torch.rand(11) > 0.5,
        "none": torch.zeros(0, 4),
        "number": torch.tensor(3.5),
        "complex": torch.randn(4, dtype=torch.complex64),
        "tiny": torch.randn(6).to(torch.float8_e4m3fn),
        "wide": torch.randn(6).to(torch.float8_e5m2),
    }
    for dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16):
        made[str(dtype)] = torch.arange(5).to(dtype)
    return {**made, "double": torch.randn(2, 2).double(), "int": torch.arange(3).int()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "f.safetensors"
    safetensors.torch.save_file(some_tensors(), path, metadata={"format": "pt", "by": "us"})
    return path


@pytest.fixture(scope="module")
def sealed(plain: Path, identity: Identity) -> Path:
    folder = SealedFolder.create(plain.parent / "model", [identity.recipient], role="model")
    folder.write_bytes("weights", plain.read_bytes())
    folder.finish({})
    return folder.path


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    flat = [t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other) if t.numel()]
    return not flat or torch.equal(*flat)


def test_it_is_what_safe_open_is(plain: Path, sealed: Path, identity: Identity) -> None:
    theirs: Any
    with safetensors.safe_open(plain, "pt") as theirs, open_tensors(sealed, [identity]) as ours:
        assert ours.keys() == sorted(theirs.keys())
        assert ours.offset_keys() == theirs.offset_keys()
        assert ours.metadata() == theirs.metadata() == {"format": "pt", "by": "us"}
        together = ours.get_tensors()
        for name in theirs.keys():  # noqa: SIM118
            expected = theirs.get_tensor(name)
            assert same(ours.get_tensor(name), expected)
            assert same(together[name], expected)
            part = theirs.get_slice(name)
            assert ours.get_slice(name).get_shape() == part.get_shape()
            assert ours.get_slice(name).get_dtype() == part.get_dtype()
        with pytest.raises(UserError, match="none of that name"):
            ours.get_tensor("absent")
        with pytest.raises(UserError, match="none of that name"):
            ours.get_slice("absent")


def test_what_is_written_is_what_safetensors_writes(tmp_path: Path, identity: Identity) -> None:
    square = torch.arange(12.0).reshape(3, 4)
    tensors = some_tensors() | {
        "turned": square.T,
        "every other": torch.arange(9.0)[::2],
        "a column": square[:, 1],
        "a narrow one": square[:, 1:2],
        "flags apart": (torch.arange(8) > 3)[::3],
        "repeated": torch.tensor([1.5]).expand(4),
        "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
    }
    together = {name: tensor.resolve_conj().contiguous() for name, tensor in tensors.items()}
    folder = SealedFolder.create(tmp_path / "written", [identity.recipient], role="model")
    write_tensors(folder, "weights", tensors)
    folder.finish({})
    found = safetensors.torch.load(folder.read_bytes("weights"))
    assert found.keys() == tensors.keys()
    assert all(same(found[name], together[name]) for name in tensors)
    with pytest.raises(ValueError, match="metadata"):
        write_tensors(folder, "more", {"__metadata__": square})
    write_tensors(folder, "nothing", {})
    assert safetensors.torch.load(folder.read_bytes("nothing")) == {}
    with open_tensors(tmp_path / "written", [identity]) as ours:
        assert all(same(tensor, together[name]) for name, tensor in ours.get_tensors().items())
        starts = [entry.start % torch.empty(0, dtype=together[name].dtype).element_size()
                  for name, entry in ours._entries.items()]  # fmt: skip
    assert not any(starts)  # numbers lie where a processor wants them


INDICES: list[Any] = [
    0, -1, slice(0, 2), slice(2, 1), slice(-2, None), slice(None), slice(1, 5, 3), ..., (..., 1),
    (0, 0), (slice(1, 3), 2), (slice(None), slice(2, 4)), (slice(0, 2), ..., 3), [0, 2],
]  # fmt: skip


@pytest.mark.parametrize("name", ["large", "cube", "half"])
@pytest.mark.parametrize("index", INDICES, ids=str)
def test_slices(sealed: Path, identity: Identity, name: str, index: Any) -> None:
    with open_tensors(sealed, [identity]) as ours:
        found = ours.get_slice(name)[index]
        assert same(found, some_tensors()[name][index])
        assert found.is_contiguous()


def test_slices_that_are_refused(sealed: Path, identity: Identity) -> None:
    with open_tensors(sealed, [identity]) as ours:
        with pytest.raises(IndexError):
            ours.get_slice("large")[700]
        with pytest.raises(ValueError, match="step"):
            ours.get_slice("large")[::-1]
        with pytest.raises(IndexError):
            ours.get_slice("number")[0]


def test_rows_cost_their_own_chunks(sealed: Path, identity: Identity, tmp_path: Path) -> None:
    """Another chunk is damaged: the rows before it are still read."""
    folder = tmp_path / "m"
    folder.mkdir()
    for path in sealed.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    blob = bytearray((folder / "weights.sealed").read_bytes())
    with open_tensors(folder, [identity]) as ours:
        start = ours._start + ours._entries["large"].start
    chunk = (start + 400 * 33 * 4) // 16_384
    blob[56 + chunk * 16_400 + 5] ^= 1
    (folder / "weights.sealed").write_bytes(blob)
    with open_tensors(folder, [identity]) as ours:
        assert same(ours.get_slice("large")[:100], some_tensors()["large"][:100])
        for read in (lambda: ours.get_tensor("large"), ours.get_tensors):
            with pytest.raises(IntegrityError, match=f"chunk {chunk} "):
                read()


def test_threads(sealed: Path, identity: Identity) -> None:
    expected = some_tensors()

    def read(seed: int) -> bool:
        draw = random.Random(seed)
        names = draw.choices(sorted(expected), k=30)
        return all(same(ours.get_tensor(name), expected[name]) for name in names)

    with open_tensors(sealed, [identity]) as ours, ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))


def test_all_together_are_aligned_and_can_be_changed(sealed: Path, identity: Identity) -> None:
    with open_tensors(sealed, [identity]) as ours:
        first = ours.offset_keys()[0]
        found = ours.get_tensors()
    assert found[first].data_ptr() % 64 == 0
    found["large"] += 1
    assert same(found["large"], some_tensors()["large"] + 1)
    assert same(found["cube"], some_tensors()["cube"])


def test_a_single_file(plain: Path, identity: Identity, tmp_path: Path) -> None:
    seal(plain, tmp_path / "f", [identity.recipient], context=CONTEXT)
    with open_tensors(tmp_path / "f", [identity], context=CONTEXT) as ours:
        assert same(ours.get_tensor("large"), some_tensors()["large"])
    with pytest.raises(UserError, match="opens with its context alone"):
        open_tensors(tmp_path / "f", [identity])
    with pytest.raises(UserError, match="opens with its context alone"):
        open_tensors(tmp_path / "absent", [identity])


HEADERS: dict[str, Any] = {
    "no object": [],
    "no fields": {"w": {}},
    "an unknown type": {"w": {"dtype": "F3", "shape": [1], "data_offsets": [0, 4]}},
    "a negative size": {"w": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}},
    "a size that is no number": {"w": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
    "half a size": {"w": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}},
    "huge sizes": {"w": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}},
    "beyond the file": {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
    "before the file": {"w": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
    "after the file": {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
    "backwards": {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
    "cut": {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 3]}},
    "three offsets": {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}},
    "a gap": {"w": {"dtype": "U8", "shape": [3], "data_offsets": [1, 4]}},
    "bytes left over": {"w": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}},
    "metadata that is a list": {
        "__metadata__": [],
        "w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
    },
    "metadata that is no text": {
        "__metadata__": {"step": 4},
        "w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
    },
    "an overlap": {
        "v": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "w": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]},
    },
    "the same bytes": {
        "v": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
        "w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
    },
}
SOUND = '"dtype": "U8", "shape": [4], "data_offsets": [0, 4]'
RAW = {
    "nothing": b"",
    "no header": b"\x00" * 8,
    "an endless header": (1 << 40).to_bytes(8, "little") + b"{}",
    "no JSON": (2).to_bytes(8, "little") + b"{x",
    "deep JSON": (99_999).to_bytes(8, "little") + b"[" * 99_999,
    "a name twice": f'{{"w": {{{SOUND}}}, "w": {{{SOUND}}}}}'.encode(),
}


def with_length(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + bytes(4)


def refused() -> dict[str, bytes]:
    made = {name: with_length(json.dumps(header).encode()) for name, header in HEADERS.items()}
    raw = {name: with_length(c) if c.startswith(b"{") else c for name, c in RAW.items()}
    return {**made, **raw}


@pytest.mark.parametrize("case", sorted(refused()))
def test_headers_that_are_refused(tmp_path: Path, identity: Identity, case: str) -> None:
    content = refused()[case]
    if case != "a name twice":  # of which they take the last
        with pytest.raises(safetensors.SafetensorError):
            safetensors.torch.load(content)
    folder = SealedFolder.create(tmp_path / "m", [identity.recipient], role="model")
    folder.write_bytes("weights", content)
    with pytest.raises(IntegrityError, match=r"weights\.sealed: it holds no safetensors header"):
        SealedTensors(folder.open("weights"))


def test_a_header_of_more_than_100_megabytes_is_refused(
    sealed: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tensors_module._MAX_HEADER_BYTES == 100_000_000
    monkeypatch.setattr(tensors_module, "_MAX_HEADER_BYTES", 100)
    with pytest.raises(IntegrityError, match="no safetensors header"):
        open_tensors(sealed, [identity])
