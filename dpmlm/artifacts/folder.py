"""One stage's artifact: a folder of sealed files under one input key.

    recipients.json     who can open it, and its role in clear
    NAME.sealed         the files; each is bound to the folder's role and its own name
    manifest.sealed     written last: what the stage says about itself, and every file's digest

A folder without a manifest is unfinished. Changes of a finished folder wait beside its files until
`finish` writes the next manifest (`drafts`): whatever is killed, others find the old folder or the
new one, whole. `unfinish` is for who builds it anew and means to go on after a kill. The manifest
keeps each file's salt: an older version of a file, though sound in itself, is refused when it is
opened.
"""

import contextlib
import functools
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, overload

from dpmlm.artifacts import drafts
from dpmlm.artifacts.atomic import HashedFile, atomic_write, sweep_temporaries, sync_folder
from dpmlm.artifacts.chunks import (
    KEY_BYTES,
    SALT_BYTES,
    SealedReader,
    SealedWriter,
    first_damage,
)
from dpmlm.artifacts.identities import Identity, Recipient
from dpmlm.artifacts.recipients import WrappedKey
from dpmlm.artifacts.sealed import open_reader, read_whole
from dpmlm.canonical import canonical_json, digest
from dpmlm.errors import IntegrityError, UserError

_MANIFEST = "manifest"
RECIPIENTS = "recipients.json"
"""Name of the file in a folder that says who can open it."""
_SUFFIX = ".sealed"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class _OpenFolder(Protocol):
    def __call__(
        self, path: Path, identities: Sequence[Identity], *, role: str | None = None
    ) -> "SealedFolder": ...


class _Open:
    """One verb for both levels: `SealedFolder.open(path, identities)` opens an artifact,
    `folder.open(name)` a file in it."""

    @overload
    def __get__(self, folder: None, owner: type["SealedFolder"]) -> _OpenFolder: ...

    @overload
    def __get__(
        self, folder: "SealedFolder", owner: type["SealedFolder"]
    ) -> Callable[[str], SealedReader]: ...

    def __get__(self, folder: "SealedFolder | None", owner: type["SealedFolder"]) -> Any:
        return owner._open_folder if folder is None else folder._open_file


