"""One run in full: `dpmlm runs show`.

All of it but what `--show-private` adds is read from files in clear, without a key.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dpmlm.artifacts import Identity, SealedFolder, load_identity
from dpmlm.config import load_config, names_run_file
from dpmlm.errors import UserError
from dpmlm.pipeline.jumps import loss_jumps
from dpmlm.pipeline.runs.entry import (
    COUNTED,
    Entry,
    entry_of,
    is_workspace,
    marker_of,
    printable,
    read_json,
    sound,
)
from dpmlm.pipeline.runs.words import flat, spelled
from dpmlm.pipeline.sources import sources_of
from dpmlm.pipeline.workspace import BUNDLE

_PLAN = ("epsilon", "delta", "unit", "units", "steps", "sample_rate", "noise_multiplier",
         "max_grad_norm", "accountant", "bands", "scope")  # fmt: skip


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
    if path.is_dir() or not names_run_file(path):
        if overrides:
            raise UserError(
                f"--set for {path}", "it changes fields of a run file", "name the run file"
            )
        workspace = path
    else:
        config = load_config(path, dict(overrides or {}))
        workspace, identity = config.workspace, identity or config.keys.identity
    if not (workspace / "run.json").exists() and not is_workspace(workspace):
        raise UserError(
            f"run {path}",
            f"there is no run in {workspace}",
            "name a workspace, or the run file of a run that was begun",
        )
    entry = entry_of(workspace)
    opened = _opener(path, identity) if private else None
    figures = None if opened is None else private_of(workspace, opened, sources=sources)
    if entry.name is None or (entry.state == "broken" and entry.bundle is None):
        return Shown(entry, {}, None, {}, {}, {}, figures)
    settings = marker_of(workspace)["settings"]
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
        plan, decision = read_json(bundle / "plan.json"), read_json(bundle / "decision.json")
        return Shown(
            entry,
            settings,
            printable(read_json(bundle / "statement.json")["sentence"]),
            {name: plan[name] for name in _PLAN},
            {printable(rule["id"]): printable(rule["status"]) for rule in decision["rules"]},
            attacks(read_json(bundle / "evidence.json")),
            figures,
        )

    return sound(bundle, whole)


def private_of(workspace: Path, identity: Identity, *, sources: bool = False) -> dict[str, Any]:
    """Counts of the data stages and held-out figures, as far as the run came; private."""
    figures: dict[str, Any] = {"label": "private", "seconds": {}}
    for stage in (*COUNTED, "evaluation"):
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


def _opener(path: Path, identity: Path | None) -> Identity:
    if identity is None:
        raise UserError(
            f"--show-private for {path}",
            "a private key opens what is computed from private text",
            "give --identity KEY, or name the run file",
        )
    return load_identity(identity)
