"""`dpmlm scrub`: remove identifiers from a corpus, or measure how well that works."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, ShowPrivate, print_json
from dpmlm.errors import UserError

Policy = Annotated[str, typer.Option(help="Name of a shipped policy, or a YAML file.")]
To = Annotated[
    list[Path] | None,
    typer.Option(
        "--to", help="Public key that may open OUT; default keys/trainer.pub. Repeatable."
    ),
]
Plaintext = Annotated[
    bool, typer.Option("--plaintext", help="Write OUT in clear; without it OUT is sealed.")
]
Text = Annotated[str, typer.Option("--text", help="Field with the text.")]


def register(app: typer.Typer) -> None:
    app.command("scrub")(scrub)


def scrub(
    source: Annotated[Path | None, typer.Argument(metavar="IN", help="Corpus to read.")] = None,
    target: Annotated[Path | None, typer.Argument(metavar="OUT", help="What to write.")] = None,
    policy: Policy = "default",
    gold: Annotated[
        Path | None, typer.Option(help="Measure recall on this file of gold spans instead.")
    ] = None,
    pseudonym_key: Annotated[Path | None, typer.Option(help="Key file for pseudonyms.")] = None,
    to: To = None,
    plaintext: Plaintext = False,
    text: Text = "text",
    person: Annotated[
        str | None, typer.Option(help="Field with the person, whose dates move together.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Workers; default one a core.")
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Draw so many documents for correction by hand instead."),
    ] = None,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> None:
    """Scrub IN into OUT, or print recall against gold spans, or draw a sample to make gold of.

    Example: dpmlm scrub notes.jsonl scrubbed --policy default --to keys/trainer.pub
    Example: dpmlm scrub notes.jsonl gold.jsonl --sample 100 --plaintext
    Example: dpmlm scrub --gold gold.jsonl --show-private
    """
    from dpmlm.pipeline import standalone
    from dpmlm.pipeline.wording import misses_text, recall_text

    if gold is not None:
        if source is not None:
            raise UserError("scrub IN --gold", "--gold measures and writes nothing", "drop IN")
        measured, rows = standalone.measure(gold, policy)
        if as_json:
            print_json("dpmlm.scrub.recall/2", measured.to_json())
            return
        typer.echo(recall_text(measured))
        if show_private:
            typer.echo(misses_text(measured, rows))
        return
    if source is None or target is None:
        raise UserError("dpmlm scrub", "it needs IN and OUT, or --gold", "see dpmlm scrub --help")
    if sample is not None:
        if not plaintext:
            raise UserError(
                f"scrub --sample {sample}",
                "its documents are for reading and correcting, so they are written in clear",
                "add --plaintext, and delete the file when it is measured",
            )
        drawn = standalone.sample_file(source, target, count=sample, policy=policy, text=text)
        if as_json:
            print_json("dpmlm.stage/1", drawn.to_json())
        else:
            typer.echo(drawn.text())
            typer.echo(f"correct its spans by hand, then: dpmlm scrub --gold {target}")
        return
    done = standalone.scrub_file(
        source,
        standalone.Output(target, to or [], plaintext),
        policy=policy,
        pseudonym_key=pseudonym_key,
        text=text,
        person=person,
        processes=processes,
    )
    if as_json:
        print_json("dpmlm.stage/1", done.to_json())
    else:
        typer.echo(done.text())
