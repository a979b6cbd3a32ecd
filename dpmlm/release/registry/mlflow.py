"""Releases on an MLflow 3 server: a run with public figures, the bundle's files, a model version.

What goes there is what everybody with the bundle can read, and ciphertext. The server is not
trusted: its tags and aliases are for people who look at it, and whatever `fetch` gets is verified
before it is left. The run id of ours, which the bundle's manifest signs, is a tag of both the
MLflow run and the model version, and joins them to ledger and workspace.

Every step is looked for before it is done, so after a failure the same command goes on.
"""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from dpmlm.artifacts import digest
from dpmlm.artifacts.atomic import sync_folder
from dpmlm.errors import IntegrityError, UserError
from dpmlm.release.inventory import files_of, take_record
from dpmlm.release.registry.figures import metrics, params, tags
from dpmlm.release.registry.history import PASS
from dpmlm.release.registry.names import Reference, check_alias, check_name, parse_reference
from dpmlm.release.registry.passing import (
    NotPassed,
    Release,
    read_release,
    refuse_other_policy,
    refuse_unpassed,
)
from dpmlm.release.registry.server import Server

_BUNDLE = "bundle"
"""Folder of the bundle among the artifacts of a run."""
_RELEASE = "dpmlm.release"
_CONTENT = "dpmlm.content"
"""Tag: digest of the files as they were uploaded, set when all of them are."""
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_MOST_FILES = 1000


@dataclass(frozen=True)
class Published:
    """A release on a server."""

    name: str
    """Of the registered model."""
    version: int
    """Its number there, which is not that of a local registry."""
    mlflow_run: str
    """Id that MLflow gave its run."""
    release: str
    """`release_digest` of the bundle."""
    verdict: str
    uploaded: int
    """Files uploaded now; 0 where they were there."""
    alias: str | None
    """That points to the version now; None for none."""
    withheld: str | None
    """Why it does not point there."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """One line."""
        pointing = f"@{self.alias}" if self.alias else f"no alias: {self.withheld}"
        return (
            f"{self.name} {self.version} {self.verdict} {pointing}; {self.uploaded} files "
            f"uploaded to run {self.mlflow_run}"
        )


@dataclass(frozen=True)
class Fetched:
    """A release that was got from a server, and verified."""

    path: str
    """The bundle's folder."""
    name: str
    version: int
    release: str
    verdict: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """One line."""
        return f"wrote {self.path}: {self.name} {self.version}, verified, {self.verdict}"


def publish(
    bundle: Path,
    tracking_uri: str,
    name: str,
    *,
    trusted_keys: Path,
    alias: str = "passed",
    policy: Path | str | None = None,
) -> Published:
    """Verify a bundle and register it; the alias is set on PASS alone, and never moved back.

    `policy` is the one it must have been judged by, else UserError before a server is asked.

    Raises IntegrityError for a bundle that does not verify; UserError for a server that cannot be
    reached or refuses, saying what was done before.
    """
    check_name(name)
    check_alias(alias)
    now = datetime.now(UTC)
    release = read_release(Path(bundle), trusted_keys, now)
    if policy is not None:
        refuse_other_policy(release, policy)
    server = Server(tracking_uri)
    server.need_registry()
    run = _run(server, name, release)
    uploaded = _upload(server, run, release)
    version = _version(server, name, run, release)
    pointing, withheld = _point(server, name, version, alias, release, now)
    return Published(
        name=name,
        version=version,
        mlflow_run=str(run.info.run_id),
        release=release.digest,
        verdict=release.verdict,
        uploaded=uploaded,
        alias=pointing,
        withheld=withheld,
    )


