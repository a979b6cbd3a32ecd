"""Sealed checkpoints: weights, optimizer state and counters, whole or not there.

A checkpoint is a `SealedFolder` that takes its name once it is finished; a crash while writing
leaves the one before it. Nothing secret about sampling or noise is in it: an interrupted
attempt's streams end with its process, and the next attempt draws its own.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.optim import Optimizer

from dpmlm.artifacts import Identity, Recipient, SealedFolder
from dpmlm.artifacts.atomic import place_folder
from dpmlm.errors import IntegrityError
from dpmlm.telemetry import Event

SCHEMA = 1
ROLE = "checkpoint"


@dataclass(frozen=True)
class Progress:
    """What a resumed attempt needs to know."""

    step: int
    """Steps whose updates are in the weights."""
    attempt: int
    """The ledger attempt that took the last of them."""
    events: list[Event]
    """Events of those steps, private ones included."""
    transcript: np.ndarray | None = None
    """Noised sums along the gradient canaries, float32 [step, canaries]; None without canaries."""


class Checkpoints:
    """The checkpoints of one training folder; only the newest finished one is kept."""

    def __init__(
        self, folder: Path, identity: Identity, recipients: Sequence[Recipient], plan_digest: str
    ) -> None:
        self._folder, self._identity, self._recipients = folder, identity, recipients
        self._plan_digest = plan_digest

    def save(self, model: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
        """Write a checkpoint, then remove the older ones."""
        target = self._folder / f"step-{progress.step:08d}"
        draft = self._folder / "unfinished"
        if draft.exists():  # left by a kill
            shutil.rmtree(draft)
        sealed = SealedFolder.create(draft, self._recipients, role=ROLE)
        sealed.write_bytes("weights", _tensor_bytes(_weights(model)))
        tensors, numbers = _flatten(optimizer)
        sealed.write_bytes("optimizer", _tensor_bytes(tensors))
        sealed.write_json(
            "state",
            {
                "step": progress.step,
                "attempt": progress.attempt,
                "events": progress.events,
                "optimizer": numbers,
            },
        )
        if progress.transcript is not None:
            sealed.write_bytes("transcript", progress.transcript.astype("<f4").tobytes())
        sealed.finish({"schema": SCHEMA, "plan": self._plan_digest, "step": progress.step})
        place_folder(draft, target)
        for other in self._finished():
            if other.name < target.name:
                shutil.rmtree(other)

    def load(self, model: nn.Module, optimizer: Optimizer) -> Progress | None:
        """Put the newest checkpoint into model and optimizer; None if there is none.

        Raises IntegrityError for a damaged one, another schema, another plan, another model.
        """
        finished = self._finished()
        if not finished:
            return None
        path = finished[-1]
        sealed = SealedFolder.open(path, [self._identity], role=ROLE)
        self._refuse_foreign(path, sealed.manifest or {})
        state = sealed.read_json("state")
        _load_weights(model, safetensors.torch.load(sealed.read_bytes("weights")))
        tensors = safetensors.torch.load(sealed.read_bytes("optimizer"))
        _restore(optimizer, tensors, state["optimizer"])
        transcript = None
        if sealed.has("transcript"):
            rows = np.frombuffer(sealed.read_bytes("transcript"), dtype="<f4")
            transcript = rows.reshape(state["step"], -1)
        return Progress(state["step"], state["attempt"], state["events"], transcript)

    def _refuse_foreign(self, path: Path, manifest: Mapping[str, Any]) -> None:
        if manifest.get("schema") != SCHEMA:
            raise IntegrityError(
                f"checkpoint {path}",
                f"its schema is {manifest.get('schema')}, this version reads {SCHEMA}",
                "resume with the version that wrote it",
            )
        if manifest["plan"] != self._plan_digest:
            raise IntegrityError(
                f"checkpoint {path}",
                "it belongs to another privacy plan, and a plan is never edited",
                "use another workspace for another plan",
            )

    def _finished(self) -> list[Path]:
        """Checkpoints in the order of their steps; of those before the last, parts may be gone."""
        return sorted(path for path in self._folder.glob("step-*") if path.is_dir())


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    # Tied tensors appear once: safetensors refuses shared memory.
    return {name: tensor.detach().contiguous() for name, tensor in model.named_parameters()}


def _load_weights(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    if parameters.keys() != tensors.keys():
        raise IntegrityError(
            "checkpoint", "its parameters are not this model's", "use another workspace"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)


def _tensor_bytes(tensors: dict[str, torch.Tensor]) -> bytes:
    return safetensors.torch.save({name: t.cpu().contiguous() for name, t in tensors.items()})


def _flatten(optimizer: Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Optimizer state as named tensors and plain numbers, without pickle."""
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, float] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if torch.is_tensor(value):
                tensors[f"{index}/{key}"] = value
            else:
                numbers[f"{index}/{key}"] = value
    return tensors, numbers


def _restore(
    optimizer: Optimizer, tensors: dict[str, torch.Tensor], numbers: dict[str, float]
) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **numbers}.items():
        index, key = name.split("/", 1)
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
