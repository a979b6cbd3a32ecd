"""One workspace as it lies on disk, read without a key.

run.json, which stages have a manifest, and the bundle's public files, held against the digests in
its manifest, whose signature `dpmlm verify` checks. What is broken says what is wrong.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from dpmlm.artifacts import SealedFolder
from dpmlm.canonical import digest
from dpmlm.errors import UserError
from dpmlm.pipeline.runs.words import spelled
from dpmlm.pipeline.workspace import BUNDLE, SCHEMA
from dpmlm.release.inventory import MANIFEST, release_digest
from dpmlm.release.signed import peek

STAGES = (
    "planted", "corpus", "scrub", "dedup", "recall", "tokens", "canaries", "plan", "training",
    "control", "evaluation", "audit", "release", "checkpoints", "model",
)  # fmt: skip
"""Folders of a workspace, a run's in their usual order and then a `Trainer`'s."""
COUNTED = ("corpus", "scrub", "dedup", "tokens")
"""Stages that count documents."""
_NEEDED = (*COUNTED, "plan", "training")
"""Stages without which there is no release of a run."""
_SHOWN = ("statement.json", "ledger.json", "plan.json", "decision.json", "evidence.json")
"""Files of a bundle that are read here."""
_LARGEST = 256 << 20
_T = TypeVar("_T")


@dataclass(frozen=True)
class Entry:
    """One workspace as it lies on disk; nothing in it is private."""

    workspace: str
    name: str | None = None
    """As run.json says; None where it cannot be read."""
    kind: str = "run"
    """run, or trainer for one of `dpmlm.Trainer`."""
    state: str = "unfinished"
    """released, unfinished or broken."""
    stages: dict[str, str] = field(default_factory=dict)
    """Stage to finished or begun; a stage that was not begun is left out."""
    verdict: str | None = None
    epsilon: float | str | None = None
    """Of the claim where there is a bundle, else of the settings."""
    delta: float | None = None
    steps: int | None = None
    """Of the settings."""
    bundle: str | None = None
    release: str | None = None
    """Digest that names the release."""
    model_digest: str | None = None
    run_id: str | None = None
    """Its name in the ledger."""
    continues: str | None = None
    """Digest that names the release which it continues; None for one that continues none."""
    created: str | None = None
    """When the bundle was made, else when the workspace was begun."""
    problem: str | None = None
    """What is wrong with it."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def reached(self) -> str:
        """The last stage that it came to, for a person."""
        last = list(self.stages.items())[-1:]
        return " ".join(f"{name} ({state})" for name, state in last) or "nothing yet"


def entry_of(path: Path) -> Entry:
    """What a workspace says about itself; one that is broken says what is wrong."""
    stages = _stages(path)
    try:
        marker = marker_of(path)
        bundle = read_bundle(path / BUNDLE)
    except UserError as error:
        known = {"stages": stages, "state": "broken", "problem": f"{error.given}: {error.rule}"}
        return Entry(str(path), name=_name(path), **known)  # type: ignore[arg-type]
    settings, problem = marker["settings"], None
    released = stages.get("release") == "finished"
    if released and bundle is None:
        problem = "its bundle is gone; `dpmlm run` of its run file makes it again"
    missing = [stage for stage in _NEEDED if stages.get(stage) != "finished"]
    if released and missing and settings.get("privacy"):
        problem = f"stages of a released run are gone or cut: {', '.join(missing)}"
    if digest(settings) != marker["digest"]:
        problem = "run.json was changed: its settings are not those of its digest"
    privacy, training = settings.get("privacy", {}), settings.get("training", {})
    planned = {
        "epsilon": privacy.get("epsilon"),
        "delta": privacy.get("delta"),
        "steps": training.get("steps"),
        "created": _time((path / "run.json").stat().st_mtime),
    }
    told = {key: value for key, value in (bundle or {}).items() if key in Entry.__annotations__}
    state = "released" if released and bundle else "unfinished"
    return Entry(
        workspace=str(path),
        name=marker["name"],
        kind="run" if privacy else "trainer",
        state="broken" if problem else state,
        stages=stages,
        bundle=str(path / BUNDLE) if bundle else None,
        problem=problem,
        **{**planned, **told},
    )


