"""Where figures go, each place with a clearance that is enforced on the way in.

A sink trusts no grouping: a figure's label is looked up by its name, and the group it arrives in
can only make it more secret.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from dpmlm.artifacts.atomic import atomic_write
from dpmlm.errors import UserError
from dpmlm.telemetry.metrics import METRICS, Event, Label

_BEGIN = b'{"step": '
"""How every event file begins."""


class Sink(Protocol):
    """Takes the events of all steps that a checkpoint holds, and gauges of the run.

    Events come after each checkpoint, never before: what an interrupted attempt did since the last
    one is drawn again, and nobody reads it.
    """

    def write(self, events: Sequence[Event]) -> None:
        """All events from the first step on."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """A gauge of GAUGES has a value now; it goes out with the next `write` at the latest."""

    def close(self) -> None:
        """Let go of what is held; nothing is written afterwards."""


class EventFile:
    """One JSON object a step in a file in clear, whole after each checkpoint.

    Raises ValueError for a clearance of PRIVATE: such figures lie in sealed folders alone; and
    UserError where something else than such a file has the name.
    """

    def __init__(self, path: Path, clearance: Label = Label.DP) -> None:
        if clearance is Label.PRIVATE:
            raise ValueError("a file in clear has no clearance for private figures")
        self._path, self._clearance = path, clearance
        _refuse_other_content(path)

    def write(self, events: Sequence[Event]) -> None:
        """Replace the file in one rename."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._path) as file:
            for item in events:
                shown = cleared(item, self._clearance)
                file.write(json.dumps(shown, allow_nan=False).encode() + b"\n")

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Left out: the file is one of steps."""

    def close(self) -> None:
        """Nothing is held between two writes."""


def _refuse_other_content(path: Path) -> None:
    """A mistyped name must not cost a ledger or a corpus."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_BEGIN)) in (_BEGIN, b""):
                return
    elif not path.exists():
        return
    raise UserError(
        f"telemetry file {path}",
        "something else than telemetry lies there, and would be replaced",
        "choose another name",
    )


def cleared(item: Event, clearance: Label) -> Event:
    """The event without what is more secret than `clearance`.

    Raises KeyError for a figure or a label that nobody declared.
    """
    shown: Event = {"step": item["step"]}
    for group, values in item.items():
        if group == "step":
            continue
        for name, value in values.items():
            secrecy = max(Label(group).secrecy, METRICS[name].label.secrecy)
            if secrecy <= clearance.secrecy:
                shown.setdefault(group, {})[name] = value
    return shown


def flat(item: Event) -> dict[str, Any]:
    """The figures of an event by their names alone."""
    groups = [values for group, values in item.items() if group != "step"]
    return {name: value for values in groups for name, value in values.items()}
