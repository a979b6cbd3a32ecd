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
        typer.Option(min=1, help="Draw so many documents for marking by hand instead."),
    ] = None,
    prefill: Annotated[
        bool,
        typer.Option(
            "--prefill", help="Put what the policy finds into the sample: quicker, biased."
        ),
    ] = False,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> None:
    """Scrub IN into OUT, or print recall against gold spans, or draw a sample to make gold of.

    Example: dpmlm scrub notes.jsonl scrubbed --policy default --to keys/trainer.pub
    Example: dpmlm scrub notes.jsonl gold.jsonl --sample 100 --plaintext
    Example: dpmlm scrub --gold gold.jsonl --show-private
    """
    from dpmlm.pipeline import scrub_files
    from dpmlm.pipeline.outputs import Output

    if gold is not None:
        if source is not None:
            raise UserError("scrub IN --gold", "--gold measures and writes nothing", "drop IN")
        measured = scrub_files.measure(gold, policy)
        if as_json:
            print_json("dpmlm.scrub.recall/2", measured.to_json())
            return
        typer.echo(measured.text())
        if show_private:
            typer.echo(measured.misses())
        return
    if source is None or target is None:
        raise UserError("dpmlm scrub", "it needs IN and OUT, or --gold", "see dpmlm scrub --help")
    if prefill and sample is None:
        raise UserError("scrub --prefill", "it is about a sample", "add --sample N --plaintext")
    if sample is not None:
        if not plaintext:
            raise UserError(
                f"scrub --sample {sample}",
                "its documents are for reading and marking, so they are written in clear",
                "add --plaintext, and delete the file when it is measured",
            )
        drawn = scrub_files.sample_file(
            source, target, count=sample, policy=policy, text=text, prefill=prefill
        )
        if as_json:
            print_json("dpmlm.stage/1", drawn.to_json())
        else:
            typer.echo(drawn.text())
            verb = "correct its spans" if prefill else "write its spans, null so far,"
            typer.echo(f"{verb} by hand, then: dpmlm scrub --gold {target}")
        return
    done = scrub_files.scrub_file(
        source,
        Output(target, to or [], plaintext),
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
