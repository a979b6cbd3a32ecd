"""What a run tells those who watch it, from its first stage to its verdict."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dpmlm.canonical import digest
from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.workspace import deciding_settings
from dpmlm.privacy import Ledger, PrivacyPlan
from dpmlm.telemetry import Event, EventFile, Label, Sink, Sinks
from dpmlm.telemetry.mlflow import Mlflow
from dpmlm.telemetry.nvml import Gpus
from dpmlm.telemetry.prometheus import Endpoint, Textfile, is_loopback
from dpmlm.telemetry.tensorboard import TensorBoard

if TYPE_CHECKING:
    from dpmlm.pipeline.run import RunResult

_VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE")


def sinks_of(config: RunConfig) -> Sinks:
    """Where the figures of a run go besides its sealed folder; a port is open from here on.

    Raises UserError for a place that cannot be had, or that lies in the workspace.
    """
    asked = config.telemetry
    near, far = Label(asked.clearance), Label(asked.remote)
    sinks: dict[str, Sink] = {}
    if asked.file is not None:
        _refuse_workspace(config, asked.file, "file")
        sinks["file"] = EventFile(asked.file, near)
    if asked.tensorboard is not None:
        _refuse_workspace(config, asked.tensorboard, "tensorboard")
        sinks["tensorboard"] = TensorBoard(asked.tensorboard, near, times=asked.times)
    if asked.mlflow is not None:
        server = asked.mlflow
        sinks["mlflow"] = Mlflow(
            server.uri, server.experiment, config.name, far,
            settings=digest(deciding_settings(config))[7:23], times=asked.times,
        )  # fmt: skip
    prometheus = asked.prometheus
    if prometheus is not None and prometheus.textfile is not None:
        _refuse_workspace(config, prometheus.textfile, "prometheus.textfile")
        sinks["textfile"] = Textfile(prometheus.textfile, config.name, near)
    if prometheus is not None and prometheus.port is not None:  # last: it has to be closed
        clearance = near if is_loopback(prometheus.address) else far
        sinks["endpoint"] = Endpoint(
            prometheus.port, config.name, clearance, address=prometheus.address
        )
    return Sinks(sinks, times=asked.times)


def check_telemetry(config: RunConfig) -> None:
    """UserError for what a run file asks for and this machine has not."""
    if config.telemetry.gpu:
        Gpus().close()
    sinks_of(config).close()


@contextmanager
def watched(run: Run) -> Iterator[Run]:
    """The run with its sinks open; on the way out they are closed, however it ended."""
    sinks = sinks_of(run.config)
    try:
        sinks.announce()
        sinks.gauge("info", 1, version=version("dpmlm-framework"))
        sinks.gauge("ended", 0)
        yield replace(run, sinks=sinks)
    finally:
        sinks.close()


def tell_result(sinks: Sinks, result: "RunResult", *, covered: bool, covers_verdict: bool) -> None:
    """That the run came to its end, and where it was released what came of that.

    `covered` is false of a plan that promises nothing: there no noise stands between the text and
    what the weights give away, and neither is told. `covers_verdict` is false of a policy that
    looks at private figures, too.
    """
    for verdict in _VERDICTS if result.verdict and covers_verdict else ():
        sinks.gauge("verdict", verdict == result.verdict, verdict=verdict)
    extracted = result.public.get("audit", {}).get("target", {}).get("extracted")
    if extracted is not None and covered:
        sinks.gauge("canaries_extracted", extracted)
    sinks.gauge("ended", 1)


def listened(config: RunConfig) -> bool:
    """Whether anybody hears gauges: the ledger's epsilon takes half a second."""
    asked = config.telemetry
    return bool(asked.prometheus or asked.tensorboard or asked.mlflow)


def tell_account(
    sinks: Sinks, plan: PrivacyPlan, ledger: Ledger, run_id: str, *, step: int, beginning: bool
) -> None:
    """What the plan says, and what the ledger holds of the run; `step` is the newest kept one.

    `beginning`: an attempt that the ledger does not hold yet is about to begin.
    """
    attempts = [e for e in ledger.entries if e["kind"] == "attempt" and e["run_id"] == run_id]
    known = {
        "step": step,  # beside what is charged: alone, that looks like steps drawn again
        "steps_planned": plan.steps,
        "epsilon_planned": plan.epsilon,
        "delta_planned": plan.delta,
        "expected_batch_size": plan.expected_batch_size,
        "epsilon_cap": ledger.cap[0],
        "attempts": len(attempts) + beginning,
    }
    for name, value in known.items():
        sinks.gauge(name, value)
    _tell_spent(sinks, ledger, run_id)


def _tell_spent(sinks: Sinks, ledger: Ledger, run_id: str) -> None:
    sinks.gauge("steps_charged", ledger.drawn_steps(run_id) if run_id in ledger.run_ids else 0)
    sinks.gauge("epsilon_spent", ledger.spent().epsilon)


class Watched:
    """The sinks of a run as its training sees them: gauges that follow from a checkpoint come
    before its events."""

    def __init__(
        self, run: Run, plan: PrivacyPlan, ledger: Ledger, run_id: str, begun: int = 0
    ) -> None:
        """`begun`: steps in the checkpoint that the training goes on from."""
        self._sinks, self._plan, self._ledger, self._run_id = run.sinks, plan, ledger, run_id
        self._listened = listened(run.config)
        self._gpus = Gpus() if run.config.telemetry.gpu else None
        self._tokens = run.config.training.windows_per_draw * run.config.tokens.window
        self._step, self._since = 0, time.monotonic()
        if self._listened:
            tell_account(self._sinks, plan, ledger, run_id, step=begun, beginning=True)

    def write(self, events: Sequence[Event]) -> None:
        if self._listened:
            self._tell(len(events))
        self._sinks.write(events)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self._sinks.gauge(name, value, **labels)

    def close(self) -> None:
        """The run's sinks stay open for its other stages."""
        if self._gpus is not None:
            self._gpus.close()

    def _tell(self, step: int) -> None:
        now = time.monotonic()
        _tell_spent(self._sinks, self._ledger, self._run_id)
        self._sinks.gauge("step", step)
        self._sinks.gauge("checkpoint_timestamp_seconds", time.time())
        if self._step:  # an attempt's first checkpoint may hold steps of an earlier one
            seconds = max(now - self._since, 1e-9)
            speed = (step - self._step) / seconds
            drawn = sum(map(self._plan.batch_at, range(self._step, step))) / seconds
            self._sinks.gauge("steps_per_second", speed)
            self._sinks.gauge("examples_per_second", drawn)
            self._sinks.gauge("tokens_per_second", drawn * self._tokens)
        self._step, self._since = step, now
        if self._gpus is not None:
            self._gpus.tell(self._sinks)


def _refuse_workspace(config: RunConfig, path: Path, name: str) -> None:
    if config.workspace.resolve() in (path.resolve(), *path.resolve().parents):
        raise UserError(
            f"telemetry.{name} {path}",
            "a workspace holds nothing in clear",
            "name a file elsewhere",
        )
