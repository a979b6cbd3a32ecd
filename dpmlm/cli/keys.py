"""`dpmlm keys`: make them."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, print_written


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="Keys that open, sign and pseudonymise.", no_args_is_help=True)
    verbs.command("new")(new)
    app.add_typer(verbs, name="keys")


def new(
    folder: Annotated[Path, typer.Argument(help="Where to write them.", metavar="FOLDER")],
    as_json: AsJson = False,
) -> None:
    """Write identities of trainer, auditor and consumer, a signing key and a pseudonym key.

    Private files get mode 0600; nothing that exists is overwritten.

    Example: dpmlm keys new keys
    """
    from dpmlm.artifacts import create_keys

    print_written(create_keys(folder), as_json=as_json)
