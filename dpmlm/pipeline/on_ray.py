"""The same work on a Ray cluster: actors that load the model once and do shard after shard.

Extra `[ray]`. What goes through Ray is the run's settings, the numbers of shards, and nothing of
the text: an actor opens the sealed shard and seals its result itself, in the workspace that all
machines share, with the keys that lie where the run file says. Ray may spill what it holds to
disk in clear, so no text is ever given to it; its usage report is off.
"""

import os
import socket
from collections import deque
from importlib import import_module
from typing import Any

from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.workers import Work, prepare

RAY = "ray"
"""The worker whose lock is held for all actors."""
LOCAL = "local"
"""Address that starts a cluster on this machine for the time of the call."""


def work_on_ray(config: RunConfig, stage: str, *, address: str, actors: int) -> None:
    """Do all missing shards of a stage with actors of the Ray cluster at `address`.

    Raises UserError as `workers.work` does, for less than one actor, and where Ray is missing or
    no cluster answers.
    """
    if actors < 1:
        raise UserError(f"--actors {actors}", "at least one does the work", "give 1 or more")
    ray = _ray()
    run = Run.load(config, Progress())
    with run.workspace.shared(RAY):
        task = prepare(run, stage, worker=RAY)
        if task.finished:
            run.progress.say(f"{stage}: done before")
            return
        _connect(ray, address, actors)
        try:
            _spread(ray, run, stage, task, min(actors, max(1, task.shards)))
        finally:
            ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return import_module("ray")
    except ModuleNotFoundError:
        raise UserError(
            "--ray", "Ray is not installed", "pip install 'dpmlm-framework[ray]'"
        ) from None


def _connect(ray: Any, address: str, actors: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        ray.init(num_cpus=actors, include_dashboard=False, **quiet)
        return
    try:
        if address != "auto":  # Ray itself waits for minutes where nobody answers
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--ray {address}",
            f"no cluster lets us in there ({type(error).__name__})",
            f"start one with `ray start --head`, give its token, or --ray {LOCAL}",
        ) from None


def _spread(ray: Any, run: Run, stage: str, task: Work, actors: int) -> None:
    """Give each actor the next shard whenever it is done with one, the first to come first.

    An actor that the cluster has no room for yet is given nothing. A shard whose actor died is
    done by another one; no actor is started again.
    """
    remote = ray.remote(num_cpus=1)(_Actor)
    pool = [remote.remote(run.config, stage, task.key) for _ in range(actors)]
    waiting, idle, done = deque(range(task.shards)), deque[Any](), 0
    busy: dict[Any, tuple[Any, int | None]] = {a.enter.remote(): (a, None) for a in pool}
    run.progress.say(f"{stage} on {actors} actors")
    with run.progress.bar(stage) as report:
        while busy and done < task.shards:
            (ready,), _ = ray.wait(list(busy), num_returns=1)
            actor, number = busy.pop(ready)
            try:
                ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayActorError:
                waiting.extend(() if number is None else (number,))
            else:
                idle.append(actor)
                done += number is not None
                report(done, task.shards)
            while waiting and idle:
                actor, number = idle.popleft(), waiting.popleft()
                busy[actor.do.remote(number)] = (actor, number)
    if done < task.shards:
        raise UserError(
            f"--ray with {actors} actors",
            f"they died before {stage} was done, for want of memory perhaps",
            "start it again, with fewer actors: what is done stays",
        )


class _Actor:
    """One worker process: the stage's work, entered once and left when the process ends."""

    def __init__(self, config: RunConfig, stage: str, key: str) -> None:
        # One process each: the cluster has one core for an actor.
        alone = config.scrub.model_copy(update={"processes": config.scrub.processes or 1})
        self._config = config.model_copy(update={"scrub": alone})
        self._stage, self._key = stage, key

    def enter(self) -> None:
        """Load keys and model; what is wrong with this machine's is said here."""
        run = Run.load(self._config, Progress(quiet=True))
        task = prepare(run, self._stage, worker=RAY)
        if task.key != self._key:
            raise UserError(
                f"stage {self._stage} on a machine of the cluster",
                "its settings or keys are not those of this one",
                "give all machines the same run file, keys and code",
            )
        self._entered = task.entered(run)
        self._do = self._entered.__enter__()

    def do(self, number: int) -> None:
        """One shard; nothing comes back, for counts are private."""
        self._do(number)
