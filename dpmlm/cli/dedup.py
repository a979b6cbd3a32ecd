"""`dpmlm dedup`: remove what is said twice, and explain what became of one document."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, IdentityFile, print_json
from dpmlm.cli.scrub import Plaintext, Text, To
from dpmlm.errors import UserError


class Keep(StrEnum):
    """Which document of a cluster stays."""

    first = "first"
    longest = "longest"


class Passages(StrEnum):
    """What is done with passages that many documents have word for word."""

    report = "report"
    cut = "cut"


def register(app: typer.Typer) -> None:
    app.command("dedup")(dedup)


def dedup(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="Corpus, or sealed folder of dpmlm scrub; with --explain a dedup folder.",
        ),
    ],
    target: Annotated[Path | None, typer.Argument(metavar="OUT", help="What to write.")] = None,
    threshold: Annotated[
        float, typer.Option(min=0.5, max=1, help="Jaccard similarity of word 5-shingles.")
    ] = 0.8,
    exact: Annotated[bool, typer.Option("--exact", help="Exact duplicates only.")] = False,
    keep: Annotated[Keep, typer.Option(help="Which document of a cluster stays.")] = Keep.first,
    passages: Annotated[
        Passages | None, typer.Option(help="Look for repeated passages in what stays.")
    ] = None,
    words: Annotated[int, typer.Option(min=10, help="Words in a row of a passage.")] = 50,
    more_than: Annotated[int, typer.Option(min=1, help="Documents that have it, or fewer.")] = 3,
    to: To = None,
    plaintext: Plaintext = False,
    text: Text = "text",
    explain: Annotated[
        str | None, typer.Option(metavar="ID", help="Say why a document stayed or went.")
    ] = None,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Keep one of each group of duplicates; every near pair is verified before it counts.

    Example: dpmlm dedup notes.jsonl unique --threshold 0.8 --to keys/trainer.pub
    Example: dpmlm dedup notes.jsonl unique --passages cut --to keys/trainer.pub
    Example: dpmlm dedup scrubbed unique --identity keys/trainer.key --to keys/trainer.pub
    Example: dpmlm dedup work/dedup --explain note-17 --identity keys/trainer.key
    """
    if explain is not None:
        _explain(source, explain, identity, as_json=as_json)
        return
    if target is None:
        raise UserError("dpmlm dedup IN", "it needs OUT, or --explain", "see dpmlm dedup --help")
    if exact and keep is not Keep.first and passages is not Passages.cut:
        raise UserError(
            f"dedup --exact --keep {keep}", "equal texts leave nothing to choose", "drop --keep"
        )
    from dpmlm.config import DedupConfig, NearConfig, PassagesConfig
    from dpmlm.pipeline.dedup_files import dedup_file
    from dpmlm.pipeline.outputs import Output

    looked_for = passages and PassagesConfig(
        words=words, documents=more_than, cut=passages is Passages.cut
    )
    done = dedup_file(
        source,
        Output(target, to or [], plaintext),
        rules=DedupConfig(
            near=None if exact else NearConfig(threshold=threshold),
            keep=keep.value,
            passages=looked_for,
        ),
        text=text,
        identity=identity,
    )
    if as_json:
        print_json("dpmlm.stage/1", done.to_json())
    else:
        typer.echo(done.text())


def _explain(folder: Path, name: str, identity: Path | None, *, as_json: bool) -> None:
    if identity is None:
        raise UserError(
            f"dedup --explain {name}",
            "certificates are sealed: a private key opens them",
            "give --identity keys/trainer.key",
        )
    from dpmlm.pipeline.explain import explain

    explanation = explain(folder, name, identity=identity)
    if as_json:
        print_json("dpmlm.dedup.explanation/1", explanation.to_json())
    else:
        typer.echo(explanation.text())
