"""`dpmlm release`: the bundle, and its explicit export in clear."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, RunFile, Settings, print_json, print_written, read_run
from dpmlm.errors import UserError

TrustedKeys = Annotated[
    Path, typer.Option("--trusted-keys", help="Folder of public signing keys you trust.")
]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")]


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="The signed bundle that consumers get.", no_args_is_help=True)
    verbs.command("bundle")(bundle)
    verbs.command("export")(export)
    app.add_typer(verbs, name="release")


def bundle(run_file: RunFile, settings: Settings = None, as_json: AsJson = False) -> int:
    """Bring a run to its bundle; consumers get the key on PASS alone.

    Example: dpmlm release bundle run.yaml
    """
    config = read_run(run_file, settings)
    from dpmlm.pipeline.run import execute_run

    result = execute_run(config)
    if as_json:
        print_json("dpmlm.run/1", result.to_json(private=False))
    else:
        typer.echo(f"{result.verdict} {result.bundle}")
    return 0 if result.verdict == "PASS" else 1


def export(
    bundle: BundlePath,
    to: Annotated[Path, typer.Option("--to", help="New folder for the plain model.")],
    trusted_keys: TrustedKeys,
    identity: Annotated[Path, typer.Option("--identity", help="Private key of a consumer.")],
    plaintext: Annotated[
        bool, typer.Option("--plaintext", help="Needed: says that clear weights are meant.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a verified bundle's model in clear, for tools that need plain files.

    Example: dpmlm release export work/bundle --to model --plaintext
        --identity keys/consumer.key --trusted-keys keys/trusted
    """
    if not plaintext:
        raise UserError("release export", "it writes the model in clear", "say so with --plaintext")
    from dpmlm.pipeline.export import export_plaintext

    written = export_plaintext(bundle, to, identity=identity, trusted_keys=trusted_keys)
    print_written([written], as_json=as_json, note=" in clear")
