"""`Sinks`: several sinks as one, of which none can end a training."""

import warnings
from collections.abc import Callable, Mapping, Sequence

from dpmlm.errors import UserError
from dpmlm.telemetry.gauges import GAUGES, gauge
from dpmlm.telemetry.metrics import Event
from dpmlm.telemetry.sinks import Sink


class Sinks:
    """Hands everything to each of its sinks; the first failure of one is its last call.

    That it failed is said once, as a warning, and to the others as the gauge `sink_up`. Gauges
    that tell the time go on to nobody unless `times` is true.
    """

    def __init__(self, sinks: Mapping[str, Sink], *, times: bool = False) -> None:
        """`sinks` by the names under which `sink_up` and warnings speak of them."""
        self._sinks, self._times = dict(sinks), times

    def announce(self) -> None:
        """Tell of each that it is up."""
        for name in list(self._sinks):
            self.gauge("sink_up", 1, sink=name)

    def __len__(self) -> int:
        """How many still take figures."""
        return len(self._sinks)

    def write(self, events: Sequence[Event]) -> None:
        self._each(lambda sink: sink.write(events))

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Raises KeyError or ValueError for what GAUGES does not declare, sinks or none."""
        gauge(name, value, labels)
        if self._times or not GAUGES[name].timing:
            self._each(lambda sink: sink.gauge(name, value, **labels))

    def close(self) -> None:
        self._each(lambda sink: sink.close())
        self._sinks.clear()

    def _each(self, call: Callable[[Sink], None]) -> None:
        failed = []
        for name, sink in list(self._sinks.items()):
            try:
                call(sink)
            except Exception as error:
                del self._sinks[name]
                failed.append(name)
                warnings.warn(_dropped(name, error), stacklevel=3)
        for name in failed:
            self.gauge("sink_up", 0, sink=name)


def _dropped(name: str, error: Exception) -> str:
    """The reason only where it cannot hold a figure: other messages may quote one."""
    known = isinstance(error, UserError)
    reason = str(error) if known else type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    return f"telemetry.{name} failed and gets no more of this run, which goes on: {reason}"
