"""Many workers on one stage: each does its shards beforehand, and the run takes them up.

Worker `rank` of `world_size` does the shards rank, rank + world_size, ... of a stage: in a Slurm
array, or any other way of starting the same command on machines that share the workspace. Ray
does the same with actors that keep their model (`on_ray.py`). Which worker did a shard leaves no
trace in it, and a shard that is there is left alone: a worker that was killed is just started
again, and the run that follows does whatever is missing.

The workspace lets many workers in, or one run, never both.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dpmlm.artifacts import SealedFolder
from dpmlm.config import RunConfig
from dpmlm.corpus import count_shards
from dpmlm.errors import UserError
from dpmlm.pipeline.accounts import open_ledger
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.data import data_stages
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.stages import Stage, begin, begun_under, do_shard
from dpmlm.pipeline.tombstones import refuse_forgotten
from dpmlm.pipeline.workspace import deciding_settings


@dataclass(frozen=True)
class Work:
    """A stage that was begun, and how many shards it has."""

    stage: Stage
    folder: SealedFolder
    shards: int
    finished: bool
    """Whether the stage is done and nothing is left to do."""
    key: str
    """Under which it was begun."""

    @contextmanager
    def entered(self, run: Run) -> Iterator[Callable[[int], None]]:
        """What does one shard, by its number, with a model that stays while this is entered."""
        assert self.stage.shards is not None
        with self.stage.shards(run) as do:
            yield lambda number: do_shard(
                self.folder, number, do, lambda done, total: None, key=self.key
            )


def work(config: RunConfig, stage: str, *, rank: int, world_size: int) -> None:
    """Do this worker's shards of a stage whose input is finished.

    Raises UserError for a rank that is none, a stage without shards, a workspace that no run has
    begun or that one works in, or a stage before it that has not finished.
    """
    if world_size < 1 or not 0 <= rank < world_size:
        raise UserError(
            f"--rank {rank} --world-size {world_size}",
            "ranks are counted from 0 and are smaller than the world",
            "in a Slurm array give $SLURM_ARRAY_TASK_ID and $SLURM_ARRAY_TASK_COUNT",
        )
    run = Run.load(config, Progress())
    me = f"{stage}-{rank}"
    with run.workspace.shared(me):
        task = prepare(run, stage, worker=me)
        if task.finished:
            run.progress.say(f"{stage}: done before")
            return
        mine = range(rank, task.shards, world_size)
        do_shards(run, task, mine, f"{stage} {rank}/{world_size}")


def do_shards(run: Run, task: Work, shards: Sequence[int], label: str) -> None:
    """Do some shards of a stage here."""
    run.progress.say(label)
    with run.progress.bar(label) as report, task.entered(run) as do:
        for count, number in enumerate(shards, start=1):
            do(number)
            report(count, len(shards))


def prepare(run: Run, name: str, *, worker: str) -> Work:
    """Begin a stage, or join those who began it, as a worker who is in the workspace already.

    Raises UserError where beginning would throw away what others are at work on.
    """
    stages = {stage.name: stage for stage in data_stages(run.config) if stage.shards}
    if name not in stages:
        raise UserError(
            f"stage {name!r}",
            "its work is not done in shards",
            f"workers help with {' and '.join(stages)}",
        )
    stage, workspace = stages[name], run.workspace
    if not workspace.check(run.config.name, deciding_settings(run.config)):
        raise UserError(
            f"workspace {workspace.path}",
            "no run has begun in it",
            "take the run to the stage before: dpmlm run RUN.yaml --until corpus",
        )
    refuse_forgotten(run, open_ledger(run.config.ledger))
    shards = count_shards(run.source(name))
    origin = stage.origin(run)
    with workspace.beginning():
        begun = begun_under(run, stage)
        if begun not in (None, origin.key) and workspace.other_workers(worker):
            raise UserError(
                f"stage {name} in {workspace.path}",
                "other workers do it with other settings or another key",
                "wait for them or stop them, and start all workers with the same",
            )
        folder, finished = begin(run, stage, origin)
    return Work(stage, folder, shards, finished, origin.key)
