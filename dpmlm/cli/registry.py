"""`dpmlm registry`: releases by name and number, and who is champion."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpmlm.cli.options import AsJson, print_json
from dpmlm.cli.release import AskedPolicy, BundlePath, Require, TrustedKeys, roles_of
from dpmlm.errors import IntegrityError, VerdictNo

if TYPE_CHECKING:
    from dpmlm.release.registry.history import Version
    from dpmlm.release.registry.local import Registry

RegistryFolder = Annotated[Path, typer.Argument(help="Folder of the registry.", metavar="REG")]
Name = Annotated[str, typer.Argument(help="Name of a model.", metavar="NAME")]
Number = Annotated[int, typer.Argument(help="Number of a version.", metavar="VERSION")]
Alias = Annotated[str, typer.Option(help="A place that points to a version.")]
Signing = Annotated[
    str, typer.Option("--signing-key", help="Private key that signs the registry's line.")
]
MaybeTrusted = Annotated[
    Path | None,
    typer.Option("--trusted-keys", help="Check that trusted keys signed the registry's lines."),
]
Address = Annotated[
    str,
    typer.Option("--tracking-uri", help="Address of an MLflow server: https, or on this machine."),
]


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="Releases by name, number and alias.", no_args_is_help=True)
    for name, verb in (
        ("add", add),
        ("list", list_versions),
        ("show", show),
        ("promote", promote),
        ("rollback", rollback),
        ("retire", retire),
        ("history", history),
        ("verify", verify),
        ("path", path),
        ("mlflow", mlflow),
        ("fetch", fetch),
    ):
        verbs.command(name)(verb)
    app.add_typer(verbs, name="registry")


def add(
    registry: RegistryFolder,
    bundle: BundlePath,
    name: Annotated[str, typer.Option(help="Name of the model.")],
    trusted_keys: TrustedKeys,
    signing_key: Signing,
    as_json: AsJson = False,
) -> None:
    """Copy a bundle that verifies into the registry, which the first call makes.

    The same release again mends its copy, and brings countersignatures that the copy has not.
    Exit status 1 says that the bundle does not verify.

    Example: dpmlm registry add models work/bundle --name notes
        --trusted-keys keys/trusted --signing-key keys/sign.key
    """
    opened = _open(registry, trusted_keys, signing_key)
    with _answering():
        added = opened.add(bundle, name)
    _print_version(opened, added, as_json)


def list_versions(
    registry: RegistryFolder, trusted_keys: MaybeTrusted = None, as_json: AsJson = False
) -> None:
    """List every version with its verdict, its state and the aliases that point to it.

    Example: dpmlm registry list models
    """
    _print_versions(_open(registry, trusted_keys), None, as_json)


def show(
    registry: RegistryFolder,
    name: Name,
    trusted_keys: MaybeTrusted = None,
    as_json: AsJson = False,
) -> None:
    """Show the versions of one model, with their digests.

    Example: dpmlm registry show models notes
    """
    _print_versions(_open(registry, trusted_keys), name, as_json)


def promote(
    registry: RegistryFolder,
    name: Name,
    version: Number,
    alias: Alias,
    trusted_keys: TrustedKeys,
    signing_key: Signing,
    require: Require = None,
    policy: AskedPolicy = None,
    as_json: AsJson = False,
) -> None:
    """Point an alias to a version that verifies and passed its gate; exit status 1 for any other.

    Example: dpmlm registry promote models notes 2 --alias champion
        --trusted-keys keys/trusted --signing-key keys/sign.key
    """
    opened = _open(registry, trusted_keys, signing_key)
    with _answering():
        promoted = opened.promote(name, version, alias, roles_of(require), policy)
    _print_version(opened, promoted, as_json)


def rollback(
    registry: RegistryFolder,
    name: Name,
    alias: Alias,
    trusted_keys: TrustedKeys,
    signing_key: Signing,
    as_json: AsJson = False,
) -> None:
    """Point an alias to the version that it pointed to before, under the same conditions.

    Example: dpmlm registry rollback models notes --alias champion
        --trusted-keys keys/trusted --signing-key keys/sign.key
    """
    opened = _open(registry, trusted_keys, signing_key)
    with _answering():
        pointed = opened.rollback(name, alias)
    _print_version(opened, pointed, as_json)


def retire(
    registry: RegistryFolder,
    name: Name,
    version: Number,
    trusted_keys: TrustedKeys,
    signing_key: Signing,
    as_json: AsJson = False,
) -> None:
    """Let no alias point to a version any more; its bundle stays.

    Example: dpmlm registry retire models notes 1
        --trusted-keys keys/trusted --signing-key keys/sign.key
    """
    opened = _open(registry, trusted_keys, signing_key)
    with _answering():
        retired = opened.retire(name, version)
    _print_version(opened, retired, as_json)


def history(
    registry: RegistryFolder,
    name: Annotated[str | None, typer.Option(help="Of this model alone.")] = None,
    trusted_keys: MaybeTrusted = None,
    as_json: AsJson = False,
) -> None:
    """Print who added, promoted, rolled back and retired what, and the journal's head.

    Example: dpmlm registry history models
    """
    opened = _open(registry, trusted_keys)
    with _answering():
        entries = opened.entries(name)
    if as_json:
        print_json("dpmlm.registry.history/1", {"head": opened.head, "entries": entries})
        return
    for entry in entries:
        about = f"{entry['name']} {entry['version']}" if "name" in entry else ""
        words = (entry["time"], entry["key_id"], entry["kind"], about, entry.get("alias", ""))
        typer.echo(" ".join(words).rstrip())
    typer.echo(f"head {opened.head}")


def verify(
    registry: RegistryFolder,
    trusted_keys: TrustedKeys,
    head: Annotated[
        str | None, typer.Option(help="Last line as it was noted, NUMBER:sha256:HASH.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Check every line and every bundle; exit status 1 says that something is wrong, and what.

    Example: dpmlm registry verify models --trusted-keys keys/trusted
    """
    findings = _open(registry, trusted_keys).verify(head=head)
    if as_json:
        found = [dict(finding.__dict__) for finding in findings]
        print_json("dpmlm.registry.check/1", {"ok": not findings, "findings": found})
    else:
        typer.echo("\n".join(map(str, findings)) or "every line and every bundle verifies")
    return 1 if findings else 0


