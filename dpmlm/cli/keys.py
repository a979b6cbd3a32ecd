"""`dpmlm keys`: draw them, look at them, and change who can open what is sealed."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, print_json, print_written


class Role(StrEnum):
    """Whose keys to draw."""

    trainer = "trainer"
    auditor = "auditor"
    consumer = "consumer"
    approver = "approver"


class Kem(StrEnum):
    """Key encapsulation of new identities."""

    hybrid = "MLKEM768_X25519"
    classical = "X25519"


KeyFolder = Annotated[Path, typer.Argument(help="Folder of key files.", metavar="FOLDER")]


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="Keys that open, sign and pseudonymise.", no_args_is_help=True)
    verbs.command("new")(new)
    verbs.command("list")(list_keys)
    verbs.command("show")(show)
    verbs.command("rotate")(rotate)
    app.add_typer(verbs, name="keys")


def new(
    folder: Annotated[Path, typer.Argument(help="Where to write them.", metavar="FOLDER")],
    role: Annotated[
        list[Role] | None,
        typer.Option(help="Draw keys of this role alone. Repeatable."),
    ] = None,
    kem: Annotated[
        Kem, typer.Option(help="X25519 where post-quantum keys cannot be had.")
    ] = Kem.hybrid,
    passphrase: Annotated[
        bool,
        typer.Option(
            "--passphrase",
            help="Protect private files; asked for, or read from DPMLM_PASSPHRASE_FILE.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the keys of trainer, auditor and consumer for a first run, or those of some roles.

    Private files get mode 0600; nothing that exists is overwritten. After a kill, repeat it.

    Example: dpmlm keys new keys
    Example: dpmlm keys new keys --role approver --passphrase
    """
    from dpmlm.artifacts.keys import ROLES, create_keys
    from dpmlm.artifacts.passphrase import new_passphrase

    written = create_keys(
        folder,
        roles=[one.value for one in role] if role else ROLES,
        kem=kem.value,
        passphrase=new_passphrase() if passphrase else None,
    )
    print_written(written, as_json=as_json)


def list_keys(folder: KeyFolder, as_json: AsJson = False) -> None:
    """List key files with kind, role, key id and state; asks for no passphrase.

    Example: dpmlm keys list keys
    """
    from dpmlm.artifacts.keyring import describe_folder

    found = describe_folder(folder)
    if as_json:
        print_json("dpmlm.keys/1", {"keys": [key.to_json() for key in found]})
        return
    for key in found:
        typer.echo(key.row())


def show(
    key: Annotated[str, typer.Argument(help="A key file, env:NAME or kms:ARN.", metavar="KEY")],
    as_json: AsJson = False,
) -> None:
    """Print what a key file says of itself and its public key, never the private one.

    Example: dpmlm keys show keys/trainer.key
    """
    from dpmlm.artifacts.keyring import describe_key
    from dpmlm.errors import UserError

    found = describe_key(key)
    if found.kind is None:
        raise UserError(key, str(found.problem), "name a key file, env:NAME or kms:ARN")
    if as_json:
        print_json("dpmlm.keys/1", {"keys": [found.to_json()]})
        return
    for name, value in found.to_json().items():
        if value not in (None, False):
            typer.echo(f"{name:<11}{value}")


def rotate(
    targets: Annotated[
        list[Path],
        typer.Argument(help="Sealed files or folders, workspaces, bundles.", metavar="TARGET..."),
    ],
    identity: Annotated[
        list[str], typer.Option("--identity", help="Private key that opens them now. Repeatable.")
    ],
    add: Annotated[
        list[str] | None, typer.Option(help="Public key that is to open them too. Repeatable.")
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(help="Key id or public key that is to open them no more. Repeatable."),
    ] = None,
    replace: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Key id or public key, and its successor's file."),
    ] = None,
    signing_key: Annotated[
        str | None,
        typer.Option("--signing-key", help="Key that signed the bundles; signs them again."),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Context that sealed files were sealed under.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say what would change; write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add, remove and replace recipients; payloads stay as they are.

    Without a change it says who can open what. It is no revocation, and says so.

    Example: dpmlm keys rotate work --identity keys/trainer.key
        --replace keys/trainer.pub=new/trainer.pub
    """
    from dpmlm.pipeline.rotation import parse_change, rotate

    done = rotate(
        targets,
        parse_change(add or [], remove or [], replace or []),
        identities=identity,
        signing_key=signing_key,
        context=None if context is None else context.encode(),
        write=not check,
    )
    if as_json:
        print_json("dpmlm.rotation/1", done.to_json())
    else:
        typer.echo(done.text())
