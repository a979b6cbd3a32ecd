"""`dpmlm init`: a folder to start from."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, print_written


def register(app: typer.Typer) -> None:
    app.command("init")(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Where to start.", metavar="FOLDER")],
    as_json: AsJson = False,
) -> None:
    """Write a run file, keys and a registered ledger; what is there already stays as it is.

    Example: dpmlm init clinic
    """
    from dpmlm.pipeline.start import initialise

    written = initialise(folder)
    print_written(written, as_json=as_json)
    if not as_json:
        run_file = folder / "run.yaml"
        typer.echo(f"next: edit {run_file}, then dpmlm plan {run_file} and dpmlm run {run_file}")
