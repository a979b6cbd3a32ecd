"""One stage of a run: what it reads, what it depends on, how it is skipped and resumed.

An unfinished stage holds the file `begun`: the key under which its other files were made. They
are taken up under that key alone; under any other the folder is emptied first.
"""

import functools
import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SealedFolder
from dpmlm.canonical import digest
from dpmlm.corpus import shard_name
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.progress import Report

Build = Callable[[Run, SealedFolder, Report], dict[str, Any]]
"""Fills the folder, skipping what it holds already, and returns fields of its manifest."""
ShardWork = Callable[[SealedFolder, int, Report], None]
"""Does the work of one shard, by its number, whatever the folder holds of it."""
SHARD_DONE = "done"
"""Prefix of the sealed files that say under which key, and by which code, a shard was done."""
BEGUN = "begun"
"""Sealed file of a stage: key and code under which it was begun."""
PACKAGES = ("dpmlm", "audits", "policies")
"""What results are computed by, apart from libraries."""


@dataclass(frozen=True)
class Origin:
    """Everything that decides a stage's output."""

    stage: str
    """Name of the stage."""
    settings: dict[str, Any]
    """What beside its inputs decides it."""
    inputs: dict[str, str]
    """Stage to the digest of its artifact."""

    @property
    def key(self) -> str:
        """Digest of it all; a finished stage with it is skipped."""
        return digest({"stage": self.stage, "settings": self.settings, "inputs": self.inputs})


@dataclass(frozen=True)
class Stage:
    """A named step from sealed artifacts to one sealed artifact."""

    name: str
    inputs: tuple[str, ...]
    """Stages whose artifacts it reads."""
    settings: Callable[[Run], dict[str, Any]]
    """What beside its inputs decides its output."""
    build: Build
    clear: Callable[[SealedFolder], None] | None = None
    """Removes what only an unfinished stage needs; a kill may come before it or within it."""
    guard: Callable[[Run], None] | None = None
    """Raises UserError where an unfinished stage must not be begun anew from something else."""
    renewable: bool = False
    """Whether other settings make it again, where its inputs are the same, and are not refused."""
    shards: Callable[[Run], AbstractContextManager[ShardWork]] | None = None
    """What several workers can do for it beforehand, each its shards; `workers.py` calls it."""
    intact: Callable[[Run, SealedFolder], bool] | None = None
    """Whether what it left outside its own files is as it was; if not, it is built again."""

    def origin(self, run: Run) -> Origin:
        """What it is, or is to be, made from."""
        inputs = {name: run.folder(name).digest for name in self.inputs}
        return Origin(self.name, self.settings(run), inputs)


def execute(run: Run, stages: Sequence[Stage]) -> None:
    """Bring every stage to its end, skipping those that are there already.

    Raises:
        UserError: a finished stage was made from other inputs or settings.
    """
    told = False
    for stage in stages:
        origin = stage.origin(run)
        folder, stands = begin(run, stage, origin)
        if not told and _recorded(folder).get("code") != code_digest():
            run.progress.say(f"note: other code than this began {stage.name}; this goes on with it")
            told = True
        if stands:
            run.progress.say(f"{stage.name}: done before")
        else:
            run.sinks.gauge("stage", 1, stage=stage.name)
            try:
                _build(stage, run, folder, origin)
            finally:  # a file of figures outlives the process, and alerts ask who is training
                run.sinks.gauge("stage", 0, stage=stage.name)
        # Only now: without a manifest the stage is built again, and may need what is cleared.
        if stage.clear is not None:
            stage.clear(folder)


def begin(run: Run, stage: Stage, origin: Origin) -> tuple[SealedFolder, bool]:
    """The stage's folder, with nothing in it that was made from something else, and whether the
    stage is finished.

    Raises:
        UserError: it was finished from other inputs or settings.
    """
    path = run.workspace.stage(stage.name)
    folder = SealedFolder.open_or_create(path, [run.identity], run.own, role=stage.name)
    stands = _stands(stage, run, folder, origin)
    if not stands:
        _begin(stage, run, folder, origin)
    return folder, stands


