"""`dpmlm verify`: is this bundle what a trusted signer released?"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, print_json
from dpmlm.cli.release import AskedPolicy, BundlePath, Require, TrustedKeys, roles_of


def register(app: typer.Typer) -> None:
    app.command("verify")(verify)


def verify(
    bundle: BundlePath,
    trusted_keys: TrustedKeys,
    log: Annotated[
        Path | None, typer.Option("--log", help="Release log: is it the newest of its run?")
    ] = None,
    head: Annotated[
        Path | None, typer.Option("--head", help="Head of that log, noted earlier elsewhere.")
    ] = None,
    proof: Annotated[
        Path | None, typer.Option("--proof", help="What `dpmlm log prove` wrote for it.")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option("--ledger", help="Ledger: are its charges lines of it?")
    ] = None,
    continues: Annotated[
        Path | None, typer.Option("--continues", help="Bundle that it continues: as it says?")
    ] = None,
    policy: AskedPolicy = None,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", help="An auditor's own: is it what they attested?")
    ] = None,
    require: Require = None,
    as_json: AsJson = False,
) -> int:
    """Check every byte, signature and decision offline; no decryption key is needed.

    Exit status 1 says that something is wrong, and the output says what and where.

    Example: dpmlm verify work/bundle --trusted-keys keys/trusted
    Example: dpmlm verify work/bundle --trusted-keys keys/trusted --require auditor
    Example: dpmlm verify work/bundle --trusted-keys keys/trusted --policy partner
    """
    from dpmlm.pipeline.wording import verification_text
    from dpmlm.release import Outside, verify_bundle

    outside = Outside(
        log=log, head=head, proof=proof, ledger=ledger, continues=continues, policy=policy,
        evidence=evidence,
    )  # fmt: skip
    checked = verify_bundle(
        bundle, trusted_keys, now=datetime.now(UTC), require=roles_of(require), outside=outside
    )
    if as_json:
        print_json("dpmlm.verification/1", checked.to_json())
    else:
        typer.echo(verification_text(checked))
    return 0 if checked.ok else 1
