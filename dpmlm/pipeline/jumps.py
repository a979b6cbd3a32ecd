"""Where the training loss of a run jumped, read back from its sealed events; private."""

import json
from pathlib import Path
from typing import Any

from dpmlm.artifacts import Identity, SealedFolder
from dpmlm.pipeline.models import CHECKPOINTS, EVENTS


def loss_jumps(workspace: Path, identity: Identity) -> list[dict[str, Any]] | None:
    """`step` and `above` (nats over the steps before) of each jump, from the finished training or
    else its newest checkpoint; None where neither is there."""
    folder = workspace / "training"
    newest = max((folder / CHECKPOINTS).glob("step-*"), default=None)
    if (folder / "manifest.sealed").is_file():
        lines = SealedFolder.open(folder, [identity]).read_bytes(EVENTS).splitlines()
        events = [json.loads(line) for line in lines]
    elif newest is not None:
        events = SealedFolder.open(newest, [identity]).read_json("state")["events"]
    else:
        return None
    private = [(event["step"], event["private"]) for event in events]
    return [
        {"step": step, "above": figures["loss_jump"]}
        for step, figures in private
        if "loss_jump" in figures
    ]


def jumps_row(jumps: list[dict[str, Any]]) -> tuple[str, str]:
    """For a terminal."""
    said = ", ".join(f"step {jump['step']} (+{jump['above']:.2f} nats)" for jump in jumps)
    return "loss jumps", said or "none"
