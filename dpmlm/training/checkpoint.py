"""Sealed checkpoints: weights, optimizer state and counters, whole or not there.

A checkpoint is a `SealedFolder` that takes its name once it is finished; a crash while writing
leaves the one before it. Nothing secret about sampling or noise is in it: an interrupted
attempt's streams end with its process, and the next attempt draws its own.

What it holds is copied first (`prepare`), while nothing is trained, and sealed and written later,
while training goes on. With a local folder it is sealed there, on the machine's own disk, and then
copied to where the training is resumed from.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from dpmlm.artifacts import Identity, Recipient, SealedFolder, SealedTensors, write_tensors
from dpmlm.artifacts.atomic import atomic_write, place_folder
from dpmlm.errors import IntegrityError
from dpmlm.telemetry import Event
from dpmlm.training.best import Best

SCHEMA = 2
ROLE = "checkpoint"
_PIECE = 1 << 20
_NAME = re.compile(r"step-\d{8}")


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
    average: Mapping[str, torch.Tensor] | None = None
    """State of the average of weights, by parameter name; None where none is kept."""
    best: Best | None = None
    """The best weights so far by public text; None where nobody looks."""
    finished: bool = False
    """Whether no step is taken any more, though the plan may have some left."""
    seconds: float = 0.0
    """Wall time of the attempts that led here, as far as checkpoints hold it."""


class Checkpoints:
    """The checkpoints of one training folder; the newest `keep` finished ones are kept.

    `local`, a folder of this training alone, is where they are sealed first.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        recipients: Sequence[Recipient],
        plan_digest: str,
        *,
        keep: int = 1,
        local: Path | None = None,
    ) -> None:
        self._folder, self._identity, self._recipients = folder, identity, recipients
        self._plan_digest, self._keep, self._local = plan_digest, keep, local

    def save(self, model: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
        """Write a checkpoint, then remove those that are too many."""
        self.prepare(model, optimizer, progress)()

    def prepare(
        self, model: nn.Module, optimizer: Optimizer, progress: Progress
    ) -> Callable[[], None]:
        """Copy everything a checkpoint holds; the result, called once, writes it.

        Model and optimizer may change before that. It raises UserError where a disk is full.
        """
        tensors, numbers = _flatten(optimizer)
        # Of tied tensors the model names the first alone.
        files = {"weights": _copied(dict(model.named_parameters())), "optimizer": _copied(tensors)}
        if progress.average is not None:
            files["average"] = _copied(progress.average)
        state: dict[str, Any] = {
            "step": progress.step,
            "attempt": progress.attempt,
            "events": progress.events,
            "optimizer": numbers,
            "finished": progress.finished,
            "seconds": progress.seconds,
        }
        if progress.best is not None:
            files["best"] = dict(progress.best.weights)  # nothing writes to them
            state["best"] = {
                "step": progress.best.step,
                "loss": str(progress.best.loss),  # JSON knows no infinity
                "worse": progress.best.worse,
            }
        transcript = None
        if progress.transcript is not None:
            transcript = progress.transcript.astype("<f4").tobytes()
        return lambda: self._write(progress.step, files, transcript, state)

    def take_up(self) -> None:
        """Bring in what a killed process sealed locally and could not copy any more.

        Not where another attempt left a result since, of fewer steps even: what that one drew was
        seen, and the older draws of the same steps are no part of it. Raises IntegrityError for a
        damaged one of either place.
        """
        for path in _finished(self._local) if self._local else []:
            newest = _finished(self._folder)[-1:]
            if all(path.name > one.name for one in newest):
                with _way_back([*newest, path]):
                    SealedFolder.open(path, [self._identity], role=ROLE).verify()
                with _way_back([path, *newest]):
                    follows = all(self._attempt_of(path) >= self._attempt_of(one) for one in newest)
                if follows:
                    self._copy(path)
            shutil.rmtree(path)

    def load(self, model: nn.Module, optimizer: Optimizer) -> Progress | None:
        """Put the newest checkpoint into model and optimizer; None if there is none.

        Raises IntegrityError for a damaged one, another schema, another plan, another model.
        """
        finished = _finished(self._folder)
        if not finished:
            return None
        path = finished[-1]
        with _way_back(finished):
            sealed = SealedFolder.open(path, [self._identity], role=ROLE)
        self._refuse_foreign(path, sealed.manifest or {})
        with _way_back(finished):
            state = sealed.read_json("state")
            weights = _tensors(sealed, "weights")
            tensors = _tensors(sealed, "optimizer")
            kept = sealed.read_bytes("transcript") if sealed.has("transcript") else None
            best = _tensors(sealed, "best") if "best" in state else None
            average = _tensors(sealed, "average") if sealed.has("average") else None
        _load_weights(model, weights)
        _restore(optimizer, tensors, state["optimizer"])
        transcript = None
        if kept is not None:
            transcript = np.frombuffer(kept, dtype="<f4").reshape(state["step"], -1)
        return Progress(
            state["step"],
            state["attempt"],
            state["events"],
            transcript,
            average=average,
            best=None if best is None else _best(state["best"], best),
            finished=state["finished"],
            seconds=state.get("seconds", 0.0),  # checkpoints of before do not know it
        )

    def _attempt_of(self, path: Path) -> int:
        """Which attempt wrote a checkpoint."""
        state = SealedFolder.open(path, [self._identity], role=ROLE).read_json("state")
        return int(state["attempt"])

    def _write(
        self,
        step: int,
        files: Mapping[str, Mapping[str, torch.Tensor]],
        transcript: bytes | None,
        state: Mapping[str, Any],
    ) -> None:
        name = f"step-{step:08d}"
        if self._local is not None:
            self._local.mkdir(mode=0o700, parents=True, exist_ok=True)
        first = self._local or self._folder
        draft = _new_draft(first)
        sealed = SealedFolder.create(draft, self._recipients, role=ROLE)
        for kind, tensors in files.items():
            write_tensors(sealed, kind, tensors)
        if transcript is not None:
            sealed.write_bytes("transcript", transcript)
        sealed.write_json("state", state)
        sealed.finish(
            {
                "schema": SCHEMA,
                "version": version("dpmlm-framework"),
                "plan": self._plan_digest,
                "step": step,
            }
        )
        place_folder(draft, first / name)
        if self._local is not None:
            self._copy(first / name)
            shutil.rmtree(first / name)
        for other in _finished(self._folder)[: -self._keep]:
            if other.name < name:
                shutil.rmtree(other)

    def _copy(self, sealed: Path) -> None:
        """A finished local checkpoint to the folder, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = _new_draft(self._folder)
        draft.mkdir()
        for file in sealed.iterdir():
            with file.open("rb") as source, atomic_write(draft / file.name) as target:
                shutil.copyfileobj(source, target, _PIECE)
        place_folder(draft, self._folder / sealed.name)

    def _refuse_foreign(self, path: Path, manifest: Mapping[str, Any]) -> None:
        if manifest.get("schema") != SCHEMA:
            writer = manifest.get("version", "an earlier version")
            raise IntegrityError(
                f"checkpoint {path}",
                f"its schema is {manifest.get('schema')}, this version reads {SCHEMA}",
                f"resume with the version that wrote it ({writer}), or use another workspace",
            )
        if manifest["plan"] != self._plan_digest:
            raise IntegrityError(
                f"checkpoint {path}",
                "it belongs to another privacy plan, and a plan is never edited",
                "use another workspace for another plan",
            )


def last_step(folder: Path) -> int:
    """Steps in the newest checkpoint below `folder`, told by its name alone; 0 without one."""
    finished = _finished(folder)
    return int(finished[-1].name.removeprefix("step-")) if finished else 0


def _finished(folder: Path) -> list[Path]:
    """Checkpoints in the order of their steps; of those before the last, parts may be gone. One
    that somebody renamed, to go on from the one before, is none."""
    found = folder.glob("step-*")
    return sorted(p for p in found if p.is_dir() and _NAME.fullmatch(p.name))


def _new_draft(folder: Path) -> Path:
    """A name in `folder` for what is not finished, with nothing under it."""
    draft = folder / "unfinished"
    if draft.exists():  # left by a kill
        shutil.rmtree(draft)
    return draft


@contextmanager
def _way_back(finished: Sequence[Path]) -> Iterator[None]:
    """Where the last is damaged and another is there, the error says how to take that."""
    try:
        yield
    except IntegrityError as error:
        if len(finished) == 1:
            raise
        newest, before = finished[-1], finished[-2]
        raise IntegrityError(
            error.given,
            error.rule,
            f"{error.next_step}; or move {newest} away to go on from {before.name}: the steps "
            "since are then drawn and charged again",
        ) from None


def _tensors(sealed: SealedFolder, kind: str) -> dict[str, torch.Tensor]:
    with sealed.open(kind) as reader:
        return SealedTensors(reader).get_tensors()


def _best(state: Mapping[str, Any], weights: dict[str, torch.Tensor]) -> Best:
    return Best(state["step"], float(state["loss"]), state["worse"], weights)


def _load_weights(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    if parameters.keys() != tensors.keys():
        raise IntegrityError(
            "checkpoint", "its parameters are not this model's", "use another workspace"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)


def _copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """In memory of the processor that nothing else writes to."""
    return {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}


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
