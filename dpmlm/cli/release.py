"""`dpmlm release`: the bundle, what others state about it, and its explicit export in clear."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, RunFile, Settings, print_json, print_written, read_run
from dpmlm.errors import IntegrityError, UserError, VerdictNo

TrustedKeys = Annotated[
    Path, typer.Option("--trusted-keys", help="Folder of public signing keys you trust.")
]
LogFile = Annotated[
    Path | None,
    typer.Option("--log", help="Log of exports, where not the bundle's own exports.jsonl."),
]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")]


class CountersigningRole(StrEnum):
    """Who states something about a bundle beside its signer."""

    auditor = "auditor"
    approver = "approver"


Require = Annotated[
    list[CountersigningRole] | None,
    typer.Option(help="Whose countersignature must be there. Repeatable."),
]


AskedPolicy = Annotated[
    str | None,
    typer.Option("--policy", help="Policy it has to be judged by: a shipped name, or a file."),
]


def roles_of(require: list[CountersigningRole] | None) -> list[str]:
    """The roles given with `--require`."""
    return [role.value for role in require or ()]


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="The signed bundle that consumers get.", no_args_is_help=True)
    verbs.command("bundle")(bundle)
    verbs.command("attest")(attest)
    verbs.command("export")(export)
    verbs.command("exports")(exports)
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


def attest(
    bundle: BundlePath,
    role: Annotated[CountersigningRole, typer.Option(help="As whom you sign.")],
    signing_key: Annotated[str, typer.Option("--signing-key", help="Your private signing key.")],
    trusted_keys: TrustedKeys,
    evidence: Annotated[
        Path | None, typer.Option(help="An auditor's own evidence about this model.")
    ] = None,
    policy: AskedPolicy = None,
    as_json: AsJson = False,
) -> None:
    """Countersign a bundle that verifies: an auditor its tests, an approver the gate's decision.

    What is signed follows from the bundle; a FAIL is attested as FAILED.

    Example: dpmlm release attest work/bundle --role auditor
        --signing-key keys/auditor-sign.key --trusted-keys keys/trusted
    """
    from dpmlm.artifacts import load_signing_key
    from dpmlm.release.verification import attest_bundle

    key = load_signing_key(signing_key)
    now = datetime.now(UTC)
    written = attest_bundle(
        bundle,
        role.value,
        key,
        trusted_keys=trusted_keys,
        now=now,
        evidence=evidence,
        policy=policy,
        tell=lambda line: typer.echo(f"WARNING: {line}", err=True),
    )
    print_written([bundle / written.file], as_json=as_json, note=f": {written.result}")


def export(
    bundle: BundlePath,
    to: Annotated[Path, typer.Option("--to", help="New folder for the plain model.")],
    trusted_keys: TrustedKeys,
    identity: Annotated[Path, typer.Option("--identity", help="Private key of a consumer.")],
    plaintext: Annotated[
        bool, typer.Option("--plaintext", help="Needed: says that clear weights are meant.")
    ] = False,
    log: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Write a verified bundle's model in clear, for tools that need plain files.

    Before anything is written it is logged, in --log or in exports.jsonl: beside the workspace,
    beside a registry's journal, else beside the bundle.

    Example: dpmlm release export work/bundle --to model --plaintext
        --identity keys/consumer.key --trusted-keys keys/trusted
    """
    if not plaintext:
        raise UserError("release export", "it writes the model in clear", "say so with --plaintext")
    from dpmlm.pipeline.export import export_plaintext

    written = export_plaintext(bundle, to, identity=identity, trusted_keys=trusted_keys, log=log)
    print_written([written], as_json=as_json, note=" in clear")


def exports(
    bundle: BundlePath,
    log: LogFile = None,
    head: Annotated[
        str | None, typer.Option(help="Last line as it was noted, NUMBER:sha256:HASH.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """List the exports in the log of this bundle, and check the log's chain.

    Exit status 1 says that lines were changed or taken away.

    Example: dpmlm release exports work/bundle
    """
    from dpmlm.release.exports import exports_of

    try:
        found = exports_of(bundle, log=log, head=head)
    except IntegrityError as error:
        raise VerdictNo(str(error)) from None
    if as_json:
        print_json("dpmlm.exports/1", found.to_json())
    else:
        typer.echo(found.text())
    return 0
