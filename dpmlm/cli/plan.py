"""`dpmlm plan`: what a run would promise, before it spends anything."""

from typing import TYPE_CHECKING, Annotated

import typer

from dpmlm.cli.options import AsJson, RunFile, Settings, print_json, read_run

if TYPE_CHECKING:
    from dpmlm.config import RunConfig


def register(app: typer.Typer) -> None:
    app.command("plan")(plan)


def plan(
    run_file: RunFile,
    noise_multiplier: Annotated[
        float | None, typer.Option(help="Also find the steps that this noise leaves budget for.")
    ] = None,
    checklist: Annotated[
        bool, typer.Option("--checklist", help="Try instead what has to be in place before a run.")
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> int:
    """Print the claim, the noise, three accountants' epsilon and what the ledger has left.

    With --checklist the exit status is 1 while something is not in place.

    Example: dpmlm plan run.yaml --set privacy.epsilon=4 --set training.steps=300
    """
    config = read_run(run_file, settings)
    if checklist:
        return _checklist(config, as_json)
    from dpmlm.pipeline.preview import preview

    shown = preview(config, noise_multiplier)
    if as_json:
        print_json("dpmlm.preview/1", shown.to_json())
    else:
        typer.echo(shown.text())
    return 0


def _checklist(config: "RunConfig", as_json: bool) -> int:
    from dpmlm.pipeline.checklist import checklist

    found = checklist(config)
    if as_json:
        print_json("dpmlm.checklist/1", found.to_json())
    else:
        typer.echo(found.text())
    return 0 if found.ok else 1
