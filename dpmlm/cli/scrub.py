"""`dpmlm scrub`: remove identifiers from a corpus, or measure how well that works."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, IdentityFile, ShowPrivate, print_json
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
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="IN",
            help="Corpus, or sealed folder of dpmlm dedup; with --explain a scrubbed folder.",
        ),
    ] = None,
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
    explain: Annotated[
        str | None, typer.Option(metavar="ID", help="Say what was replaced in a document, and why.")
    ] = None,
    identity: IdentityFile = None,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> None:
    """Scrub IN into OUT, or print recall against gold spans, or draw a sample to make gold of.

    Example: dpmlm scrub notes.jsonl scrubbed --policy default --to keys/trainer.pub
    Example: dpmlm scrub notes.jsonl gold.jsonl --sample 100 --plaintext
    Example: dpmlm scrub --gold gold.jsonl --show-private
    Example: dpmlm scrub scrubbed --explain notes.jsonl:17 --identity keys/trainer.key
    """
    if gold is not None:
        if source is not None:
            raise UserError("scrub IN --gold", "--gold measures and writes nothing", "drop IN")
        _measure(gold, policy, as_json=as_json, show_private=show_private)
        return
    if explain is not None and source is not None:
        _explain(source, explain, identity, as_json=as_json)
        return
    if source is None or target is None:
        raise UserError(
            "dpmlm scrub", "it needs IN and OUT, --gold or --explain", "see dpmlm scrub --help"
        )
    if prefill and sample is None:
        raise UserError("scrub --prefill", "it is about a sample", "add --sample N --plaintext")
    from dpmlm.pipeline import scrub_files
    from dpmlm.pipeline.outputs import Output

    if sample is not None:
        if not plaintext:
            raise UserError(
                f"scrub --sample {sample}",
                "its documents are for reading and marking, so they are written in clear",
                "add --plaintext, and delete the file when it is measured",
            )
        drawn = scrub_files.sample_file(
            source,
            target,
            count=sample,
            policy=policy,
            text=text,
            prefill=prefill,
            identity=identity,
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
        identity=identity,
    )
    if as_json:
        print_json("dpmlm.stage/1", done.to_json())
    else:
        typer.echo(done.text())


def _measure(gold: Path, policy: str, *, as_json: bool, show_private: bool) -> None:
    from dpmlm.pipeline import scrub_files

    measured = scrub_files.measure(gold, policy)
    if as_json:
        print_json("dpmlm.scrub.recall/2", measured.to_json())
        return
    typer.echo(measured.text())
    if show_private:
        typer.echo(measured.misses())


def _explain(folder: Path, name: str, identity: Path | None, *, as_json: bool) -> None:
    if identity is None:
        raise UserError(
            f"scrub --explain {name}",
            "the log of decisions is sealed: a private key opens it",
            "give --identity keys/trainer.key",
        )
    from dpmlm.pipeline.decisions import decisions_about

    log = decisions_about(folder, name, identity=identity)
    if as_json:
        print_json("dpmlm.scrub.explanation/1", log.to_json())
    else:
        typer.echo(log.text())
