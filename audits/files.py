"""Files that an audit is pointed at: canaries, plans, and where evidence may be written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audits.claim.gating import check_plan
from audits.planting.canaries import PUBLIC_SCHEMA, CanarySet
from audits.planting.labels import Labels
from dpmlm.artifacts import Identity, SealedFolder, UserError

NO_CLAIM: dict[str, Any] = {
    "epsilon": "inf",
    "delta": 1e-6,
    "noise_multiplier": 0.0,
    "sample_rate": 1.0,
    "steps": 1,
}
"""Stands for a plan where a model claims nothing: figures are told, and no claim is tested."""


def read_json(path: Path, option: str) -> Any:
    """A JSON file that an option names."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{option} {path}", f"no JSON can be read there ({type(error).__name__})", "check it"
        ) from None


def read_set(path: Path, identities: Sequence[Identity], option: str) -> CanarySet:
    """A canary file, or a sealed folder of one: the secrets, their labels left closed."""
    if path.is_dir():
        return CanarySet.read(SealedFolder.open(path, list(identities), role="canaries"))
    value = read_json(path, option)
    if not isinstance(value, dict):
        raise UserError(
            f"{option} {path}", "a canary file is a JSON object", "pass the one the run wrote"
        )
    return CanarySet.from_json(value)


def labels_beside(canaries: Path) -> Path:
    """Where the labels of canaries are looked for: c.labels.json beside c.json, or in their sealed
    folder."""
    return canaries if canaries.is_dir() else canaries.with_name(f"{canaries.stem}.labels.json")


def refuse_absent(labels: Path) -> None:
    """Raise UserError where no labels are, before all work."""
    if not labels.exists():
        raise UserError(
            f"--labels {labels}",
            "it is not there, and scores say nothing without the labels that were drawn",
            "name the labels that `dpmlm audit canaries plan` wrote",
        )


def read_labels(path: Path, identities: Sequence[Identity]) -> Labels:
    """A file of labels, or a sealed folder that holds some."""
    if path.is_dir():
        return Labels.read(SealedFolder.open(path, list(identities), role="canaries"))
    try:
        return Labels.from_json(read_json(path, "--labels"))
    except UserError as error:
        raise UserError(f"--labels {path}: {error.given}", error.rule, error.next_step) from None


def read_commitment(path: Path) -> str:
    """What a public file commits to. Raises UserError for a file that nobody may publish."""
    value = read_json(path, "--commitment")
    found = value if isinstance(value, dict) else {}
    if set(found) & {"nonce", "labels_digest", "included"}:
        raise UserError(
            f"--commitment {path}",
            "it holds secrets or labels, and whoever has them can write a commitment to any others",
            "pass the public file that `dpmlm audit canaries plan` wrote beside them",
        )
    bound = found.get("commitment") if found.get("schema") == PUBLIC_SCHEMA else None
    if not isinstance(bound, str):
        raise UserError(
            f"--commitment {path}",
            f"it is the public file that `dpmlm audit canaries plan` wrote, of {PUBLIC_SCHEMA}",
            "pass that file",
        )
    return bound


def read_claim(path: Path) -> dict[str, Any]:
    """A plan.json, or the five numbers of a claim written by hand."""
    value = read_json(path, "--plan")
    if not isinstance(value, dict):
        raise UserError(f"--plan {path}", "a plan is a JSON object", "pass the bundle's plan.json")
    try:
        check_plan(value)
    except UserError as error:
        raise UserError(f"--plan {path}: {error.given}", error.rule, error.next_step) from None
    return value


def plan_beside(model: Path, canaries: Path) -> Path | None:
    """The plan.json that lies with the model, in its bundle, or with the canaries."""
    places = [folder / "plan.json" for folder in (model, model.parent, canaries.parent)]
    return next((place for place in places if place.is_file()), None)


def refuse_present(path: Path, option: str) -> None:
    """Raise UserError unless `path` can be written anew."""
    if path.exists():
        raise UserError(f"{option} {path}", "it is there already", "name a new file")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}", "its folder is not there", "make the folder first")
