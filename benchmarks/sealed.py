"""Sealing against what it costs at least: the five figures, and a few beside them.

    python benchmarks/sealed.py --out benchmarks/results/sealed.json
    python benchmarks/sealed.py --mib 64 --model-mb 50 --without faults   # a quick look
    python benchmarks/sealed.py --check                                   # exit status 1 if missed

Every column runs in a process of its own, columns that are compared in alternating turns, one
thread each. Ratios are of processor time, so that other work on the machine does not decide them;
wall time stands beside. A figure is the median over turns. `faults` runs the exhaustive test over
a released bundle, which takes minutes.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

TURNS = 7
READS = 100
MB = 10**6
FAULTS = "tests/release/test_release_verification.py"
WHAT = {
    "seal": "seal in memory, of raw AES-256-GCM at 16 KiB over the same buffers",
    "open": "open in memory, of the same",
    "load": "load all tensors of a sealed model, of readinto into fresh memory",
    "tensor": "one random 3 MB tensor, ms",
    "rotate": "open, rotate the recipients, ms",
    "faults": "10,000 changed bytes and 1,000 truncations of a bundle, all caught",
}
AT_LEAST = {"seal": 0.85, "open": 0.85, "load": 0.70}
BELOW = {"tensor": 3.0, "rotate": 50.0}


# Columns: each prints one JSON object.


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def memory(mib: int) -> dict[str, Any]:
    """Raw chunks and whole messages over the same buffers, all of them touched before."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from dpmlm.artifacts import decrypt_into, encrypt_into, sealed_size
    from dpmlm.artifacts.chunks import CHUNK_BYTES, SEALED_CHUNK_BYTES

    size, key = mib << 20, os.urandom(32)
    count, cipher = size // CHUNK_BYTES, AESGCM(key)
    plain = memoryview(bytearray(os.urandom(1 << 20) * mib))
    back = memoryview(bytearray(b"\1") * size)
    sealed = memoryview(bytearray(b"\1") * max(count * SEALED_CHUNK_BYTES, sealed_size(size)))

    def parts(i: int) -> tuple[bytes, memoryview, memoryview, memoryview]:
        inner = slice(i * CHUNK_BYTES, (i + 1) * CHUNK_BYTES)
        outer = slice(i * SEALED_CHUNK_BYTES, (i + 1) * SEALED_CHUNK_BYTES)
        return i.to_bytes(12), plain[inner], sealed[outer], back[inner]

    def raw_seal() -> None:
        for i in range(count):
            nonce, data, out, _ = parts(i)
            cipher.encrypt_into(nonce, data, None, out)

    def raw_open() -> None:
        for i in range(count):
            nonce, _, data, out = parts(i)
            cipher.decrypt_into(nonce, data, None, out)

    def seal() -> None:
        encrypt_into(key, plain, sealed, context=b"benchmark")

    def unseal() -> None:
        decrypt_into(key, sealed[: sealed_size(size)], back, context=b"benchmark")

    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(TURNS):
        for name, work in (
            ("raw_seal", raw_seal), ("raw_open", raw_open), ("seal", seal), ("open", unseal),
        ):  # fmt: skip
            found.setdefault(name, []).append(timed(work))
        assert back == plain
    return {"bytes": size, "seconds": found}