class SealedFolder:
    """A folder of sealed files that the holder of an identity, or its creator, reads and writes."""

    def __init__(self, path: Path, role: str, input_key: bytes) -> None:
        """Use `create`, `open` or `open_or_create`."""
        self.path = path
        self.role = role
        self._input_key = input_key
        self._records: dict[str, dict[str, Any]] = {}
        self._manifest: dict[str, Any] | None = None
        self._editing = False
        # Files whose bytes wait in a draft, None for those that are to go.
        self._places: dict[str, Path | None] = {}

    @classmethod
    def create(cls, path: Path, recipients: Sequence[Recipient], *, role: str) -> "SealedFolder":
        """Start an artifact at `path`, which must be absent or empty; its key is drawn here.

        Raises UserError if something is there already or the recipients cannot be used.
        """
        path = Path(path)
        _check_name(role)
        folder = cls(path, role, secrets.token_bytes(KEY_BYTES))
        wrapped = folder._wrap(recipients)
        _empty_folder(path)
        with atomic_write(path / RECIPIENTS) as file:
            file.write(wrapped.to_bytes())
        return folder

    @staticmethod
    def is_at(path: Path) -> bool:
        """Whether a sealed folder is there, finished or not."""
        return (Path(path) / RECIPIENTS).is_file()

    open = _Open()

    @classmethod
    def _open_folder(
        cls, path: Path, identities: Sequence[Identity], *, role: str | None = None
    ) -> "SealedFolder":
        """Open an artifact; `role`, if given, is the role it must have.

        Raises UserError if there is none, it has another role or none of the identities opens it;
        IntegrityError if a listed file is missing or has another size, or bytes were changed.
        """
        path = Path(path)
        beside = path / RECIPIENTS
        if not beside.is_file():
            raise UserError(
                str(path), "there is no sealed folder there", "check the path, or run its stage"
            )
        wrapped = WrappedKey.parse(read_whole(beside), name=str(beside))
        input_key = wrapped.unwrap(identities, context=context_of(wrapped.label), name=str(beside))
        if role is not None and wrapped.label != role:
            raise UserError(
                f"{path} is a {wrapped.label} artifact",
                f"a {role} artifact is needed",
                "name the other folder",
            )
        folder = cls(path, wrapped.label, input_key)
        folder._read_manifest()
        return folder

    @classmethod
    def open_or_create(
        cls,
        path: Path,
        identities: Sequence[Identity],
        recipients: Sequence[Recipient],
        *,
        role: str,
    ) -> "SealedFolder":
        """Open the artifact of `role` at `path`, or start it if there is none."""
        if cls.is_at(path):
            return cls._open_folder(path, identities, role=role)
        return cls.create(path, recipients, role=role)

    @property
    def manifest(self) -> dict[str, Any] | None:
        """What `finish` wrote, with "files"; None while the folder is unfinished or edited here."""
        return None if self._editing else self._manifest

    @property
    def digest(self) -> str:
        """Identity of a finished artifact: digest over its files' names and ciphertext digests.

        Who may open it does not enter: a rewrapped folder keeps its digest.
        """
        return digest({name: record["digest"] for name, record in self._listed().items()})

    def has(self, name: str) -> bool:
        """Whether a whole file of that name is there."""
        place = self._place(name)
        return place is not None and place.is_file()

    def names(self, prefix: str = "") -> list[str]:
        """Names of the files that start with `prefix`, sorted; the manifest is not one of them."""
        found = {file.name.removesuffix(_SUFFIX) for file in self.path.glob(f"*{_SUFFIX}")}
        return sorted(
            name
            for name in found | set(self._places)
            if name.startswith(prefix)
            and name != _MANIFEST
            and _NAME.fullmatch(name)
            and self._place(name) is not None
        )

    def write_bytes(self, name: str, data: bytes) -> None:
        """Seal `data` as file `name`, replacing an earlier one in one step."""
        with self.writer(name) as file:
            file.write(data)

    def read_bytes(self, name: str) -> bytes:
        """The plaintext of file `name`."""
        with self.open(name) as reader:
            return reader.readall()

    def write_json(self, name: str, value: Any) -> None:
        """Seal a JSON value as file `name`."""
        self.write_bytes(name, canonical_json(value))

    def read_json(self, name: str) -> Any:
        """The JSON value of file `name`."""
        return json.loads(self.read_bytes(name))

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[SealedWriter]:
        """Yield a binary file; what is written becomes file `name` when the block ends well.

        In a finished folder others see it once `finish` was called.
        """
        target = self._file(name)
        if self._stands():
            self._edit()
            target = drafts.draft_of(target)
        with self._write(target, name) as writer:
            yield writer
        if self._editing:
            self._places[name] = target

    def _open_file(self, name: str) -> SealedReader:
        """A seekable plaintext reader of file `name`.

        Raises UserError if it is not there, IntegrityError if it was changed, or if a finished
        folder's manifest lists another file under this name, or none.
        """
        place = self._place(name) or self._file(name)
        reader = open_reader(place, self._input_key, context=self._context(name))
        if self.manifest is not None:
            record = self._listed().get(name)
            if record is None or record["salt"] != reader.salt.hex():
                reader.close()
                raise _not_listed(self._file(name))
        return reader

    def remove(self, name: str) -> None:
        """Remove file `name` if it is there; from a finished folder when `finish` is called."""
        target = self._file(name)
        if self._stands():
            self._edit()
            with atomic_write(drafts.draft_of(target)):
                pass
            self._places[name] = None
        else:
            target.unlink(missing_ok=True)
            sync_folder(self.path)
        self._records.pop(name, None)

    def unfinish(self) -> None:
        """Take the manifest away, if there is one, and with it every promise about the files.

        From here on what is written and removed counts at once.
        """
        if self._stands():
            (self.path / (_MANIFEST + _SUFFIX)).unlink(missing_ok=True)
            sync_folder(self.path)
        drafts.drop(self.path, _SUFFIX)
        self._manifest, self._editing, self._places, self._records = None, False, {}, {}

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest: `manifest` and, under "files", digest and size of every file.

        The digests are of ciphertext: a plaintext digest lets anyone confirm a guess. Raises
        UserError where another process took away what was changed here.
        """
        if "files" in manifest:
            raise ValueError('the manifest\'s "files" are filled in by the folder')
        sweep_temporaries(self.path)
        known = self._records
        if self._stands():
            known = {**(self._manifest or {"files": {}})["files"], **known}
        else:
            drafts.drop(self.path, _SUFFIX)
        self._refuse_lost_drafts()
        files = {name: known.get(name) or self._hash(name) for name in self.names()}
        whole = {**manifest, "files": files}
        with self._write(self.path / (_MANIFEST + _SUFFIX), _MANIFEST) as writer:
            writer.write(canonical_json(whole))
        self._manifest, self._editing = json.loads(canonical_json(whole)), False
        self._places = drafts.settle(self.path, _SUFFIX, files)

    def verify(self) -> None:
        """Hash every file of a finished folder again.

        Raises IntegrityError with file, chunk and offset of the first damage, also for files that
        are missing or were added; UserError if the folder is unfinished.
        """
        listed = self._listed()
        self._check_sizes()
        for name in self.names():
            if name not in listed:
                raise _not_listed(self._file(name))
        for name, record in listed.items():
            if self._hash(name)["digest"] != record["digest"]:
                damage = first_damage(functools.partial(self._open_file, name))
                raise damage or _not_listed(self._file(name))

    def rewrap(self, recipients: Sequence[Recipient]) -> None:
        """Replace who can open the folder; the payload stays.

        This is no revocation: a former recipient may have kept the input key.
        """
        wrapped = self._wrap(recipients)
        with atomic_write(self.path / RECIPIENTS) as file:
            file.write(wrapped.to_bytes())

    def _wrap(self, recipients: Sequence[Recipient]) -> WrappedKey:
        return WrappedKey.wrap(
            self._input_key, recipients, label=self.role, context=context_of(self.role)
        )

    @contextlib.contextmanager
    def _write(self, target: Path, name: str) -> Iterator[SealedWriter]:
        with atomic_write(target) as file:
            sink = HashedFile(file)
            writer = SealedWriter(sink, self._input_key, context=self._context(name))
            yield writer
            writer.finish()
        self._records[name] = _record(sink.digest, sink.size, writer.salt)

    def _stands(self) -> bool:
        return (self.path / (_MANIFEST + _SUFFIX)).exists()

    def _edit(self) -> None:
        """The first change of a finished folder takes away what others began and left."""
        if not self._editing:
            drafts.drop(self.path, _SUFFIX)
            self._editing = True

    def _refuse_lost_drafts(self) -> None:
        for name, place in self._places.items():
            if place is not None and not place.exists():
                raise UserError(
                    f"file {name} in {self.path}",
                    "another process changed the folder meanwhile",
                    "let one process at a time change it, and repeat this change",
                )

    def _place(self, name: str) -> Path | None:
        """Where the bytes of file `name` are, or would be; None if it is to go."""
        return self._places.get(name, self._file(name))

    def _read_manifest(self) -> None:
        file = self.path / (_MANIFEST + _SUFFIX)
        if not file.exists():
            return
        with open_reader(file, self._input_key, context=self._context(_MANIFEST)) as reader:
            manifest: dict[str, Any] = json.loads(reader.readall())
        self._places = drafts.settle(self.path, _SUFFIX, manifest["files"])
        self._manifest = manifest
        self._check_sizes()

    def _check_sizes(self) -> None:
        for name, record in self._listed().items():
            file = self._place(name) or self._file(name)
            size = file.stat().st_size if file.is_file() else None
            if size != record["size"]:
                found = "it is missing" if size is None else f"it has {size} bytes"
                raise IntegrityError(
                    str(file),
                    f"{found}, the manifest lists {record['size']}",
                    "restore it from a good copy, or remove the folder and those of later stages, "
                    "and run them again",
                )

    def _listed(self) -> dict[str, dict[str, Any]]:
        manifest = self.manifest
        if manifest is None:
            raise UserError(
                str(self.path), "the artifact is unfinished", "run its stage to the end first"
            )
        files: dict[str, dict[str, Any]] = manifest["files"]
        return files

    def _hash(self, name: str) -> dict[str, Any]:
        with open(self._place(name) or self._file(name), "rb") as file:
            salt = file.read(SALT_BYTES)
            file.seek(0)
            hexadecimal = hashlib.file_digest(file, "sha256").hexdigest()
            return _record("sha256:" + hexadecimal, file.tell(), salt)

    def _file(self, name: str) -> Path:
        _check_name(name)
        if name == _MANIFEST:
            raise ValueError("the manifest is written by finish() and read as .manifest")
        return self.path / (name + _SUFFIX)

    def _context(self, name: str) -> bytes:
        return context_of(self.role) + b"\x00" + name.encode()


def context_of(role: str) -> bytes:
    """What the key of a folder of this role is bound to."""
    return b"dpmlm folder/1\x00" + role.encode()


def _record(file_digest: str, size: int, salt: bytes) -> dict[str, Any]:
    return {"digest": file_digest, "size": size, "salt": salt.hex()}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a sealed file: letters, digits and ._- only")


def _empty_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(path)
        taken = any(path.iterdir())
    except OSError as error:
        raise UserError(
            str(path), f"no folder can be made there ({error.strerror})", "name another folder"
        ) from error
    if taken:
        raise UserError(
            str(path), "it already holds files", "name a new or empty folder; nothing was changed"
        )


def _not_listed(path: Path) -> IntegrityError:
    return IntegrityError(
        str(path),
        "it is whole, but not the file that the manifest lists: older, newer or added",
        "restore the folder from a good copy",
    )
