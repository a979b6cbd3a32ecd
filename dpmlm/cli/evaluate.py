"""`dpmlm evaluate`: how well a model guesses, before and after training or beside another."""

import json
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from dpmlm.cli.options import (
    AsJson,
    IdentityFile,
    Settings,
    ShowPrivate,
    finite,
    print_json,
)

SCHEMA = "dpmlm.evaluation/1"


def register(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate)


def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A run file, a bundle, or a model folder.")
    ],
    against: Annotated[
        Path | None, typer.Option(help="Another of these, on the same text and the same masks.")
    ] = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(help="sentiment=FILE.jsonl or ner=FILE.conll, public text. Repeatable."),
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="Field of the corpus by which figures are told apart.")
    ] = None,
    pseudo: Annotated[
        int,
        typer.Option(min=0, max=100_000, help="Documents of which each token is hidden alone."),
    ] = 0,
    text: Annotated[
        Path | None, typer.Option(help="Held-out documents, for a model without a run file.")
    ] = None,
    field: Annotated[
        str, typer.Option(help="Field with the text of --text and --counts.")
    ] = "text",
    counts: Annotated[
        Path | None, typer.Option(help="Public text to count words in, beside --text.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Models and --text are nobody's secret.")
    ] = False,
    forgetting: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Points of top-1 it may have lost to --against."),
    ] = None,
    identity: IdentityFile = None,
    trusted_keys: Annotated[
        Path | None, typer.Option(help="Folder of .pub files of signers, for a bundle.")
    ] = None,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="Write what --json prints to a file.")] = None,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> int:
    """Measure how well a model guesses hidden words of text it was not trained on.

    A run file: the run is taken up to its evaluation, which compares the model before and after
    training on the held-out documents. Figures of private text are printed with --show-private
    alone.

    Example: dpmlm evaluate run.yaml --show-private

    Any model: dpmlm evaluate FOLDER --text held-out.jsonl --against OTHER --public

    What training further cost: the same with --forgetting 2; exit status 1 unless it kept it.
    """
    from dpmlm.config import parse_overrides
    from dpmlm.pipeline.evaluating import Request
    from dpmlm.pipeline.evaluating import evaluate as evaluated
    from dpmlm.pipeline.probes import read_probes

    with _begun(out) as file:
        found = evaluated(
            Request(
                model=model,
                against=against,
                text=text,
                text_field=field,
                groups=groups,
                counts=counts,
                pseudo=pseudo,
                probes=read_probes(probe or []),
                public=public,
                forgetting=forgetting,
                identity=identity,
                trusted_keys=trusted_keys,
                settings=parse_overrides(settings or []),
            )
        )
        shown = found.to_json(private=show_private)
        if file is not None:
            file.write(json.dumps(finite({"schema": SCHEMA, **shown}), indent=1).encode() + b"\n")
    if as_json:
        print_json(SCHEMA, shown)
    else:
        typer.echo(found.text(private=show_private))
        if out is not None:
            typer.echo(f"wrote {out}")
    return 1 if found.refused(private=show_private) else 0


def _begun(out: Path | None) -> AbstractContextManager[BinaryIO | None]:
    """The file of --out, begun before anything is measured: a run may be hours of it.

    It takes its name when the block ends; where that raises, what had the name keeps it.
    """
    from dpmlm.artifacts import atomic_write
    from dpmlm.errors import UserError

    if out is None:
        return nullcontext()
    if os.path.lexists(out) and not os.path.isfile(out):
        raise UserError(
            f"--out {out}", "it is there and is no ordinary file", "name a file to write"
        )
    return atomic_write(out, mode=0o600)
