"""`Registry`: versions of named models in a folder, and one journal that says what they are.

    journal.jsonl     every event, hash-chained and signed; names and aliases follow from it alone
    exports.jsonl     which version was written in clear, when and whose key opened it (`exports`)
    NAME/NUMBER/      a copy of a bundle

A version is there when its line is: the copy takes its place before the line is written, so a kill
between the two leaves a folder that no line names, which nothing reads and the next `add` replaces.
Nothing is read without being verified against the reader's trusted keys, and against the release
that the journal names.

Lines may be signed by every trusted key: those that sign bundles, those in `approver/`, and those
in `registry/`, which may sign such lines alone.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SigningKey, VerifyKey, atomic_write
from dpmlm.artifacts.atomic import place_folder, sync_folder
from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy.journal import Journal, check_signature, create
from dpmlm.release import exports
from dpmlm.release.attestations import STATEMENTS
from dpmlm.release.countersigning import missing
from dpmlm.release.inventory import Finding, files_of
from dpmlm.release.registry.history import JOURNAL, SCHEMA, History, Version
from dpmlm.release.registry.names import check_alias, check_name, parse_reference
from dpmlm.release.registry.passing import (
    Release,
    read_release,
    refuse_other_policy,
    refuse_unpassed,
)
from dpmlm.release.trust import APPROVER, REGISTRY, TRAINER, load_trust

_WHAT = "registry"
_PIECE = 1 << 20


class Registry:
    """A registry in a folder; the first `add` makes it.

    Without `trusted_keys` it lists what the journal says, whoever signed it, and gives out nothing.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        trusted_keys: Path | None = None,
        signing_key: SigningKey | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = Path(folder)
        self._trusted_keys = trusted_keys
        self._signers = None if trusted_keys is None else trusted_signers(trusted_keys)
        self._signing_key = signing_key
        self._clock = clock
        self._history = History(f"{_WHAT} {self.folder / JOURNAL}", self.folder)
        self._journal = Journal(self.folder / JOURNAL, self._apply, signing_key, _WHAT, shared=True)

    @property
    def head(self) -> str:
        """Number and hash of the last line: noted elsewhere, a journal that was cut is found."""
        self._read()
        return f"{self._journal.length}:{self._journal.head}"

    def versions(self, name: str | None = None) -> list[Version]:
        """All versions, or those of a name, as the journal has them; opens no bundle."""
        self._read()
        return self._history.versions(name)

    def aliases(self, name: str) -> dict[str, int]:
        """Version number by alias."""
        self._read()
        return self._history.aliases(check_name(name))

    def entries(self, name: str | None = None) -> list[dict[str, Any]]:
        """The journal's lines, or those about a name."""
        self.versions(name)
        return [line for line in self._journal.entries() if name in (None, line.get("name"))]

    def add(self, bundle: Path | str, name: str) -> Version:
        """Copy a bundle that verifies, whatever its verdict.

        The same release again under one name is the same version; if its copy was damaged, this
        one takes its place, and countersignatures that the copy has not are taken over. Raises
        IntegrityError for what does not verify, and UserError where the copy cannot be written;
        the registry is then as it was.
        """
        check_name(name)
        source = self._verified(Path(bundle))
        with self._writing(begin=True):
            known = self._history.release(name, source.digest)
            if known is not None:
                held, _ = self._examine(known)
                if held is None:
                    self._copy(source, known.path)
                else:
                    self._take_over(source, held)
                return known
            number = self._history.next_number(name)
            copied = self._copy(source, self.folder / name / str(number))
            manifest = copied.checked.manifest
            self._append(
                "add",
                name=name,
                version=number,
                release=copied.digest,
                run_id=copied.run_id,
                model_digest=str(manifest["model_digest"]),
                verdict=copied.verdict,
                created=str(manifest["created"]),
            )
            return self._history.version(name, number)

    def promote(
        self,
        name: str,
        number: int,
        alias: str,
        require: Sequence[str] = (),
        policy: Path | str | None = None,
    ) -> Version:
        """Point an alias to a version that verifies, passed and rests on no expired waiver.

        `require` are roles (auditor, approver) who must have countersigned it, `policy` is the one
        that it must have been judged by.
        """
        check_alias(alias)
        with self._writing():
            return self._point(
                "promote", self._history.version(name, number), alias, require, policy
            )

    def rollback(self, name: str, alias: str) -> Version:
        """Point an alias to the version that it pointed to before, under the same conditions."""
        with self._writing():
            return self._point("rollback", self._history.before(name, alias), alias)

    def retire(self, name: str, number: int) -> Version:
        """Let no alias point to a version any more; its bundle stays as evidence."""
        with self._writing():
            version = self._history.version(name, number)
            if version.state != "retired":
                self._history.refuse_used(version)
                self._append("retire", name=name, version=number)
            return self._history.version(name, number)

    def resolve(self, reference: str) -> Version:
        """The version behind `NAME@ALIAS` or `NAME@NUMBER`, whose bundle was verified just now.

        A waiver that expired since the promotion takes nothing away; `verify_bundle` notes it.
        """
        wanted = parse_reference(reference)
        self._read()
        if wanted.alias is not None:
            version = self._history.at(wanted.name, wanted.alias)
        else:
            version = self._history.version(wanted.name, wanted.number or 0)
        self._check(version)
        return version

    def verify(self, *, head: str | None = None) -> list[Finding]:
        """Everything that is wrong: lines, signatures, bundles, and folders that no line names.

        `head` is what `head` was once: a line that is gone is found by it.
        """
        self._need_trust()
        seen = set()
        try:
            fresh = Registry(self.folder, trusted_keys=self._trusted_keys)
            fresh._read()
            for line in fresh._journal.entries():
                seen.add(f"{line['number']}:{line['hash']}")
        except IntegrityError as error:
            return [Finding(JOURNAL, error.given, error.rule, error.next_step)]
        findings = []
        if head is not None and head not in seen:
            what = "the line that was noted as its head is gone: it was cut or rewritten"
            findings.append(Finding(JOURNAL, head, what, "restore the registry from a copy"))
        versions = fresh.versions()
        for version in versions:
            findings += self._examine(version)[1]
        return findings + self._strangers(versions)

    def _apply(self, entry: dict[str, Any]) -> None:
        if self._signers is not None:
            check_signature(self._journal.name, entry, self._signers)
        self._history.apply(entry)

    def _read(self) -> None:
        if not self.folder.is_dir() or not self._journal.path.exists():
            raise UserError(
                f"{_WHAT} {self.folder}",
                f"there is none: it has no {JOURNAL}",
                "name another folder; `dpmlm registry add` begins one",
            )
        self._journal.refresh()

    @contextlib.contextmanager
    def _writing(self, *, begin: bool = False) -> Iterator[None]:
        """Hold the journal alone, as somebody whose lines are believed."""
        self._need_trust()
        key = self._signing_key
        if key is None:
            raise UserError(
                f"{_WHAT} {self.folder}", "whoever writes to it signs that", "give --signing-key"
            )
        if key.key_id not in (self._signers or {}):
            raise UserError(
                f"signing key {key.key_id}",
                "it is not among the trusted keys, so nobody would believe its line",
                f"put its .pub file into {self._trusted_keys} or into its folder {REGISTRY}",
            )
        if begin and not self._journal.path.exists():
            self._begin(key)
        self._read()
        with self._journal.exclusive():
            yield

    def _begin(self, key: SigningKey) -> None:
        folder = self.folder
        if folder.exists() and not (
            folder.is_dir() and all(_hidden(one) for one in folder.iterdir())
        ):
            raise UserError(
                f"{_WHAT} {self.folder}",
                f"something else is there: it has no {JOURNAL}",
                "name a new folder, or restore its journal",
            )
        fields = {"schema": SCHEMA, "time": self._now()}
        try:
            create(self._journal.path, "registry", fields, key, _WHAT)
        except OSError as error:
            raise self._not_written(error) from error
        except UserError:
            if not self._journal.path.exists():  # or another process began it just now
                raise

    def _point(
        self,
        kind: str,
        version: Version,
        alias: str,
        require: Sequence[str] = (),
        policy: Path | str | None = None,
    ) -> Version:
        self._history.refuse_retired(version)
        release = self._check(version, require)
        refuse_unpassed(release, self._clock())
        if policy is not None:
            refuse_other_policy(release, policy)
        if kind == "rollback" or self._history.aliases(version.name).get(alias) != version.number:
            self._append(kind, name=version.name, version=version.number, alias=alias)
        return self._history.version(version.name, version.number)

    def _append(self, kind: str, **fields: Any) -> None:
        self._journal.append(kind, {**fields, "time": self._now()})

    def _now(self) -> str:
        return self._clock().isoformat(timespec="seconds")

    def _need_trust(self) -> Path:
        if self._trusted_keys is None:
            raise UserError(
                f"{_WHAT} {self.folder}",
                "nothing is verified without trusted keys",
                "give --trusted-keys",
            )
        return self._trusted_keys

    def _verified(self, bundle: Path) -> Release:
        return read_release(bundle, self._need_trust(), self._clock())

    def _check(self, version: Version, require: Sequence[str] = ()) -> Release:
        """The version's bundle, verified anew; IntegrityError if it is not what was added."""
        release, wrong = self._examine(version)
        if release is None:
            (found,) = wrong
            place = f"{_WHAT} {self.folder}, {found.file} {found.where}"
            raise IntegrityError(place, found.what, found.next_step)
        for found in missing(require, release.checked.countersigned, release.verdict):
            raise IntegrityError(
                f"{_WHAT} {self.folder}, {version.name}/{version.number}",
                found.what,
                f"ask for `dpmlm release attest {version.path} --role {found.where}`, or add the "
                "release again from a bundle that has it",
            )
        return release

    def _examine(self, version: Version) -> tuple[Release | None, list[Finding]]:
        """The version's bundle if it is what was added, or what is wrong with its folder."""
        where = f"{version.name}/{version.number}"
        mend = "add the same release again, from a good copy of its bundle"
        if version.path.parent.is_symlink() or version.path.is_symlink():
            return None, [Finding(where, "folder", "it is a link, and was none", mend)]
        if not version.path.is_dir():
            return None, [Finding(where, "folder", "it is gone", mend)]
        try:
            release = self._verified(version.path)
        except IntegrityError as error:
            return None, [Finding(where, error.given, error.rule, mend)]
        found = (release.digest, release.verdict, release.checked.manifest["model_digest"])
        if found != (version.release, version.verdict, version.model_digest):
            what = f"it is another release, {release.digest}, than {version.release} that was added"
            return None, [Finding(where, "folder", what, mend)]
        return release, []

    def _strangers(self, versions: list[Version]) -> list[Finding]:
        """What lies in the folder and in no line; what begins with a dot may be in the making."""
        ours = (JOURNAL, exports.NAME)
        known = {self.folder / f"{name}{end}" for name in ours for end in ("", ".lock")}
        known |= {one.path for one in versions} | {one.path.parent for one in versions}
        present = list(self.folder.iterdir())
        for path in {one.path.parent for one in versions}:
            present += path.iterdir() if path.is_dir() and not path.is_symlink() else []
        what = "no line of the journal names it; a killed `add` may have left it"
        return [
            Finding(
                str(path.relative_to(self.folder)), "whole", what, "remove it; nothing reads it"
            )
            for path in sorted(present)
            if path not in known and not _hidden(path) and not _empty(path)
        ]

    def _copy(self, source: Release, target: Path) -> Release:
        """A verified copy of a bundle at `target`, whole or not at all."""
        draft = target.with_name(f".{target.name}.partial")
        if target.parent.is_symlink():
            raise UserError(str(target.parent), "it is a link", "look who made it, and remove it")
        try:
            target.parent.mkdir(exist_ok=True)
            sync_folder(self.folder)
            _remove(draft)  # of an add that was killed, as is a target that no line names
            _copy_files(source.folder, draft)
            copied = self._verified(draft)
            if copied.digest != source.digest:
                raise IntegrityError(
                    f"bundle {source.folder}", "it changed while it was copied", "add it again"
                )
            _remove(target)
            place_folder(draft, target)
        except OSError as error:
            raise self._not_written(error) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return copied

    def _take_over(self, source: Release, held: Release) -> None:
        """Countersignatures of `source` into the copy of the same release that has them not.

        An approver's rests on the trainer's statements and on auditors', so all that both have
        must be the same; auditors' come first, and the copy verifies after every one of them.
        """
        theirs, ours = _statements(source), _statements(held)
        new = sorted(set(theirs) - set(ours), reverse=True)
        others = sorted(name for name in set(theirs) & set(ours) if theirs[name] != ours[name])
        if new and others:
            raise UserError(
                f"bundle {source.folder}, {others[0]}",
                f"it is another one in {held.folder}, so {new[0]} cannot be taken over",
                f"ask for `dpmlm release attest {held.folder}`",
            )
        try:
            for name in new:
                with atomic_write(held.folder / name) as file:
                    file.write(theirs[name])
        except OSError as error:
            raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> UserError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return UserError(
            f"{_WHAT} {self.folder}",
            f"it could not be written ({reason})",
            "make room or mend its permissions, and repeat; nothing was added",
        )


def trusted_signers(trusted_keys: Path) -> Mapping[str, VerifyKey]:
    """Every key that may sign a registry's lines, by key id."""
    keys = load_trust(trusted_keys).keys
    return {**keys[TRAINER], **keys[APPROVER], **keys[REGISTRY]}


def _statements(release: Release) -> dict[str, bytes]:
    """What is said about a release: the trainer's statements, and countersignatures."""
    names = (*STATEMENTS, *(one.file for one in release.checked.countersigned))
    return {name: (release.folder / name).read_bytes() for name in names}


def _copy_files(source: Path, target: Path) -> None:
    """Copy plain files, links followed nowhere, all of it on the disk when this returns."""
    target.mkdir()
    folders = {target}
    for name in files_of(source):
        for parent in reversed(Path(name).parents[:-1]):
            (target / parent).mkdir(exist_ok=True)
            folders.add(target / parent)
        handle = os.open(source / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as reading, atomic_write(target / name) as writing:
            shutil.copyfileobj(reading, writing, _PIECE)
    for folder in folders:
        sync_folder(folder)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _empty(path: Path) -> bool:
    """A name's folder, before its first version is there."""
    return path.is_dir() and not path.is_symlink() and all(map(_hidden, path.iterdir()))
