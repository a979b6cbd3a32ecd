"""The same work on a Ray cluster: actors that load the model once and do shard after shard.

Extra `[ray]`. What goes through Ray is the run's settings, the numbers of shards, and nothing of
the text: an actor opens the sealed shard and seals its result itself, in the workspace that all
machines share, with the keys that lie where the run file says. Ray may spill what it holds to
disk in clear, so no text is ever given to it; its dashboard and its usage report are off.
"""

import os
import socket
from importlib import import_module
from typing import Any

from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.workers import prepare

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
    with run.workspace.shared("ray"):
        task = prepare(run, stage)
        if task.finished:
            run.progress.say(f"{stage}: done before")
            return
        _connect(ray, address, actors)
        try:
            _spread(ray, run, stage, task.shards, min(actors, max(1, task.shards)))
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
            f"no cluster answers there ({type(error).__name__})",
            f"start one with `ray start --head`, or give --ray {LOCAL}",
        ) from None


def _spread(ray: Any, run: Run, stage: str, shards: int, actors: int) -> None:
    """Give each actor the next shard whenever it is done with one."""
    remote = ray.remote(num_cpus=1)(_Actor)
    waiting = iter(range(shards))
    pool = [remote.remote(run.config, stage) for _ in range(actors)]
    busy = {actor.do.remote(number): actor for actor, number in zip(pool, waiting)}
    run.progress.say(f"{stage} on {actors} actors")
    with run.progress.bar(stage) as report:
        done = 0
        while busy:
            (ready,), _ = ray.wait(list(busy), num_returns=1)
            actor = busy.pop(ready)
            try:
                ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            done += 1
            report(done, shards)
            number = next(waiting, None)
            if number is not None:
                busy[actor.do.remote(number)] = actor
    for actor in pool:
        ray.get(actor.close.remote())


class _Actor:
    """One worker process: the stage's work, entered once."""

    def __init__(self, config: RunConfig, stage: str) -> None:
        run = Run.load(config, Progress(quiet=True))
        task = prepare(run, stage)
        assert task.stage.shards is not None
        self._folder = task.folder
        self._entered = task.stage.shards(run)
        self._do = self._entered.__enter__()

    def do(self, number: int) -> None:
        """One shard; nothing comes back, for counts are private."""
        self._do(self._folder, number, lambda done, total: None)

    def close(self) -> None:
        """End what the work holds, such as processes of its own."""
        self._entered.__exit__(None, None, None)