def path(
    registry: RegistryFolder,
    reference: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="Or NAME@VERSION.")],
    trusted_keys: TrustedKeys,
    as_json: AsJson = False,
) -> None:
    """Print the folder of a bundle that was verified just now, for scripts.

    Exit status 1 says that it does not verify.

    Example: dpmlm registry path models notes@champion --trusted-keys keys/trusted
    """
    opened = _open(registry, trusted_keys)
    with _answering():
        version = opened.resolve(reference)
    if as_json:
        _print_version(opened, version, as_json)
    else:
        typer.echo(version.path)


def mlflow(
    bundle: BundlePath,
    tracking_uri: Address,
    name: Annotated[str, typer.Option(help="Name of the registered model.")],
    trusted_keys: TrustedKeys,
    alias: Annotated[str, typer.Option(help="Set on PASS alone.")] = "passed",
    policy: AskedPolicy = None,
    as_json: AsJson = False,
) -> None:
    """Register a bundle that verifies with an MLflow server, as ciphertext and public figures.

    Credentials are MLflow's own (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_TOKEN).

    Example: dpmlm registry mlflow work/bundle --name notes
        --tracking-uri https://mlflow.example --trusted-keys keys/trusted
    """
    from dpmlm.release.registry.mlflow import publish

    with _answering():
        done = publish(
            bundle, tracking_uri, name, trusted_keys=trusted_keys, alias=alias, policy=policy
        )
    if as_json:
        print_json("dpmlm.registry.published/1", done.to_json())
    else:
        typer.echo(done.text())


def fetch(
    reference: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="Or NAME@VERSION.")],
    tracking_uri: Address,
    to: Annotated[Path, typer.Option("--to", help="New folder for the bundle.")],
    trusted_keys: TrustedKeys,
    as_json: AsJson = False,
) -> None:
    """Get a bundle from an MLflow server; its folder is there only if it verifies.

    Example: dpmlm registry fetch notes@passed --to bundle
        --tracking-uri https://mlflow.example --trusted-keys keys/trusted
    """
    from dpmlm.release.registry.mlflow import fetch

    with _answering():
        got = fetch(reference, tracking_uri, to, trusted_keys=trusted_keys)
    if as_json:
        print_json("dpmlm.registry.fetched/1", got.to_json())
    else:
        typer.echo(got.text())


@contextmanager
def _answering() -> Iterator[None]:
    """What does not verify, or did not pass, is an answer: exit status 1."""
    from dpmlm.release.registry.passing import NotPassed

    try:
        yield
    except (IntegrityError, NotPassed) as error:
        raise VerdictNo(str(error)) from None


def _open(folder: Path, trusted: Path | None, signing_key: str | None = None) -> "Registry":
    from dpmlm.artifacts import load_signing_key
    from dpmlm.release.registry.local import Registry

    key = load_signing_key(signing_key) if signing_key else None
    return Registry(folder, trusted_keys=trusted, signing_key=key)


def _pointing(opened: "Registry", version: "Version") -> list[str]:
    found = opened.aliases(version.name)
    return [alias for alias, number in found.items() if number == version.number]


def _shown(opened: "Registry", version: "Version") -> dict[str, Any]:
    return {**version.to_json(), "aliases": _pointing(opened, version)}


def _row(opened: "Registry", version: "Version") -> str:
    words = (version.name, str(version.number), version.verdict, version.state, version.created)
    return " ".join([*words, *(f"@{alias}" for alias in _pointing(opened, version))])


def _print_version(opened: "Registry", version: "Version", as_json: bool) -> None:
    if as_json:
        print_json("dpmlm.registry.version/1", _shown(opened, version))
    else:
        typer.echo(_row(opened, version))


def _print_versions(opened: "Registry", name: str | None, as_json: bool) -> None:
    with _answering():
        versions = opened.versions(name)
    if as_json:
        found = [_shown(opened, version) for version in versions]
        print_json("dpmlm.registry.versions/1", {"head": opened.head, "versions": found})
        return
    for version in versions:
        typer.echo(_row(opened, version))
        if name is not None:
            typer.echo(f"  release {version.release}\n  model   {version.model_digest}")
            typer.echo(f"  run     {version.run_id or '-'}\n  path    {version.path}")
            typer.echo(f"  added   {version.added}, signed by {version.added_by}")
