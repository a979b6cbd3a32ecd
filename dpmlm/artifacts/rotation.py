"""Changing who can open a sealed folder or file: only its recipients file is replaced.

A change is planned first, which opens what it is about, and written afterwards in one rename: a
mistake is found before anything is written, and a kill leaves the old recipients or the new.

It is no revocation. Whoever could open may have kept the input key or a copy, and an earlier
recipients file, in a backup say, still opens for its keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dpmlm.artifacts.atomic import atomic_write
from dpmlm.artifacts.folder import RECIPIENTS, SealedFolder, context_of
from dpmlm.artifacts.identities import Identity, Recipient
from dpmlm.artifacts.recipients import WrappedKey
from dpmlm.artifacts.sealed import (
    listing_of,
    open_reader,
    read_whole,
    recipients_beside,
    settle_listing,
)
from dpmlm.errors import UserError

LIMITS = (
    "rewrapping is no revocation: whoever held a removed key may have kept the data key or a copy, "
    "and an earlier recipients file (a backup) still opens for it; to take access away, make the "
    "artifact again, under a new data key"
)


@dataclass(frozen=True)
class Change:
    """What is to become of the recipients."""

    add: tuple[Recipient, ...] = ()
    """Keys that are to open it too."""
    remove: frozenset[str] = frozenset()
    """Key ids that are to open it no more."""
    replace: tuple[tuple[str, Recipient], ...] = ()
    """Key ids with the key that takes the place of each, where that id is a recipient."""

    @property
    def new(self) -> tuple[Recipient, ...]:
        """Every key that may come in."""
        return (*self.add, *(recipient for _, recipient in self.replace))

    def kept(self, listed: Sequence[str]) -> list[str]:
        """Those of the listed key ids that stay."""
        gone = self.remove | {old for old, new in self.replace if new.key_id != old}
        return [key_id for key_id in listed if key_id not in gone]

    def added(self, listed: Sequence[str]) -> list[Recipient]:
        """The keys that come in where `listed` are the recipients."""
        heirs = [recipient for old, recipient in self.replace if old in listed]
        unique = {recipient.key_id: recipient for recipient in (*self.add, *heirs)}
        return [recipient for key_id, recipient in unique.items() if key_id not in listed]


@dataclass(frozen=True)
class Rewrap:
    """One recipients file, as it is and as it will be."""

    path: Path
    """The sealed folder or file."""
    beside: Path
    """The place of its recipients file."""
    label: str
    """Role of a folder; "file"."""
    before: tuple[str, ...]
    """Key ids that can open it now."""
    after: tuple[str, ...]
    """Key ids that will."""
    content: bytes = field(repr=False)
    """What will stand in the recipients file."""
    waits: bool = False
    """Whether a kill left the list of a sealed file waiting for its place."""

    @property
    def changes(self) -> bool:
        """Whether anybody comes or goes."""
        return self.before != self.after

    def write(self) -> None:
        """Replace the recipients file, in one step; nothing where nothing changes."""
        if self.changes:
            if self.waits:  # or the next `seal` would put it in the place of the new one
                settle_listing(self.path)
            with atomic_write(self.beside) as file:
                file.write(self.content)


def plan_folder(path: Path, identities: Sequence[Identity], change: Change) -> Rewrap:
    """What `change` makes of a sealed folder's recipients; writes nothing.

    Raises UserError if no identity opens it, or the change would leave nobody, lock the identity's
    owner out, or give recipients that cannot be together; IntegrityError if bytes were changed.
    """
    folder = SealedFolder.open(path, identities)
    wrapped = WrappedKey.parse(read_whole(path / RECIPIENTS), name=str(path / RECIPIENTS))
    context = context_of(folder.role)
    return _plan(path, path / RECIPIENTS, wrapped, identities, change, context=context)[0]


def plan_file(
    path: Path, identities: Sequence[Identity], change: Change, *, context: bytes
) -> Rewrap:
    """What `change` makes of the recipients of a file that `seal` wrote under `context`."""
    beside = recipients_beside(path)
    place, wrapped = listing_of(path)
    planned, input_key = _plan(path, beside, wrapped, identities, change, context=context)
    open_reader(path, input_key, context=context).close()
    return replace(planned, waits=place != beside)


def _plan(
    path: Path,
    beside: Path,
    wrapped: WrappedKey,
    identities: Sequence[Identity],
    change: Change,
    *,
    context: bytes,
) -> tuple[Rewrap, bytes]:
    """Also the input key."""
    input_key = wrapped.unwrap(identities, context=context, name=str(beside))
    listed = wrapped.key_ids
    kept, added = change.kept(listed), change.added(listed)
    _refuse_lockout(path, identities, change, listed)
    new = wrapped
    if added or len(kept) < len(listed):
        new = wrapped.rewrap(input_key, keep=kept, add=added, context=context)
    label = wrapped.label.split(" ")[0]  # that of a file names its payload too
    return Rewrap(path, beside, label, listed, new.key_ids, new.to_bytes()), input_key


def _refuse_lockout(
    path: Path, identities: Sequence[Identity], change: Change, listed: Sequence[str]
) -> None:
    mine = {identity.key_id for identity in identities} & set(listed)
    if mine <= change.remove:
        raise UserError(
            f"{path}: removing key {', '.join(sorted(mine))}",
            "it is the key that opens it here, and nobody locks themselves out",
            "replace it by another (OLD=NEW), or let another recipient remove it",
        )
