"""`dpmlm log`: the append-only log of releases."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, print_json, print_written
from dpmlm.cli.release import BundlePath, TrustedKeys

LogFile = Annotated[Path, typer.Argument(help="The release log.", metavar="LOG")]


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="The append-only log of releases.", no_args_is_help=True)
    verbs.command("show")(show)
    verbs.command("head")(head)
    verbs.command("append")(append)
    verbs.command("prove")(prove)
    verbs.command("verify")(verify)
    app.add_typer(verbs, name="log")


def show(
    log: LogFile,
    head: Annotated[
        Path | None, typer.Option("--head", help="A head noted earlier: tells what is new since.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Print every release of the log; exit status 1 says that it does not go on from --head.

    Example: dpmlm log show releases.log
    """
    from dpmlm.release.log.book import Listing

    listing = Listing.of(log, head)
    if as_json:
        print_json("dpmlm.log/1", listing.to_json())
    else:
        typer.echo(listing.text())
    return 0 if listing.ok else 1


def head(log: LogFile, as_json: AsJson = False) -> None:
    """Print the signed head, to be copied to where the log's host cannot write.

    Example: dpmlm log head releases.log
    """
    from dpmlm.release.log.reading import read_log

    found = read_log(log, None)
    if as_json:
        print_json("dpmlm.log-head/1", found.head_json())
    else:
        typer.echo(found.note.decode(), nl=False)


def append(
    log: LogFile,
    bundle: BundlePath,
    signing_key: Annotated[Path, typer.Option("--signing-key", help="Key that signs the head.")],
    trusted_keys: TrustedKeys,
    as_json: AsJson = False,
) -> None:
    """Enter a bundle that verifies, and sign the new head.

    One that is there already is not entered again; where another key had signed the head, it is
    signed anew.

    Example: dpmlm log append releases.log work/bundle --signing-key keys/sign.key
        --trusted-keys keys/trusted
    """
    from dpmlm.release.log.book import append_bundle

    entered = append_bundle(log, bundle, signing_key, trusted_keys)
    if as_json:
        print_json("dpmlm.log-entered/1", entered.to_json())
    else:
        typer.echo(entered.text())


def prove(
    log: LogFile,
    bundle: BundlePath,
    out: Annotated[Path, typer.Option("--out", help="Where to write the proof.")],
    as_json: AsJson = False,
) -> None:
    """Write a proof that the log holds a bundle, for `dpmlm verify --proof`.

    Example: dpmlm log prove releases.log work/bundle --out proof.json
    """
    from dpmlm.release.log.book import write_proof

    print_written([write_proof(log, bundle, out)], as_json=as_json)


def verify(
    log: LogFile,
    trusted_keys: TrustedKeys,
    head: Annotated[
        list[Path] | None, typer.Option("--head", help="A head noted earlier. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Recompute the log's root, check its signature, and hold it against noted heads.

    Exit status 1 says that it is not what was signed, or does not go on from one of the heads.

    Example: dpmlm log verify releases.log --trusted-keys keys/trusted --head noted.head
    """
    from dpmlm.release.log.book import LogCheck

    checked = LogCheck.of(log, trusted_keys, head or [])
    if as_json:
        print_json("dpmlm.log-check/1", checked.to_json())
    else:
        typer.echo(checked.text())
    return 0 if checked.intact else 1