def prepare(folder: Path, model_mb: int) -> None:
    """A sealed model of tensors of 3 MB, and the same file in clear."""
    import safetensors.torch
    import torch

    from dpmlm.artifacts import SealedFolder, new_identity, save_identity
    from dpmlm.artifacts.tensors import WEIGHTS, write_tensors

    tensors = {f"t{n}": torch.randn(1024, 768) for n in range(model_mb // 3)}
    safetensors.torch.save_file(tensors, folder / "plain")
    identities = [new_identity() for _ in range(2)]
    for number, identity in enumerate(identities):
        save_identity(folder / f"{number}.key", identity)
    sealed = SealedFolder.create(folder / "model", [identities[0].recipient], role="model")
    write_tensors(sealed, WEIGHTS, tensors)
    sealed.finish({})


def readinto(folder: Path) -> dict[str, Any]:
    """The file in clear, into memory that was never touched."""
    import torch

    with open(folder / "plain", "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size

        def work() -> None:
            assert file.readinto(torch.empty(size, dtype=torch.uint8).numpy()) == size

        return {"bytes": size, "seconds": [timed(work)]}


def load(folder: Path) -> dict[str, Any]:
    """Every tensor, usable, from the name of the folder on."""
    import torch

    identities, found = _identities(folder), {}

    def work() -> None:
        with open_tensors(folder / "model", identities) as tensors:
            found.update(tensors.get_tensors())

    from dpmlm.artifacts import open_tensors

    seconds = [timed(work)]
    assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())
    return {"seconds": seconds, "tensors": len(found)}


def write(folder: Path) -> dict[str, Any]:
    """A file of a sealed folder, with the SHA-256 of its ciphertext that a manifest lists."""
    from dpmlm.artifacts import SealedFolder

    data = (folder / "plain").read_bytes()
    recipients = [_identities(folder)[0].recipient]
    made = SealedFolder.create(folder / "written", recipients, role="model")
    found = [timed(lambda: made.write_bytes("weights", data)) for _ in range(3)]
    return {"bytes": len(data), "seconds": found}


def tensor(folder: Path) -> dict[str, Any]:
    """One tensor after the other, drawn at random from an open file."""
    from dpmlm.artifacts import open_tensors

    with open_tensors(folder / "model", _identities(folder)) as tensors:
        draw = random.Random(1)
        names = draw.choices(tensors.keys(), k=READS)
        return {"seconds": [timed(lambda name=name: tensors.get_tensor(name)) for name in names]}


def rotate(folder: Path) -> dict[str, Any]:
    """Open the folder and give it other recipients, on the disk."""
    from dpmlm.artifacts import SealedFolder

    identities = _identities(folder)
    payload = folder / "model" / "weights.sealed"
    before = payload.read_bytes(), payload.stat().st_mtime_ns
    found = []
    for turn in range(20):
        recipients = [identities[0].recipient, *([identities[1].recipient] if turn % 2 else [])]
        found.append(
            timed(
                lambda recipients=recipients: SealedFolder.open(
                    folder / "model", identities[:1]
                ).rewrap(recipients)
            )
        )
    assert (payload.read_bytes(), payload.stat().st_mtime_ns) == before
    return {"seconds": found}


def _identities(folder: Path) -> list[Any]:
    from dpmlm.artifacts import load_identity

    return [load_identity(folder / f"{number}.key") for number in range(2)]


# The table.


def column(name: str, *arguments: object) -> dict[str, Any]:
    """What the column prints, run in a process of its own."""
    command = [sys.executable, __file__, "--column", name, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout or "{}")
    return found


def caught() -> dict[str, Any]:
    """Whether the exhaustive test passes."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "full", "-k", "random_changes", FAULTS]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return {"measured": "1 passed" in done.stdout and not done.returncode}


def ratio(base: list[Any], ours: list[Any]) -> dict[str, float]:
    """Medians over turns of the base's time over ours, turn by turn."""
    wall, cpu = (
        statistics.median(b[which] / o[which] for b, o in zip(base, ours)) for which in (0, 1)
    )
    return {"measured": cpu, "wall": wall}


def milliseconds(seconds: list[Any]) -> dict[str, float]:
    """Median wall time."""
    return {
        "measured": 1000 * statistics.median(wall for wall, _ in seconds),
        "cpu": 1000 * statistics.median(cpu for _, cpu in seconds),
    }


def measure(mib: int, model_mb: int, place: Path | None, without: list[str]) -> dict[str, Any]:
    """All rows and the seconds they come from."""
    found = column("memory", mib)
    sizes, seconds = {"memory": found["bytes"]}, found["seconds"]
    rows = {
        "seal": ratio(seconds["raw_seal"], seconds["seal"]),
        "open": ratio(seconds["raw_open"], seconds["open"]),
    }
    with tempfile.TemporaryDirectory(dir=place) as name:
        column("prepare", name, model_mb)
        for turn in range(TURNS + 1):
            for way in ("readinto", "load"):
                found = column(way, name)
                sizes["model"] = found.get("bytes", sizes.get("model"))
                if turn:  # the first brings both files into the page cache
                    seconds.setdefault(way, []).extend(found["seconds"])
        rows["load"] = ratio(seconds["readinto"], seconds["load"])
        for way in ("tensor", "rotate"):
            seconds[way] = column(way, name)["seconds"]
            rows[way] = milliseconds(seconds[way])
        seconds["write"] = column("write", name)["seconds"]
    if "faults" not in without:
        rows["faults"] = caught()
    judgements = {name: judged(name, row) for name, row in rows.items()}
    return {"rows": judgements, "bytes": sizes, "seconds": seconds}


def judged(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row with the figure to reach and whether it was."""
    if name in AT_LEAST:
        return {**row, "at_least": AT_LEAST[name], "met": row["measured"] >= AT_LEAST[name]}
    if name in BELOW:
        return {**row, "below": BELOW[name], "met": row["measured"] < BELOW[name]}
    return {**row, "met": row["measured"]}


def table(result: dict[str, Any]) -> str:
    """One line a figure."""
    lines = ["| what | to reach | measured | |", "| --- | --- | --- | --- |"]
    for name, row in result["rows"].items():
        if name in AT_LEAST:
            goal = f"{row['at_least']:.0%}"
            shown = f"{row['measured']:.0%} (wall {row['wall']:.0%})"
        elif name in BELOW:
            goal, shown = f"under {row['below']:g}", f"{row['measured']:.2f}"
        else:
            goal, shown = "all", "all" if row["measured"] else "not all"
        lines.append(f"| {WHAT[name]} | {goal} | {shown} | {'met' if row['met'] else 'MISSED'} |")
    for name, found in result["seconds"].items():
        if name not in BELOW:
            middle = statistics.median(cpu for _, cpu in found)
            size = result["bytes"]["model" if name in ("readinto", "load", "write") else "memory"]
            lines.append(
                f"| {name.replace('_', ' ')}, {size / MB:,.0f} MB: GB/s of processor time | | "
                f"{size / middle / 1e9:.2f} | |"
            )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Where it ran."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> int:
    """Measure and print; a column prints its seconds alone."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of the message in memory")
    parser.add_argument("--model-mb", type=int, default=440, help="size of the model")
    parser.add_argument("--folder", type=Path, help="where the model lies; a temporary folder")
    parser.add_argument("--without", nargs="*", default=[], choices=["faults"])
    parser.add_argument("--check", action="store_true", help="exit with 1 if a figure is missed")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--column", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.column:
        name, *arguments = asked.column
        print(json.dumps(COLUMNS[name](*arguments)))
        return 0
    where = machine()
    result = {
        "schema": "dpmlm.sealed-benchmark/1",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": where,
        "versions": {name: version(name) for name in ("cryptography", "torch")},
        "settings": {"mib": asked.mib, "model_mb": asked.model_mb, "turns": TURNS},
        **measure(asked.mib, asked.model_mb, asked.folder, asked.without),
    }
    print(table(result))
    if asked.out:
        draft = asked.out.with_suffix(".part")
        draft.write_text(json.dumps(result, indent=1) + "\n")
        draft.replace(asked.out)
    missed = [name for name, row in result["rows"].items() if not row["met"]]
    return 1 if asked.check and missed else 0


COLUMNS: dict[str, Callable[..., Any]] = {
    "memory": lambda mib: memory(int(mib)),
    "prepare": lambda folder, size: prepare(Path(folder), int(size)),
    "readinto": lambda folder: readinto(Path(folder)),
    "load": lambda folder: load(Path(folder)),
    "tensor": lambda folder: tensor(Path(folder)),
    "write": lambda folder: write(Path(folder)),
    "rotate": lambda folder: rotate(Path(folder)),
}

if __name__ == "__main__":
    sys.exit(main())
