"""`dpmlm plan`: what a run would promise, before it spends anything."""

from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, RunFile, Settings, print_json, read_run


def register(app: typer.Typer) -> None:
    app.command("plan")(plan)


def plan(
    run_file: RunFile,
    noise_multiplier: Annotated[
        float | None, typer.Option(help="Also find the steps that this noise leaves budget for.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Print the claim, the noise, three accountants' epsilon and what the ledger has left.

    Example: dpmlm plan run.yaml --set privacy.epsilon=4 --set training.steps=300
    """
    config = read_run(run_file, settings)
    from dpmlm.pipeline.preview import preview

    shown = preview(config, noise_multiplier)
    if as_json:
        print_json("dpmlm.preview/1", shown.to_json())
    else:
        typer.echo(shown.text())
