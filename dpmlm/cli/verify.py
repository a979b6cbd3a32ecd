"""`dpmlm verify`: is this bundle what a trusted signer released?"""

from datetime import UTC, datetime

import typer

from dpmlm.cli.options import AsJson, print_json
from dpmlm.cli.release import BundlePath, TrustedKeys


def register(app: typer.Typer) -> None:
    app.command("verify")(verify)


def verify(bundle: BundlePath, trusted_keys: TrustedKeys, as_json: AsJson = False) -> int:
    """Check every byte, signature and decision offline; no decryption key is needed.

    Exit status 1 says that something is wrong, and the output says what and where.

    Example: dpmlm verify work/bundle --trusted-keys keys/trusted
    """
    from dpmlm.pipeline.wording import verification_text
    from dpmlm.release import verify_bundle

    checked = verify_bundle(bundle, trusted_keys, now=datetime.now(UTC))
    if as_json:
        print_json("dpmlm.verification/1", checked.to_json())
    else:
        typer.echo(verification_text(checked))
    return 0 if checked.ok else 1
