"""Changes of a finished folder that wait beside its files until a new manifest names them.

    NAME.sealed.next        the new bytes of NAME.sealed; empty where the file is to go

The manifest decides: a waiting file that it lists takes its name, an empty one whose file it does
not list takes that file away, and any other is what somebody began and never finished.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpmlm.artifacts.atomic import sync_folder
from dpmlm.artifacts.chunks import SALT_BYTES

_WAITING = ".next"


def draft_of(file: Path) -> Path:
    """Where the next content of a sealed file waits."""
    return file.with_name(file.name + _WAITING)


def settle(
    folder: Path, suffix: str, listed: Mapping[str, Mapping[str, Any]]
) -> dict[str, Path | None]:
    """Carry out what the manifest decided; `listed` is its size and salt of every file by name.

    Returns the files that could not be moved (on a read-only disk, say) and are to be read where
    they wait, and with None those that could not be taken away.
    """
    waiting: dict[str, Path | None] = {}
    moved = False
    for draft in _drafts(folder, suffix):
        file = draft.with_name(draft.name.removesuffix(_WAITING))
        name = file.name.removesuffix(suffix)
        record, content = listed.get(name), _size_and_salt(draft)
        try:
            if record is None and content == (0, ""):
                waiting[name] = None
                file.unlink(missing_ok=True)
                draft.unlink(missing_ok=True)
            elif record is not None and content == (record["size"], record["salt"]):
                waiting[name] = draft
                os.replace(draft, file)
            else:
                continue
        except OSError:
            continue
        del waiting[name]
        moved = True
    if moved:
        sync_folder(folder)
    return waiting


def drop(folder: Path, suffix: str) -> None:
    """Take away every change that waits."""
    for draft in _drafts(folder, suffix):
        draft.unlink(missing_ok=True)


def _drafts(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.glob(f"*{suffix}{_WAITING}"))


def _size_and_salt(path: Path) -> tuple[int, str] | None:
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_size, file.read(SALT_BYTES).hex()
    except FileNotFoundError:  # another process settled it
        return None
