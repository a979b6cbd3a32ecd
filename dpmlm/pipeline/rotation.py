"""Rotating keys over everything that is sealed: files, folders, whole workspaces, bundles."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpmlm.artifacts import Identity, Recipient, load_identity, load_recipient, load_signing_key
from dpmlm.artifacts.folder import RECIPIENTS
from dpmlm.artifacts.rotation import LIMITS, Change, Rewrap, plan_file, plan_folder
from dpmlm.artifacts.sealed import is_sealed
from dpmlm.errors import UserError
from dpmlm.pipeline.workspace import Workspace
from dpmlm.release.inventory import MANIFEST, ROLE, SEALED_MODEL
from dpmlm.release.rewrap import BundleRewrap, plan_bundle

_KEY_ID = re.compile(r"[0-9a-f]{16}")
_LEVELS = 4
"""How far above a sealed folder its workspace may lie."""


@dataclass(frozen=True)
class Rotated:
    """One sealed thing, and who can open it before and after."""

    path: str
    """The bundle, folder or file."""
    kind: str
    """bundle, folder or file."""
    label: str
    """Role of a folder; released-model of a bundle; "file"."""
    before: tuple[str, ...]
    """Key ids that could open it."""
    after: tuple[str, ...]
    """Key ids that can."""

    @property
    def changed(self) -> bool:
        """Whether anybody came or went; then a bundle was signed again."""
        return self.before != self.after


@dataclass(frozen=True)
class Rotation:
    """What a rotation did, or would do."""

    targets: tuple[Rotated, ...]
    """Everything sealed that was found."""
    written: bool
    """False where it was only looked at."""

    @property
    def removes(self) -> bool:
        """Whether a key can open less than before."""
        return any(set(one.before) - set(one.after) for one in self.targets)

    def to_json(self) -> dict[str, Any]:
        return {
            "written": self.written,
            "changed": sum(one.changed for one in self.targets),
            "targets": [{**asdict(one), "changed": one.changed} for one in self.targets],
            "limits": LIMITS if self.removes else None,
        }

    def text(self) -> str:
        rows = [_row(one) for one in self.targets]
        changed = sum(one.changed for one in self.targets)
        verb = "changed" if self.written else "would change"
        rows.append(f"{verb} {changed} of {len(rows)}; payloads are untouched")
        if self.removes:
            rows.append(f"note: {LIMITS}")
        return "\n".join(rows)


def _row(one: Rotated) -> str:
    signs = [f"-{key_id}" for key_id in one.before if key_id not in one.after]
    signs += [key_id if key_id in one.before else f"+{key_id}" for key_id in one.after]
    again = ", signed again" if one.kind == "bundle" and one.changed else ""
    return f"{one.path} ({one.label}): {' '.join(signs)}{again}"


def parse_change(add: Sequence[str], remove: Sequence[str], replace: Sequence[str]) -> Change:
    """The change that a command line asks for: public key files or references, and key ids."""
    pairs = []
    for text in replace:
        old, equals, new = text.partition("=")
        if not (old and equals and new):
            raise UserError(
                f"--replace {text}", "it is OLD=NEW: a key id or its .pub file, and a .pub file",
                "name both",
            )  # fmt: skip
        pairs.append((_key_id(old), load_recipient(new)))
    return Change(
        tuple(load_recipient(one) for one in add),
        frozenset(_key_id(one) for one in remove),
        tuple(pairs),
    )


def _key_id(text: str) -> str:
    return text if _KEY_ID.fullmatch(text) else load_recipient(text).key_id


def rotate(
    targets: Sequence[Path],
    change: Change,
    *,
    identities: Sequence[Path | str],
    signing_key: Path | str | None = None,
    context: bytes | None = None,
    write: bool = True,
) -> Rotation:
    """Change who can open `targets` and everything sealed below them.

    Everything is opened before anything is written; each recipients file is replaced in one step,
    so after a kill the same call goes on; where the key that opened is replaced, its successor has
    to be among the identities for that. `context` is that of sealed files; `signing_key` signed
    the bundles.

    Raises UserError if a target holds nothing sealed, if no identity opens one of them, if a
    bundle changes without its signing key, if a key that is to go is nobody's, or if a consumer
    would open more than a model that passed.
    """
    openers = [load_identity(identity) for identity in identities]
    signer = load_signing_key(signing_key) if signing_key is not None else None
    found = _found(targets)
    with contextlib.ExitStack() as held:
        if write:
            for workspace in _workspaces([path for _, path in found]):
                held.enter_context(Workspace(workspace).locked())
        planned: list[BundleRewrap | Rewrap] = []
        for kind, path in found:
            if kind == "bundle":
                planned.append(plan_bundle(path, openers, change, signer))
            elif kind == "folder":
                planned.append(_folder(path, openers, change))
            else:
                planned.append(_file(path, openers, change, context))
        _refuse_strangers([_told(one) for one in planned], change)
        if write:
            for one in planned:
                one.write()
    return Rotation(tuple(_told(one) for one in planned), write)


def _folder(path: Path, identities: Sequence[Identity], change: Change) -> Rewrap:
    planned = plan_folder(path, identities, change)
    if planned.label == ROLE:
        raise UserError(
            f"{path}, a released model without its bundle",
            "its recipients depend on the verdict, which stands in the bundle",
            "name the bundle's folder",
        )
    _refuse_consumers(path, change.new)
    return planned


def _file(
    path: Path, identities: Sequence[Identity], change: Change, context: bytes | None
) -> Rewrap:
    if context is None:
        raise UserError(
            str(path), "a sealed file opens under its context alone", "give it with --context"
        )
    _refuse_consumers(path, change.new)
    return plan_file(path, identities, change, context=context)


def _refuse_consumers(path: Path, new: Sequence[Recipient]) -> None:
    for recipient in new:
        if recipient.role == "consumer":
            raise UserError(
                f"{path}: key {recipient.key_id} of a consumer",
                "consumers open the model of a bundle that passed, and nothing else",
                "name the bundle alone",
            )


def _refuse_strangers(told: Sequence[Rotated], change: Change) -> None:
    """A mistyped key id must not look like a removal that worked."""
    listed = {key_id for one in told for key_id in one.before}
    going = [*change.remove]
    going += [old for old, new in change.replace if new.key_id not in listed]
    for key_id in going:
        if key_id not in listed:
            raise UserError(
                f"key {key_id}",
                f"it opens none of the targets; {', '.join(sorted(listed))} do",
                "check the key id (`dpmlm keys show FILE` prints it); nothing was changed",
            )


def _told(one: BundleRewrap | Rewrap) -> Rotated:
    if isinstance(one, BundleRewrap):
        inner = one.model
        return Rotated(str(one.bundle), "bundle", inner.label, inner.before, inner.after)
    kind = "folder" if one.beside.name == RECIPIENTS else "file"
    return Rotated(str(one.path), kind, one.label, one.before, one.after)


def _found(targets: Sequence[Path]) -> list[tuple[str, Path]]:
    """Kind and path of everything sealed, each once."""
    found: dict[Path, tuple[str, Path]] = {}
    for target in targets:
        inside = list(_sealed_in(target))
        if not inside:
            raise UserError(
                str(target),
                "nothing sealed is there" if target.exists() else "there is no such file or folder",
                "name a sealed file, a sealed folder, a workspace or a bundle",
            )
        found |= {path.resolve(): (kind, path) for kind, path in inside}
    return list(found.values())


def _sealed_in(target: Path) -> Iterator[tuple[str, Path]]:
    if not target.is_dir():
        if is_sealed(target):
            yield "file", target
        return
    if target.name == SEALED_MODEL and (target.parent / MANIFEST).is_file():
        target = target.parent
    for base, folders, files in os.walk(target, onerror=_unreadable):
        # Hidden folders are drafts of something unfinished, and are thrown away.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(base)
        if MANIFEST in files:
            yield "bundle", here
            folders[:] = [name for name in folders if name != SEALED_MODEL]
        elif RECIPIENTS in files:
            yield "folder", here
        for name in sorted(files):
            if is_sealed(here / name):
                yield "file", here / name


def _workspaces(sealed: Sequence[Path]) -> list[Path]:
    """The workspaces that sealed things lie in: no run may be at work there."""
    above = {folder for path in sealed for folder in list(path.resolve().parents)[:_LEVELS]}
    return sorted(folder for folder in above if (folder / "run.json").is_file())


def _unreadable(error: OSError) -> None:
    """A folder that cannot be looked into may hold what would be missed."""
    raise error
