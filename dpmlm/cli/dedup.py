"""`dpmlm dedup`: remove what is said twice."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, print_json
from dpmlm.cli.scrub import Plaintext, Text, To


def register(app: typer.Typer) -> None:
    app.command("dedup")(dedup)


def dedup(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Corpus to read.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="What to write.")],
    threshold: Annotated[
        float, typer.Option(min=0.5, max=1, help="Jaccard similarity of word 5-shingles.")
    ] = 0.8,
    exact: Annotated[bool, typer.Option("--exact", help="Exact duplicates only.")] = False,
    to: To = None,
    plaintext: Plaintext = False,
    text: Text = "text",
    as_json: AsJson = False,
) -> None:
    """Keep one of each group of duplicates; every near pair is verified before it counts.

    Example: dpmlm dedup notes.jsonl unique --threshold 0.8 --to keys/trainer.pub
    """
    from dpmlm.pipeline import standalone

    done = standalone.dedup_file(
        source,
        standalone.Output(target, to or [], plaintext),
        threshold=None if exact else threshold,
        text=text,
    )
    if as_json:
        print_json("dpmlm.stage/1", done.to_json())
    else:
        typer.echo(done.text())
