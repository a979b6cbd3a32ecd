"""Runs found on disk, and one of them shown: `dpmlm runs list` and `dpmlm runs show`.

All of it but what `--show-private` adds is read from files in clear, without a key: run.json, which
stages have a manifest, and the bundle's public files, held against the digests in its manifest,
whose signature `dpmlm verify` checks. What is broken is listed with what is wrong.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from dpmlm.artifacts import Identity, SealedFolder, load_identity
from dpmlm.canonical import digest
from dpmlm.config import load_config
from dpmlm.errors import UserError, visible
from dpmlm.pipeline.jumps import loss_jumps
from dpmlm.pipeline.sources import sources_of
from dpmlm.pipeline.workspace import BUNDLE, SCHEMA
from dpmlm.release.inventory import MANIFEST, release_digest
from dpmlm.release.signed import peek

STAGES = (
    "planted", "corpus", "scrub", "dedup", "recall", "tokens", "canaries", "plan", "training",
    "control", "evaluation", "audit", "release", "checkpoints", "model",
)  # fmt: skip
"""Folders of a workspace, a run's in their usual order and then a `Trainer`'s."""
_COUNTED = ("corpus", "scrub", "dedup", "tokens")
_NEEDED = (*_COUNTED, "plan", "training")
"""Stages without which there is no release of a run."""
_SHOWN = ("statement.json", "ledger.json", "plan.json", "decision.json", "evidence.json")
"""Files of a bundle that are read here."""
_PLAN = ("epsilon", "delta", "unit", "units", "steps", "sample_rate", "noise_multiplier",
         "max_grad_norm", "accountant", "bands", "scope")  # fmt: skip
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


@dataclass(frozen=True)
class Listing:
    """Every workspace below a folder."""

    root: str
    entries: list[Entry]
    unreadable: list[str]
    """Folders that could not be looked into."""

    def to_json(self) -> dict[str, Any]:
        runs = [entry.to_json() for entry in self.entries]
        return {"root": self.root, "runs": runs, "unreadable": self.unreadable}

    def text(self) -> str:
        rows = [("name", "verdict", "epsilon", "steps", "reached", "when", "workspace")]
        rows += [
            (
                entry.name or "?", entry.verdict or "-", spelled(entry.epsilon),
                spelled(entry.steps), entry.reached, entry.created or "-",
                spelled(entry.workspace),
            )
            for entry in self.entries
        ]  # fmt: skip
        lines = columns(rows) if self.entries else [f"no run below {self.root}"]
        lines += problems(self.entries)
        lines += [f"! {spelled(path)}: it cannot be read" for path in self.unreadable]
        return "\n".join(lines)


def list_runs(root: Path) -> Listing:
    """Every workspace at or below `root`, by path; links are not followed."""
    if not root.is_dir():
        raise UserError(f"folder {root}", "there is no such folder", "check the path")
    found: list[Path] = []
    unreadable: list[str] = []

    def failed(error: OSError) -> None:
        unreadable.append(str(error.filename))

    for base, folders, files in os.walk(root, onerror=failed):
        if MANIFEST not in files and _is_workspace(Path(base)):
            found.append(Path(base))
            folders.clear()
    return Listing(str(root), [entry_of(path) for path in sorted(found)], sorted(unreadable))


def entry_of(path: Path) -> Entry:
    """What a workspace says about itself; one that is broken says what is wrong."""
    stages = _stages(path)
    try:
        marker = _marker(path)
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
            **{name: _text(signed[name]) for name in ("verdict", "created", "model_digest")},
            "release": release_digest(signed["files"]),
            "consumers": len(signed["recipients"]["consumers"]),
            "run_id": _text(ledger["run_id"]),
            "epsilon": claim["epsilon"] if claim["epsilon"] == "inf" else _number(claim["epsilon"]),
            "delta": _number(claim["delta"]),
            "unit": _text(claim["unit"]),
            "sentence": _text(claim["sentence"]),
            "continues": _continued(claim),
        }

    return _sound(path, facts)


@dataclass(frozen=True)
class Shown:
    """One run in full."""

    entry: Entry
    settings: dict[str, Any]
    claim: str | None
    """The statement's sentence; None without a bundle."""
    plan: dict[str, Any]
    """Its public constants; empty without a bundle."""
    rules: dict[str, str]
    """Rule of the policy to what became of it."""
    audit: dict[str, Any]
    """Public figures of the audits."""
    private: dict[str, Any] | None = field(default=None, repr=False)
    """Counts of the data stages and figures on held-out text; None unless they were asked for."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "entry": self.entry.to_json()}

    def text(self) -> str:
        entry = self.entry
        rows = [
            ("run", entry.name or "?"), ("workspace", entry.workspace), ("state", entry.state),
            ("problem", entry.problem), ("verdict", entry.verdict), ("created", entry.created),
            ("run id", entry.run_id), ("release", entry.release), ("model", entry.model_digest),
            ("bundle", entry.bundle), ("continues", entry.continues),
        ]  # fmt: skip
        lines = [f"{name:<12} {spelled(value)}" for name, value in rows if value]
        for title, part in (
            ("stages", entry.stages), ("settings", self.settings), ("plan", self.plan),
            ("rules", self.rules), ("audit", self.audit),
        ):  # fmt: skip
            lines += [
                title,
                *(f"  {spelled(key):<36} {spelled(value)}" for key, value in flat(part)),
            ]
        if self.private:
            from dpmlm.pipeline.summary import private_rows

            lines += ["private", *(f"  {name:<12} {spelled(value)}" for name, value in
                                   private_rows(self.private))]  # fmt: skip
        return "\n".join([*lines, "", self.claim] if self.claim else lines)


def show_run(
    path: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    identity: Path | None = None,
    private: bool = False,
    sources: bool = False,
) -> Shown:
    """One run by its workspace or its run file, whose fields `overrides` change.

    With `private`, what is computed from private text too: `identity` opens it, or the run file's;
    with `sources`, which files the corpus was read from, too: all of its text is read for that.
    Raises UserError where there is no run.
    """
    if path.is_dir() or path.suffix.lower() not in (".yaml", ".yml"):
        if overrides:
            raise UserError(
                f"--set for {path}", "it changes fields of a run file", "name the run file"
            )
        workspace = path
    else:
        config = load_config(path, dict(overrides or {}))
        workspace, identity = config.workspace, identity or config.keys.identity
    if not (workspace / "run.json").exists() and not _is_workspace(workspace):
        raise UserError(
            f"run {path}",
            f"there is no run in {workspace}",
            "name a workspace, or the run file of a run that was begun",
        )
    entry = entry_of(workspace)
    opened = _identity(path, identity) if private else None
    figures = None if opened is None else private_of(workspace, opened, sources=sources)
    if entry.name is None or (entry.state == "broken" and entry.bundle is None):
        return Shown(entry, {}, None, {}, {}, {}, figures)
    settings = _marker(workspace)["settings"]
    if not private:
        settings = _without_sources(settings)
    if entry.bundle is None:
        return Shown(entry, settings, None, {}, {}, {}, figures)
    try:
        return _of_bundle(entry, settings, workspace / BUNDLE, figures)
    except UserError as error:
        broken = replace(entry, state="broken", problem=f"{error.given}: {error.rule}")
        return Shown(broken, settings, None, {}, {}, {}, figures)


def _without_sources(settings: dict[str, Any]) -> dict[str, Any]:
    """How many files of the corpus were left out, for their names may say too much."""
    training = settings.get("training")
    if not isinstance(training, dict) or not training.get("leave_out"):
        return settings
    told = f"{len(training['leave_out'])} of its files"
    return settings | {"training": training | {"leave_out": told}}


def _of_bundle(
    entry: Entry, settings: dict[str, Any], bundle: Path, figures: dict[str, Any] | None
) -> Shown:
    from dpmlm.pipeline.summary import attacks

    def whole() -> Shown:
        plan, decision = _read(bundle / "plan.json"), _read(bundle / "decision.json")
        return Shown(
            entry,
            settings,
            _text(_read(bundle / "statement.json")["sentence"]),
            {name: plan[name] for name in _PLAN},
            {_text(rule["id"]): _text(rule["status"]) for rule in decision["rules"]},
            attacks(_read(bundle / "evidence.json")),
            figures,
        )

    return _sound(bundle, whole)


def private_of(workspace: Path, identity: Identity, *, sources: bool = False) -> dict[str, Any]:
    """Counts of the data stages and held-out figures, as far as the run came; private."""
    figures: dict[str, Any] = {"label": "private", "seconds": {}}
    for stage in (*_COUNTED, "evaluation"):
        if not (workspace / stage / "manifest.sealed").exists():
            continue
        folder = SealedFolder.open(workspace / stage, [identity])
        manifest = folder.manifest or {}
        figures["seconds"][stage] = manifest.get("seconds", 0.0)
        if stage != "evaluation":
            figures[stage] = manifest.get("counts", {})
        elif folder.has("evaluation"):
            figures[stage] = folder.read_json("evaluation")
        if sources and stage == "corpus":
            figures["sources"] = sources_of(folder)
    if (jumps := loss_jumps(workspace, identity)) is not None:
        figures["loss_jumps"] = jumps
    return figures


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values under dotted keys."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _is_workspace(path: Path) -> bool:
    """Whether run.json is ours, or damaged or gone among stages of ours."""
    try:
        return bool(_marker(path))
    except UserError:
        # A model alone may be a bundle's.
        return any(SealedFolder.is_at(path / stage) for stage in STAGES if stage != "model")


def _marker(path: Path) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        marker: dict[str, Any] = _read(path / "run.json")
        known = marker["schema"] == SCHEMA and isinstance(marker["settings"], dict)
        if not known or not str(marker["name"]).isprintable() or "digest" not in marker:
            raise ValueError("run.json is of another kind")
        return marker

    return _sound(path / "run.json", read)


def _name(path: Path) -> str | None:
    try:
        return str(_marker(path)["name"])
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


def _sound(path: Path, read: Callable[[], _T]) -> _T:
    """What `read` gives, or a UserError that the file or folder is damaged."""
    try:
        return read()
    except OSError as error:
        rule = f"it cannot be read ({error.strerror})"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        rule = "it is damaged"
    raise UserError(str(path), rule, "restore it from a copy, or run `dpmlm run` again")


def _read(path: Path) -> Any:
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


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("no printable text")
    return value


def _continued(claim: Mapping[str, Any]) -> str | None:
    """Of a statement; bundles of earlier versions continue none."""
    found = claim.get("continues")
    return None if found is None else _text(found["release"])


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no number")
    return value


def _identity(path: Path, identity: Path | None) -> Identity:
    if identity is None:
        raise UserError(
            f"--show-private for {path}",
            "a private key opens what is computed from private text",
            "give --identity KEY, or name the run file",
        )
    return load_identity(identity)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def spelled(value: Any) -> str:
    """A value for a person; a dash for none. What a terminal might obey is spelled out."""
    if value is None or value == {}:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return visible(text)


def problems(entries: Sequence[Entry]) -> list[str]:
    """What is wrong with any of them, a line each."""
    return [f"! {spelled(e.workspace)}: {spelled(e.problem)}" for e in entries if e.problem]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, every column as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths)).rstrip() for row in rows]
