"""`dpmlm audit canaries`: plan, insert and reveal canaries for a trainer of one's own."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, IdentityFile, print_json, print_written

CanaryFile = Annotated[
    Path, typer.Argument(metavar="CANARIES", help="What plan wrote: file or sealed folder.")
]
LabelsFile = Annotated[
    Path | None, typer.Option(help="Who is included: secret; c.labels.json beside c.json.")
]
Text = Annotated[str, typer.Option("--text", help="Field with the text.")]


class Where(StrEnum):
    """Which canaries: those for scrubbed and deduplicated text, or those that go before."""

    exempt = "exempt"
    pipeline = "pipeline"


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="Canaries for your own trainer.", no_args_is_help=True)
    verbs.command("plan")(plan)
    verbs.command("insert")(insert)
    verbs.command("reveal")(reveal)
    app.add_typer(verbs, name="canaries")


def plan(
    tokenizer: Annotated[
        Path, typer.Argument(metavar="TOKENIZER", help="Folder or file of the model's tokenizer.")
    ],
    out: Annotated[Path, typer.Option(help="Where the secrets go.")],
    commitment: Annotated[Path, typer.Option(help="Where their commitment goes: public.")],
    labels: LabelsFile = None,
    count: Annotated[int, typer.Option(min=2, max=10**6, help="Gating canaries.")] = 1000,
    copies: Annotated[int, typer.Option(min=1, max=10**4, help="Documents each is in.")] = 1,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", help="FAMILY:COUNT[:COPIES[:ARM]], exploratory. Repeatable."),
    ] = None,
    public: Annotated[
        Path | None, typer.Option(help="Public text: says which words are rare.")
    ] = None,
    text: Text = "text",
    window: Annotated[int, typer.Option(min=16, max=8192, help="Tokens of a training row.")] = 128,
    to: Annotated[
        list[Path] | None,
        typer.Option("--to", help="Public key to seal the canaries to. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw canaries and coins before training, and write the commitment to all of them.

    Scores need the secrets; the labels, who is included, are opened after them.

    Families are rare_tokens, random_words, rare_suffix (with --public), phone, card and email; arm
    pipeline is for documents that are yet to be scrubbed.

    Example: dpmlm audit canaries plan model --out canaries.json --commitment commitment.json
    """
    from dpmlm.pipeline.planting import plan_set

    written = plan_set(
        tokenizer,
        out,
        labels,
        commitment,
        count=count,
        copies=copies,
        groups=group or (),
        public=public,
        text=text,
        window=window,
        to=to or (),
    )
    print_written(written, as_json=as_json)


def insert(
    canaries: CanaryFile,
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Corpus.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="Corpus with canaries.")],
    labels: LabelsFile = None,
    arm: Annotated[Where, typer.Option(help="Which canaries.")] = Where.exempt,
    text: Text = "text",
    id: Annotated[
        str | None, typer.Option("--id", help="Field with a unique id; id, where there is one.")
    ] = None,
    person: Annotated[str | None, typer.Option(help="Field with the person.")] = None,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Write IN with the included canaries at random places; OUT says who was included: keep it.

    Insert arm pipeline before you scrub and deduplicate, arm exempt after.

    Example: dpmlm audit canaries insert canaries.json scrubbed.jsonl train.jsonl
    """
    from dpmlm.pipeline.planting import insert as insert_into

    written = insert_into(
        canaries,
        source,
        target,
        labels=labels,
        arm=arm.value,
        text=text,
        id=id,
        person=person,
        identity=identity,
    )
    print_written([written], as_json=as_json)


def reveal(
    canaries: CanaryFile,
    commitment: Annotated[Path, typer.Option(help="What plan wrote for the public.")],
    labels: LabelsFile = None,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Check canaries and labels against their commitment and print who was included.

    Example: dpmlm audit canaries reveal canaries.json --commitment commitment.json
    """
    from dpmlm.pipeline.planting import reveal as opened

    found = opened(canaries, commitment, labels=labels, identity=identity)
    if as_json:
        print_json("dpmlm.revealed/1", found.to_json())
    else:
        typer.echo(found.text())