def fetch(reference: str, tracking_uri: str, to: Path, *, trusted_keys: Path) -> Fetched:
    """Get the bundle behind `NAME@ALIAS` or `NAME@NUMBER`; at `to` only if it verifies.

    What an alias names must have passed, whatever the server says. Raises IntegrityError for what
    does not verify, and UserError for what is not there.
    """
    wanted = parse_reference(reference)
    target = Path(to)
    if target.exists() or target.is_symlink():
        raise UserError(f"--to {target}", "it is there already", "name a new folder")
    server = Server(tracking_uri)
    found = _wanted(server, wanted)
    draft = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        draft.mkdir(parents=True)
        _download(server, str(found.run_id), draft)
        release = read_release(draft / _BUNDLE, trusted_keys, datetime.now(UTC))
        _refuse_other(reference, wanted, found, release)
        os.replace(draft / _BUNDLE, target)
        sync_folder(target.parent)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise UserError(
            f"--to {target}", f"it could not be written ({reason})", "make room, and repeat"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    version = int(found.version)
    return Fetched(str(target), wanted.name, version, release.digest, release.verdict)


def _run(server: Server, name: str, release: Release) -> Any:
    """The MLflow run of this release, begun if there is none, with its figures."""
    from mlflow.entities import Metric, Param

    client = server.client
    known = server.ask("look for the experiment", lambda: client.get_experiment_by_name(name))
    if known is None:
        experiment = server.ask("make an experiment", lambda: client.create_experiment(name))
        server.did(f"made experiment {name}")
    else:
        experiment = known.experiment_id
    named = f"tags.`{_RELEASE}` = '{release.digest}'"
    runs = server.ask("look for the run", lambda: client.search_runs([experiment], named))
    if runs:
        return runs[0]
    run = server.ask(
        "make a run",
        lambda: client.create_run(experiment, tags=tags(release), run_name=release.run_id or name),
    )
    server.did(f"made run {run.info.run_id}")
    at = int(datetime.fromisoformat(str(release.checked.manifest["created"])).timestamp() * 1000)
    figures = [Metric(key, value, at, 0) for key, value in metrics(release).items()]
    settings = [Param(key, value) for key, value in params(release).items()]
    server.ask(
        "log public figures",
        lambda: client.log_batch(run.info.run_id, metrics=figures, params=settings),
    )
    return run


def _upload(server: Server, run: Any, release: Release) -> int:
    """Bring the bundle's files there, and no others; how many."""
    server.check_store(run)
    client, run_id = server.client, run.info.run_id
    names = files_of(release.folder)
    content = _content(release.folder, names)
    if run.data.tags.get(_CONTENT) == content:
        return 0
    for number, name in enumerate(names):
        place = str(PurePosixPath(_BUNDLE, name).parent)
        source = str(release.folder / name)
        server.ask(
            f"take {name} (after {number} of {len(names)} files)",
            partial(client.log_artifact, run_id, source, place),
        )
    server.did(f"uploaded {len(names)} files")
    server.ask("take a tag", lambda: client.set_tag(run_id, _CONTENT, content))
    server.ask("end the run", lambda: client.set_terminated(run_id, "FINISHED"))
    return len(names)


def _content(folder: Path, names: list[str]) -> str:
    found = {}
    for name in names:
        with open(folder / name, "rb") as file:
            found[name] = take_record(file, name)["digest"]
    return digest(found)


def _version(server: Server, name: str, run: Any, release: Release) -> int:
    """Number of the model version of this release, made if there is none."""
    client = server.client
    if server.ask_for("look for the model", lambda: client.get_registered_model(name)) is None:
        server.ask("register a model", lambda: client.create_registered_model(name))
        server.did(f"registered model {name}")
    known = server.ask("look for versions", lambda: client.search_model_versions(f"name='{name}'"))
    same = [int(one.version) for one in known if one.tags.get(_RELEASE) == release.digest]
    if same:
        return min(same)
    made = server.ask(
        "register a version",
        lambda: client.create_model_version(
            name,
            source=f"{run.info.artifact_uri}/{_BUNDLE}",
            run_id=run.info.run_id,
            tags=tags(release),
        ),
    )
    server.did(f"registered version {made.version}")
    return int(made.version)


def _point(
    server: Server, name: str, version: int, alias: str, release: Release, now: datetime
) -> tuple[str | None, str | None]:
    """The alias that points to the version now, or why none does."""
    try:
        refuse_unpassed(release, now)
    except NotPassed as error:
        return None, error.rule
    client = server.client
    model = server.ask("look for the alias", lambda: client.get_registered_model(name))
    held = int(model.aliases.get(alias, 0))
    if held > version:
        return None, f"{alias} points to version {held}, which is later"
    if held != version:
        server.ask(
            "set the alias",
            lambda: client.set_registered_model_alias(name, alias, str(version)),
        )
    return alias, None


def _wanted(server: Server, wanted: Reference) -> Any:
    client, number = server.client, wanted.number
    if wanted.alias is not None:
        model = server.ask_for(
            "look for the model", lambda: client.get_registered_model(wanted.name)
        )
        number = int(model.aliases.get(wanted.alias, 0)) if model is not None else 0
    found = server.ask_for(
        "look for the version", lambda: client.get_model_version(wanted.name, str(number))
    )
    if found is None or not found.run_id:
        raise UserError(
            f"{wanted.name}@{wanted.alias or number} at {server.uri}",
            "there is no such version",
            "look at what the server has, or publish it",
        )
    return found


def _download(server: Server, run_id: str, folder: Path) -> None:
    """Get the files of a run's bundle; names that a bundle has not are refused before that."""
    run = server.ask("look for the run", lambda: server.client.get_run(run_id))
    server.check_store(run)
    names = list(_listed(server, run_id, _BUNDLE))
    if not names:
        raise UserError(
            f"run {run_id} at {server.uri}", f"it holds no {_BUNDLE}", "publish the release again"
        )
    for name in names:
        place = str((folder / name).parent)  # MLflow writes the last part of a name alone
        server.ask(f"give {name}", partial(server.client.download_artifacts, run_id, name, place))


def _listed(server: Server, run_id: str, folder: str) -> Iterator[str]:
    """Files below a folder of a run's artifacts, two levels of folders at most."""
    listed = server.ask(f"list {folder}", lambda: server.client.list_artifacts(run_id, folder))
    if len(listed) > _MOST_FILES:
        raise _no_bundle(server, f"{folder} has {len(listed)} files")
    for one in listed:
        path = PurePosixPath(one.path)
        if str(path.parent) != folder or not _PART.fullmatch(path.name):
            raise _no_bundle(server, f"{ascii(one.path)[:80]} is no name of a file in one")
        if not one.is_dir:
            yield one.path
        elif folder == _BUNDLE:
            yield from _listed(server, run_id, one.path)


def _no_bundle(server: Server, why: str) -> IntegrityError:
    return IntegrityError(
        f"artifacts at {server.uri}", f"they are no bundle: {why}", "trust nothing of this server"
    )


def _refuse_other(reference: str, wanted: Reference, found: Any, release: Release) -> None:
    """The server may point anywhere; what it cannot do is sign."""
    if wanted.alias is not None and release.verdict != PASS:
        raise IntegrityError(
            f"{reference} with verdict {release.verdict}",
            "the server's alias points to what did not pass",
            "ask who set it; name a version by its number to get it all the same",
        )
    told = found.tags.get(_RELEASE)
    if told != release.digest:
        raise IntegrityError(
            f"{reference}, release {release.digest}",
            f"the server's tag says {ascii(told)[:80]}",
            "ask who changed the server",
        )
