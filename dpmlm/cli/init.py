"""`dpmlm init`: a folder to start from."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, print_json


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
    if as_json:
        print_json({"folder": str(folder), "written": [str(path) for path in written]})
        return
    for path in written:
        typer.echo(f"wrote {path}")
    typer.echo(f"next: edit {folder / 'run.yaml'}, then dpmlm run {folder / 'run.yaml'}")
