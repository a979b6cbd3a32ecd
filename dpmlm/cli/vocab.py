"""`dpmlm vocab`: a vocabulary from private text, charged to its ledger, or from public text."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, SigningKeyFile, print_json
from dpmlm.cli.scrub import Text


def register(app: typer.Typer) -> None:
    app.command("vocab")(vocab)


def vocab(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Corpus to read.")],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="The vocab.txt to write; of public text also a tokenizer.json."
        ),
    ],
    ledger: Annotated[
        Path | None, typer.Option(help="The corpus' ledger; charged before the draw.")
    ] = None,
    epsilon: Annotated[float | None, typer.Option(help="Budget of choosing the words.")] = None,
    delta: Annotated[float | None, typer.Option(help="Budget of choosing the words.")] = None,
    public: Annotated[
        bool, typer.Option("--public", help="IN is public text: nothing is charged.")
    ] = False,
    kind: Annotated[
        str, typer.Option(help="wordpiece; of public text also bpe (of bytes) or unigram.")
    ] = "wordpiece",
    size: Annotated[int, typer.Option(min=64, max=200_000, help="Entries at most.")] = 8000,
    words_per_unit: Annotated[
        int, typer.Option(min=1, max=100_000, help="Different words a unit contributes at most.")
    ] = 100,
    unused: Annotated[
        int, typer.Option(min=0, max=200_000, help="Entries that stand for nothing yet.")
    ] = 128,
    person: Annotated[
        str | None,
        typer.Option(
            help="Field with the person; without it documents are the unit, also of later runs."
        ),
    ] = None,
    text: Text = "text",
    signing_key: SigningKeyFile = None,
    pseudonym_key: Annotated[
        Path | None,
        typer.Option(help="Key by which forgotten persons are known; where there are any."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Learn a vocabulary from IN: WordPiece with differential privacy, each call charged; of public
    text any kind.

    Example: dpmlm vocab notes.jsonl vocab.txt --ledger ledger.jsonl --epsilon 1 --delta 1e-7
    """
    from dpmlm.config import PrivateVocabularyConfig
    from dpmlm.errors import UserError
    from dpmlm.pipeline.public_vocabulary import public_vocabulary_file, refuse_kind
    from dpmlm.pipeline.vocabulary import vocabulary_file

    refuse_kind(kind, target, public=public)
    if public:
        given = {"--ledger": ledger, "--epsilon": epsilon, "--delta": delta, "--person": person}
        if named := [name for name, value in given.items() if value is not None]:
            raise typer.BadParameter(f"--public takes no {', '.join(named)}: nothing is charged")
        made = public_vocabulary_file(source, target, kind, text=text, size=size, unused=unused)
        if as_json:
            print_json("dpmlm.public-vocab/1", made.to_json())
        else:
            typer.echo(made.text())
        return
    if ledger is None or epsilon is None or delta is None:
        raise typer.BadParameter("give --ledger, --epsilon and --delta, or --public")
    if not 0 < epsilon <= 150 or not 0 < delta < 0.5:
        raise UserError(
            f"--epsilon {epsilon:g} --delta {delta:g}",
            "epsilon is above 0 and at most 150, delta between 0 and 0.5",
            "see dpmlm vocab --help",
        )
    config = PrivateVocabularyConfig(
        size=size, epsilon=epsilon, delta=delta, words_per_unit=words_per_unit, unused=unused
    )
    done = vocabulary_file(
        source, target, ledger, config, text=text, person=person, signing_key=signing_key,
        pseudonym_key=pseudonym_key,
    )  # fmt: skip
    if as_json:
        print_json("dpmlm.vocab/1", done.to_json())
    else:
        typer.echo(done.text())
