"""`dpmlm run`: the whole pipeline, a part of it, or one worker's share of a stage."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dpmlm.cli.options import AsJson, Resume, RunFile, Settings, ShowPrivate, print_json, read_run
from dpmlm.errors import UserError

if TYPE_CHECKING:
    from dpmlm.config import RunConfig


class Until(StrEnum):
    """The last stage of a run that is to go on later."""

    corpus = "corpus"
    scrub = "scrub"
    dedup = "dedup"
    tokens = "tokens"


class Sharded(StrEnum):
    """Stages whose work is done in shards."""

    scrub = "scrub"
    dedup = "dedup"


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    run_file: RunFile,
    settings: Settings = None,
    resume: Resume = True,
    until: Annotated[Until | None, typer.Option(help="Stop after this stage.")] = None,
    shards: Annotated[
        Sharded | None,
        typer.Option(help="As one of several workers, do shards of this stage, and no more."),
    ] = None,
    rank: Annotated[int, typer.Option(help="Which worker this is, from 0.")] = 0,
    world_size: Annotated[int, typer.Option(help="How many workers there are.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Do the shards on a Ray cluster; local starts one."),
    ] = None,
    actors: Annotated[int, typer.Option(help="Ray actors, each with a model of its own.")] = 2,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> int:
    """Take a corpus through every stage to a verdict; repeat it to resume.

    Example: dpmlm run examples/newsgroups/run.yaml --set privacy.epsilon=4
    Example: dpmlm run run.yaml --until corpus
    Example: dpmlm run run.yaml --shards scrub --rank 3 --world-size 16
    """
    config = read_run(run_file, settings)
    if shards is not None:
        _work(config, shards.value, rank, world_size, ray, actors)
        return 0
    if ray is not None or (rank, world_size) != (0, 1):
        raise UserError(
            "--rank, --world-size or --ray without --shards",
            "workers do shards of one stage",
            "add --shards scrub",
        )
    from dpmlm.pipeline.run import execute_run, execute_until

    if until is None:
        result = execute_run(config, resume=resume)
    else:
        result = execute_until(config, until.value, resume=resume)
    if as_json:
        print_json("dpmlm.run/1", result.to_json(private=show_private))
    else:
        typer.echo(result.summary(private=show_private))
    return 0 if until is not None or result.verdict == "PASS" else 1


def _work(
    config: "RunConfig", stage: str, rank: int, world_size: int, ray: str | None, actors: int
) -> None:
    if ray is None:
        from dpmlm.pipeline.workers import work

        work(config, stage, rank=rank, world_size=world_size)
    else:
        from dpmlm.pipeline.on_ray import work_on_ray

        work_on_ray(config, stage, address=ray, actors=actors)
