"""What is in a bundle, byte for byte: digests to sign, and where a changed file differs.

Each file's SHA-256 is what counts. Beside it stand short digests of its blocks, which only say
*where* a change is: for sealed files the blocks are the header and the encrypted chunks, for files
in clear they are a kibibyte each.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from dpmlm.artifacts import canonical_json
from dpmlm.artifacts.chunks import HEADER_BYTES, SEALED_CHUNK_BYTES

MANIFEST = "manifest.dsse.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
SEALED_MODEL = "model"
ROLE = "released-model"
"""Of the sealed folder of the model."""
RECIPIENTS = f"{SEALED_MODEL}/recipients.json"
ATTESTATIONS = "attestations"
"""Folder of what is said about the release: signed statements, and the log's proof."""
_COUNTERSIGNED = re.compile(rf"{ATTESTATIONS}/(auditor|approver)-[0-9a-f]{{16}}\.dsse\.json")
_CLEAR_BLOCK = 1024
_LOCATOR = 8


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a bundle."""

    file: str
    """Path inside the bundle, or of what it is held against; "" for the bundle as a whole."""
    where: str
    """Byte range, chunk, rule or field."""
    what: str
    """What is wrong there."""
    next_step: str
    """What the reader can do."""

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.file, self.where) if part)
        return f"{place or 'bundle'}: {self.what}; {self.next_step}"


GET_ORIGINAL = "get the bundle again from whoever released it, and trust this copy with nothing"


def take_inventory(folder: Path) -> dict[str, dict[str, Any]]:
    """Digest, size and block locators of every file of a bundle but its signed manifest, and the
    countersignatures that come after it."""
    found = {}
    for name in files_of(folder):
        if name != MANIFEST and not countersigned(name):
            with open(folder / name, "rb") as file:
                found[name] = take_record(file, name)
    return found


def release_digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    """One digest of a release out of its inventory; it names the release in logs and statements.

    It stays when recipients come or go, and covers neither them nor what is said about the release.
    """
    named = {
        name: record["digest"]
        for name, record in files.items()
        if name != RECIPIENTS and not name.startswith(f"{ATTESTATIONS}/")
    }
    return "sha256:" + hashlib.sha256(canonical_json(named)).hexdigest()


def countersigned(name: str) -> bool:
    """Whether a file of that name in a bundle stands by its own signature; `countersigning.py`."""
    return _COUNTERSIGNED.fullmatch(name) is not None


def countersignatures_of(folder: Path) -> list[str]:
    """Names of what is there under such a name, sorted."""
    below = (f"{ATTESTATIONS}/{path.name}" for path in (folder / ATTESTATIONS).glob("*"))
    return sorted(name for name in below if countersigned(name))


def take_record(file: BufferedIOBase, name: str) -> dict[str, Any]:
    """What the inventory keeps of one file, read from its start."""
    blocks = "".join(locator for _, _, locator in _blocks(file, name))
    size = file.tell()
    file.seek(0)
    hexadecimal = hashlib.file_digest(file, "sha256").hexdigest()
    return {"digest": "sha256:" + hexadecimal, "size": size, "blocks": blocks}


def files_of(folder: Path) -> list[str]:
    """Relative paths of everything that is not a plain directory with content, sorted."""
    found = []
    for base, folders, files in os.walk(folder):
        names = [*files, *(name for name in folders if (Path(base) / name).is_symlink())]
        if not files and not folders and Path(base) != folder:
            found.append(str(Path(base).relative_to(folder)))
        found += [str((Path(base) / name).relative_to(folder)) for name in names]
    return sorted(found)


def compare(folder: Path, signed: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Findings for files that are missing, were added or differ from the signed inventory.

    Countersignatures are passed over: no manifest lists them.
    """
    present = set(files_of(folder)) - {MANIFEST}
    findings = []
    for name in sorted(present - set(signed)):
        if not countersigned(name):
            findings.append(Finding(name, "whole file", "the signer did not list it", GET_ORIGINAL))
    for name, record in sorted(signed.items()):
        path = folder / name
        if name not in present:
            findings.append(Finding(name, "whole file", "it is missing", GET_ORIGINAL))
        elif path.is_symlink() or not path.is_file():
            findings.append(Finding(name, "whole file", "it is no plain file", GET_ORIGINAL))
        elif path.stat().st_size != record["size"] or _digest(path) != record["digest"]:
            findings.append(_difference(path, name, record))
    return findings


def _difference(path: Path, name: str, record: Mapping[str, Any]) -> Finding:
    size = path.stat().st_size
    what = "it is not what was signed"
    if size != record["size"]:
        what = f"it has {size:,} bytes, {record['size']:,} were signed"
    signed = record["blocks"]
    last = 0
    with open(path, "rb") as file:
        for number, (start, end, locator) in enumerate(_blocks(file, name)):
            if signed[number * 2 * _LOCATOR : (number + 1) * 2 * _LOCATOR] != locator:
                return Finding(name, _place(path, number, start, end), what, GET_ORIGINAL)
            last = end
    return Finding(name, f"from byte {last} on", what, GET_ORIGINAL)


def _place(path: Path, number: int, start: int, end: int) -> str:
    span = f"bytes {start} to {end - 1}"
    if _sealed(path.name):
        return f"header, {span}" if number == 0 else f"chunk {number - 1}, {span}"
    with open(path, "rb") as file:
        line = file.read(start).count(b"\n") + 1
    return f"{span} (from line {line})"


def _blocks(file: BufferedIOBase, name: str) -> Iterator[tuple[int, int, str]]:
    """First byte, end and locator of each block."""
    head = HEADER_BYTES if _sealed(name) else _CLEAR_BLOCK
    size = SEALED_CHUNK_BYTES if _sealed(name) else _CLEAR_BLOCK
    start = 0
    for block in _pieces(file, head, size):
        yield start, start + len(block), hashlib.sha256(block).digest()[:_LOCATOR].hex()
        start += len(block)


def _pieces(file: BufferedIOBase, head: int, size: int) -> Iterator[bytes]:
    piece = file.read(head)
    while piece:
        yield piece
        piece = file.read(size)


def _sealed(name: str) -> bool:
    return name.endswith(".sealed")


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