def read_bundle(path: Path) -> dict[str, Any] | None:
    """Public facts of a bundle as its files say them; None where there is none.

    Raises UserError for one that is damaged.
    """
    if not path.is_dir():
        return None

    def facts() -> dict[str, Any]:
        signed = peek((path / MANIFEST).read_bytes())[1]["predicate"]
        claim, ledger, *_ = (_as_signed(path, name, signed["files"]) for name in _SHOWN)
        return {
            **{name: printable(signed[name]) for name in ("verdict", "created", "model_digest")},
            "release": release_digest(signed["files"]),
            "consumers": len(signed["recipients"]["consumers"]),
            "run_id": printable(ledger["run_id"]),
            "epsilon": claim["epsilon"] if claim["epsilon"] == "inf" else _number(claim["epsilon"]),
            "delta": _number(claim["delta"]),
            "unit": printable(claim["unit"]),
            "sentence": printable(claim["sentence"]),
            "continues": _continued(claim),
        }

    return sound(path, facts)


def is_workspace(path: Path) -> bool:
    """Whether run.json is ours, or damaged or gone among stages of ours."""
    try:
        return bool(marker_of(path))
    except UserError:
        # A model alone may be a bundle's.
        return any(SealedFolder.is_at(path / stage) for stage in STAGES if stage != "model")


def marker_of(path: Path) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        marker: dict[str, Any] = read_json(path / "run.json")
        known = marker["schema"] == SCHEMA and isinstance(marker["settings"], dict)
        if not known or not str(marker["name"]).isprintable() or "digest" not in marker:
            raise ValueError("run.json is of another kind")
        return marker

    return sound(path / "run.json", read)


def _name(path: Path) -> str | None:
    try:
        return str(marker_of(path)["name"])
    except UserError:
        return None


def _stages(path: Path) -> dict[str, str]:
    states = {}
    for stage in STAGES:
        if (path / stage / "manifest.sealed").is_file():
            states[stage] = "finished"
        elif (path / stage).is_dir():
            states[stage] = "begun"
    return states


def sound(path: Path, read: Callable[[], _T]) -> _T:
    """What `read` gives, or a UserError that the file or folder is damaged."""
    try:
        return read()
    except OSError as error:
        rule = f"it cannot be read ({error.strerror})"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        rule = "it is damaged"
    raise UserError(str(path), rule, "restore it from a copy, or run `dpmlm run` again")


def read_json(path: Path) -> Any:
    return json.loads(_bytes(path))


def _as_signed(bundle: Path, name: str, files: Mapping[str, Mapping[str, Any]]) -> Any:
    """A file of a bundle, unless it is another one than the manifest lists."""
    data = _bytes(bundle / name)
    if files[name]["digest"] != "sha256:" + hashlib.sha256(data).hexdigest():
        raise UserError(
            str(bundle / name),
            "it is not the file that the bundle's manifest lists",
            "restore it from a copy, or run `dpmlm run` again",
        )
    return json.loads(data)


def _bytes(path: Path) -> bytes:
    """Of a plain file: of a pipe nothing would come."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("no plain file")
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise ValueError("too large")
    return data


def printable(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("no printable text")
    return value


def _continued(claim: Mapping[str, Any]) -> str | None:
    """Of a statement; bundles of earlier versions continue none."""
    found = claim.get("continues")
    return None if found is None else printable(found["release"])


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no number")
    return value


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def problems(entries: Sequence[Entry]) -> list[str]:
    """What is wrong with any of them, a line each."""
    return [f"! {spelled(e.workspace)}: {spelled(e.problem)}" for e in entries if e.problem]
