"""A folder that TensorBoard shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpmlm.errors import UserError
from dpmlm.telemetry.gauges import GAUGES
from dpmlm.telemetry.metrics import Event, Label
from dpmlm.telemetry.sinks import cleared, flat


class TensorBoard:
    """Figures of each step, and gauges at the step that came last, as scalars.

    Of all steps the number takes the place of the time at which it was written, unless `times`. The
    writer itself notes when it was opened, and the machine's name, in the name of its file. A
    training that is taken up writes all its steps again, and TensorBoard shows the later ones.

    Raises UserError where the package is missing.
    """

    def __init__(self, folder: Path, clearance: Label = Label.DP, *, times: bool = False) -> None:
        if clearance is Label.PRIVATE:
            raise ValueError("a folder in clear has no clearance for private figures")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                f"telemetry.tensorboard {folder}",
                "this needs the package tensorboard, which is not installed",
                "run `pip install 'dpmlm-framework[tensorboard]'`",
            ) from None
        if folder.exists() and not folder.is_dir():
            raise UserError(
                f"telemetry.tensorboard {folder}", "it is no folder", "name a new or an empty one"
            )
        self._make: Any = SummaryWriter
        self._folder, self._clearance, self._times = folder, clearance, times
        self._writer: Any = None
        self._done = 0
        self._gauges: dict[str, float] = {}

    def write(self, events: Sequence[Event]) -> None:
        """Only the steps that were not written yet."""
        if self._writer is None:
            # TensorBoard forgets what earlier files of the folder say of this step and later ones.
            self._writer = self._make(str(self._folder), purge_step=1)
        for item in events[self._done :]:
            for name, value in flat(cleared(item, self._clearance)).items():
                if value is not None:
                    self._add(f"training/{name}", value, item["step"])
        self._done = len(events)
        for name, value in self._gauges.items():
            self._add(f"run/{name}", value, self._done)
        self._writer.flush()

    def gauge(self, name: str, value: float, **labels: str) -> None:
        if GAUGES[name].shown(self._clearance):
            self._gauges["/".join([name, *labels.values()])] = value

    def close(self) -> None:
        if self._writer is not None:
            for name, value in self._gauges.items():
                self._add(f"run/{name}", value, self._done)
            self._writer.close()

    def _add(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step, walltime=None if self._times else float(step))
