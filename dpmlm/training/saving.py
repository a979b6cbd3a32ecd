"""`Saving`: checkpoints written beside the training, and what may follow once one is there.

A thread seals and writes what `Checkpoints.prepare` copied; one at a time. Only when the checkpoint
is on the disk does the ledger hear of it, and only then do sinks get its figures: from the thread
that trains, as the ledger knows no other.
"""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from torch import nn
from torch.optim import Optimizer

from dpmlm.privacy import PrivacyPlan
from dpmlm.telemetry import Event, Sink, Sinks
from dpmlm.training.average import Average
from dpmlm.training.best import PublicChoice
from dpmlm.training.charges import Charges
from dpmlm.training.checkpoint import Checkpoints, Progress
from dpmlm.training.interrupts import Interrupted


class Saving:
    """Of one attempt, on the rank that writes; a context that waits for the last one.

    Nobody waits where a second signal stops the process at once: what is half written then is
    thrown away by the next attempt.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        charges: Charges,
        telemetry: Sequence[Sink],
        *,
        minutes: float,
        begun: int,
    ) -> None:
        """`begun`: steps that the checkpoint holds from which this attempt goes on."""
        self._checkpoints, self._charges = checkpoints, charges
        names = [f"{type(sink).__name__}{n or ''}" for n, sink in enumerate(telemetry)]
        self._sinks = Sinks(dict(zip(names, telemetry)), times=True)  # each sink has its own rule
        self._minutes, self._started = minutes, time.monotonic()
        self._step = begun
        self._writing: _Writing | None = None

    def due(self) -> bool:
        """Whether the last checkpoint was begun so many minutes ago."""
        return time.monotonic() - self._started >= 60 * self._minutes

    def save(
        self, model: nn.Module, optimizer: Optimizer, progress: Progress, *, wait: bool = False
    ) -> None:
        """Begin to write a checkpoint, after the one before is there; nothing to do for a step
        that is saved already. With `wait` it is on the disk on return.

        Raises what writing this one or the one before it raised.
        """
        if progress.step > self._step:
            self.settle()
            write = self._checkpoints.prepare(model, optimizer, progress)
            self._writing = _Writing(write, progress)
            self._step, self._started = progress.step, time.monotonic()
        if wait:
            self.settle()

    def settle(self, *, wait: bool = True) -> None:
        """Tell the ledger and the sinks of a checkpoint that is there now."""
        writing = self._writing
        if writing is None or not (wait or writing.done):
            return
        self._writing = None
        writing.join()
        self._charges.keep(writing.progress.attempt, writing.progress.step)
        self._sinks.gauge("checkpoint_write_seconds", writing.seconds)
        self.tell(writing.progress.events)

    def finish(
        self,
        model: nn.Module,
        progress: Progress,
        plan: PrivacyPlan,
        choice: PublicChoice,
        average: Average | None,
    ) -> None:
        """Put the weights that are released into the model, and commit them: the best by public
        text, or the average, or the last step's.

        When a training ends early depends on what it released: all steps of its plan are claimed.
        """
        released = choice.settle(model)
        if released is None:
            released = progress.step
            if average is not None:
                average.put()
        if progress.step < plan.steps:
            self._charges.forgo(progress.attempt)
        self._charges.commit(progress.attempt, released)

    def tell(self, events: Sequence[Event]) -> None:
        """Give the sinks the events that a checkpoint holds; one that fails gets no more.

        Training goes on without it: a full disk of figures is no reason to lose paid steps.
        """
        self._sinks.write(events)

    def __enter__(self) -> "Saving":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Interrupted):
            return
        try:
            self.settle()
        except Exception:
            if error is None:
                raise


class _Writing:
    """One checkpoint on its way to the disk."""

    def __init__(self, write: Callable[[], None], progress: Progress) -> None:
        self.progress, self.seconds = progress, 0.0
        self._error: BaseException | None = None
        self._write = write
        # A process that is to end at once does not wait for it.
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def join(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        begun = time.monotonic()
        try:
            self._write()
            self.seconds = time.monotonic() - begun
        except BaseException as error:  # raised again where somebody can act
            self._error = error