def do_shard(
    folder: SealedFolder, number: int, work: ShardWork, report: Report, *, key: str
) -> None:
    """Have a shard done under the stage's key, unless it is already.

    A shard of another key is done again: a worker that began before the settings changed may
    have written it since. Raises UserError if the folder now belongs to another key.
    """
    name = shard_name(SHARD_DONE, number)
    if folder.has(name) and folder.read_json(name)["key"] == key:
        return
    if not folder.has(BEGUN) or folder.read_json(BEGUN)["key"] != key:
        raise UserError(
            f"shard {number} in {folder.path}",
            "the stage was begun anew from other text or settings",
            "start this worker again",
        )
    folder.remove(name)
    work(folder, number, report)
    folder.write_json(name, {"key": key, "code": code_digest()})  # last: the shard is whole


def shard_codes(folder: SealedFolder) -> list[str]:
    """Digests of the code by which the shards were done."""
    return sorted({folder.read_json(name)["code"] for name in folder.names(f"{SHARD_DONE}-")})


def begun_under(run: Run, stage: Stage) -> str | None:
    """The key under which an unfinished stage was begun; None if there is none."""
    path = run.workspace.stage(stage.name)
    if not SealedFolder.is_at(path):
        return None
    folder = SealedFolder.open(path, [run.identity], role=stage.name)
    key: str | None = folder.read_json(BEGUN)["key"] if folder.has(BEGUN) else None
    return key


def _stands(stage: Stage, run: Run, folder: SealedFolder, origin: Origin) -> bool:
    """Whether the stage is finished and to be left as it is."""
    manifest = folder.manifest
    if manifest is None:
        return False
    if manifest["key"] == origin.key:
        if stage.intact is None or stage.intact(run, folder):
            return True
        run.progress.say(f"{stage.name}: what it left is gone or damaged, so it is made again")
        return False
    if stage.renewable and manifest.get("inputs") == origin.inputs:
        run.progress.say(f"{stage.name}: its settings changed, so it is made again")
        return False
    raise UserError(
        f"stage {stage.name} in {run.workspace.path}",
        "it was made from other text or settings, and results are never mixed",
        "use another workspace (--set workspace=...)",
    )


def _begin(stage: Stage, run: Run, folder: SealedFolder, origin: Origin) -> None:
    """Leave in the folder what was made under this key alone, and the key."""
    mine = folder.has(BEGUN) and folder.read_json(BEGUN)["key"] == origin.key
    if not mine and stage.guard is not None and (folder.names() or _subfolders(folder)):
        stage.guard(run)
    folder.unfinish()
    if not mine:
        _empty(folder)
        folder.write_json(BEGUN, {"key": origin.key, "code": code_digest()})


def _empty(folder: SealedFolder) -> None:
    # First: a folder that is emptied in part belongs to no key any more.
    folder.remove(BEGUN)
    for name in folder.names():
        folder.remove(name)
    for path in _subfolders(folder):
        shutil.rmtree(path)


def _subfolders(folder: SealedFolder) -> list[Path]:
    return [path for path in folder.path.iterdir() if path.is_dir()]


def _recorded(folder: SealedFolder) -> dict[str, Any]:
    recorded: dict[str, Any] = folder.manifest or folder.read_json(BEGUN)
    return recorded


def _build(stage: Stage, run: Run, folder: SealedFolder, origin: Origin) -> None:
    run.progress.say(stage.name)
    started = time.monotonic()
    with run.progress.bar(stage.name) as report:
        fields = stage.build(run, folder, report)
    folder.finish(
        {
            **fields,
            "stage": stage.name,
            "key": origin.key,
            "config": digest(origin.settings),
            "inputs": origin.inputs,
            "seconds": round(time.monotonic() - started, 3),
            "version": version("dpmlm-framework"),
            "code": code_digest(),
        }
    )


@functools.cache
def code_digest() -> str:
    """Digest of the source files, models and policies of this package as they are installed."""
    specs = [find_spec(name) for name in PACKAGES]
    return tree_digest(
        Path(place) for spec in specs if spec for place in spec.submodule_search_locations or ()
    )


def tree_digest(roots: Iterable[Path]) -> str:
    """Digest over names and bytes of all files below the folders, compiled ones apart."""
    files = {
        f"{root.name}/{path.relative_to(root).as_posix()}": path
        for root in roots
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return digest(
        {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    )
