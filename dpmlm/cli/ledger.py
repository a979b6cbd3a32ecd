"""`dpmlm ledger`: the record of what was spent on a corpus."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, SigningKeyFile, print_json

LedgerFile = Annotated[Path, typer.Argument(help="The ledger.", metavar="LEDGER")]


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="What was spent on a corpus, and what is left.", no_args_is_help=True)
    verbs.command("register")(register_corpus)
    verbs.command("show")(show)
    verbs.command("verify")(verify)
    app.add_typer(verbs, name="ledger")


def register_corpus(
    ledger: LedgerFile,
    epsilon: Annotated[float, typer.Option(help="Cap on epsilon over all runs; inf: no claim.")],
    delta: Annotated[float, typer.Option(help="Cap on delta over all runs.")],
    corpus: Annotated[str, typer.Option(help="A public name for the corpus.")] = "corpus",
    signing_key: SigningKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Register a corpus with its cap, once; with a signing key, that key signs every line.

    Example: dpmlm ledger register ledger.jsonl --epsilon 16 --delta 1e-5
    """
    from dpmlm.artifacts import load_signing_key
    from dpmlm.privacy import Ledger

    signer = load_signing_key(signing_key) if signing_key else None
    Ledger.register(ledger, epsilon=epsilon, delta=delta, corpus=corpus, signer=signer)
    _print_account(ledger, as_json)


def show(ledger: LedgerFile, as_json: AsJson = False) -> None:
    """Print the cap, what is spent, what is left, and every run.

    Example: dpmlm ledger show ledger.jsonl
    """
    _print_account(ledger, as_json)


def verify(
    ledger: LedgerFile,
    trusted_keys: Annotated[
        Path | None,
        typer.Option("--trusted-keys", help="Public keys, one of which signed every line."),
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="Last line as it was noted, NUMBER:sha256:HASH.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Check the hash chain line by line; exit status 1 says that it is broken, and where.

    Example: dpmlm ledger verify ledger.jsonl
    """
    from dpmlm.pipeline.accounts import check_ledger

    checked = check_ledger(ledger, trusted_keys=trusted_keys, head=head)
    if as_json:
        print_json("dpmlm.ledger-check/1", checked.to_json())
    else:
        typer.echo(checked.text())
    return 0 if checked.intact else 1


def _print_account(ledger: Path, as_json: bool) -> None:
    from dpmlm.pipeline.accounts import Account

    account = Account.of(ledger)
    if as_json:
        print_json("dpmlm.account/1", account.to_json())
    else:
        typer.echo(account.text())
