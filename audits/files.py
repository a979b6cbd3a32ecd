"""Files that an audit is pointed at: canaries, plans, and where evidence may be written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audits.claim.gating import check_plan
from audits.planting.canaries import CanarySet
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
    """A canary file, or a sealed folder of one."""
    if path.is_dir():
        return CanarySet.read(SealedFolder.open(path, list(identities), role="canaries"))
    value = read_json(path, option)
    if not isinstance(value, dict):
        raise UserError(
            f"{option} {path}", "a canary file is a JSON object", "pass the one the run wrote"
        )
    return CanarySet.from_json(value)


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
