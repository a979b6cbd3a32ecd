"""`dpmlm doctor`: can this model be trained with the clipping norm that is claimed?"""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, Precision, print_json


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    model: Annotated[
        str,
        typer.Argument(help="A folder or hub name, as model.from, or a run file.", metavar="MODEL"),
    ],
    window: Annotated[
        int | None,
        typer.Option(min=8, help="Tokens a row; the run file's, or 128 where the model has them."),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="vocab.txt, tokenizer.json or folder; the run file's or model's own."),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Of matrix products; the run file's, or float32."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Measure whether the model's per-example gradients are exact, before anything is spent.

    A synthetic batch goes through the model; norms and clipped sum are compared with autograd on
    one example at a time. Exit status 1: inexact, training refuses it; 2: it cannot be loaded.

    Example: dpmlm doctor bert-base-uncased --window 128
    """
    from dpmlm.pipeline.doctor import examine

    found = examine(
        model,
        window=window,
        tokenizer=tokenizer,
        precision=precision.value if precision else None,
    )
    if as_json:
        print_json("dpmlm.doctor/1", found.to_json())
    else:
        typer.echo(found.text())
    return 0 if found.report.exact else 1
