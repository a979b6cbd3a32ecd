"""Every call that changes the disk fails once, or is the last: the old or the new is there, whole.

Each writer runs once for each such call and each way to fail. After that what is on the disk is
opened as anybody would; then the same work is done again, which must succeed and leave nothing
behind. The list of calls is what the writer makes, not what somebody remembered.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from faults import MODES, Faults, Killed

from dpmlm.artifacts import (
    CLASSICAL,
    Identity,
    SealedFolder,
    UserError,
    atomic,
    atomic_write,
    create_keys,
    load_identity,
    load_recipient,
    load_signing_key,
    load_verify_key,
    new_identity,
    open_sealed,
    save_identity,
    seal,
)
from dpmlm.artifacts.atomic import replace_folder, settle_folder
from dpmlm.privacy import Ledger

CONTEXT = b"tests/faults"
OURS = new_identity(CLASSICAL)
SECOND = new_identity(CLASSICAL)
KEEP = [OURS.recipient]
FULL = pytest.mark.full


@dataclass(frozen=True)
class Work:
    """A writer, and how to see what it left."""

    prepare: Callable[[Path], None]
    act: Callable[[Path], None]
    look: Callable[[Path], str]
    """"old" or "new", or a word for something in between that is allowed."""
    allowed: tuple[str, ...] = ("old", "new")


def nothing(folder: Path) -> None:
    pass


def seal_as(word: str) -> Callable[[Path], None]:
    return lambda folder: seal(word.encode() * 9000, folder / "f", KEEP, context=CONTEXT)


def look_sealed(folder: Path) -> str:
    if not (folder / "f").exists():
        return "absent"
    with open_sealed(folder / "f", [OURS], context=CONTEXT) as reader:
        text = reader.readall().decode()
    assert text == text[:3] * 9000
    return text[:3]


def make_folder(folder: Path) -> None:
    made = SealedFolder.open_or_create(folder / "F", [OURS], KEEP, role="r")
    made.write_json("a", "old")
    made.write_json("gone", "old")
    made.finish({"is": "old"})


def edit_folder(folder: Path) -> None:
    found = SealedFolder.open(folder / "F", [OURS])
    found.write_json("a", "new")
    found.write_json("more", "new")
    found.remove("gone")
    found.finish({"is": "new"})


def look_folder(folder: Path, second: Identity = OURS) -> str:
    if not SealedFolder.is_at(folder / "F"):
        return "absent"
    found = SealedFolder.open(folder / "F", [second])
    if found.manifest is None:
        return "unfinished"
    found.verify()
    state = str(found.manifest["is"])
    held = {name: found.read_json(name) for name in found.names()}
    names = ("a", "gone") if state == "old" else ("a", "more")
    assert held == dict.fromkeys(names, state)
    assert sorted(found.manifest["files"]) == sorted(names)
    return state


def rewrap_folder(folder: Path) -> None:
    SealedFolder.open(folder / "F", [OURS]).rewrap([OURS.recipient, SECOND.recipient])


def look_rewrapped(folder: Path) -> str:
    assert look_folder(folder) == "old"
    try:
        return "new" if look_folder(folder, SECOND) == "old" else "?"
    except UserError:
        return "old"


def stand(folder: Path, word: str) -> Path:
    folder.mkdir()
    for name in "ab":
        with atomic_write(folder / name) as file:
            file.write(word.encode())
    return folder


def replace(folder: Path) -> None:
    """As the last stage of a run does with its bundle."""
    settle_folder(folder / "B")
    shutil.rmtree(folder / "B.draft", ignore_errors=True)
    replace_folder(stand(folder / "B.draft", "new"), folder / "B")


def replace_slowly(folder: Path) -> None:
    """Where the file system knows no exchange."""

    def refused(*_: Any) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    with mock.patch.object(atomic, "_exchange", refused):
        replace(folder)


def look_replaced(folder: Path) -> str:
    if not (folder / "B").exists():
        settle_folder(folder / "B")
        return "absent, and back as " + look_replaced(folder)
    first, second = ((folder / "B" / name).read_text() for name in "ab")
    assert first == second
    return first


def look_placed(folder: Path) -> str:
    return look_replaced(folder) if (folder / "B").exists() else "absent"


def write_key(folder: Path) -> None:
    if not (folder / "trainer.key").exists():
        save_identity(folder / "trainer.key", OURS)


def look_key(folder: Path) -> str:
    if not (folder / "trainer.key").exists():
        return "absent"
    assert load_identity(folder / "trainer.key") == OURS
    return "new"


def draw_keys(folder: Path) -> None:
    if look_keys(folder) != "new":
        create_keys(folder / "keys", roles=["consumer", "approver"], kem=CLASSICAL)


def look_keys(folder: Path) -> str:
    """What there is of a key can be used; a public half never stands without its private one."""
    keys = folder / "keys"
    names = ("consumer.key", "consumer.pub", "approver.key", "approver.pub")
    there = [name for name in names if (keys / name).exists()]
    if "consumer.pub" in there:
        assert load_identity(keys / "consumer.key").recipient == load_recipient(keys / there[1])
    if "approver.pub" in there:
        signing = load_signing_key(keys / "approver.key")
        assert signing.verify_key == load_verify_key(keys / "approver.pub")
    if len(there) == len(names) and not (keys / ".drawn").exists():
        return "new"
    return "begun" if there else "absent"


def register(folder: Path) -> None:
    if not (folder / "ledger.jsonl").exists():
        Ledger.register(folder / "ledger.jsonl", epsilon=8, delta=1e-6, corpus="posts")


def look_ledger(folder: Path) -> str:
    if not (folder / "ledger.jsonl").exists():
        return "absent"
    Ledger.open(folder / "ledger.jsonl")
    return "new"


def reserve(folder: Path) -> None:
    from small_ledger import PLAN

    Ledger.open(folder / "ledger.jsonl").reserve("run", PLAN)


def look_reserved(folder: Path) -> str:
    Ledger.open(folder / "ledger.jsonl")  # mends a torn line
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds[0] == "register"
    return "new" if "reserve" in kinds else "old"


def train_on(folder: Path) -> None:
    """From the newest checkpoint one step on."""
    from small_training import a_model
    from torch.optim import AdamW

    from dpmlm.training.checkpoint import Progress

    model = a_model()
    optimizer = AdamW(model.parameters())
    shelf = checkpoints(folder)
    found = shelf.load(model, optimizer)
    shelf.save(model, optimizer, Progress(found.step + 1 if found else 1, 1, []))


def look_checkpoint(folder: Path) -> str:
    from small_training import a_model
    from torch.optim import AdamW

    model = a_model(seed=1)
    found = checkpoints(folder).load(model, AdamW(model.parameters()))
    assert found is not None
    return "old" if found.step == 1 else "new"


def checkpoints(folder: Path) -> Any:
    from dpmlm.training.checkpoint import Checkpoints

    return Checkpoints(folder / "checkpoints", OURS, KEEP, "sha256:plan")


WORKS = {
    "seal": Work(nothing, seal_as("new"), look_sealed, ("absent", "new")),
    "seal over": Work(seal_as("old"), seal_as("new"), look_sealed),
    "folder": Work(nothing, make_folder, look_folder, ("absent", "unfinished", "old")),
    "edit": Work(make_folder, edit_folder, look_folder),
    "rewrap": Work(make_folder, rewrap_folder, look_rewrapped),
    "replace": Work(lambda folder: stand(folder / "B", "old") and None, replace, look_replaced),
    "replace slowly": Work(
        lambda folder: stand(folder / "B", "old") and None,
        replace_slowly,
        look_replaced,
        ("old", "absent, and back as old", "new"),
    ),
    "place": Work(nothing, replace, look_placed, ("absent", "new")),
    "key": Work(nothing, write_key, look_key, ("absent", "new")),
    "keys": Work(nothing, draw_keys, look_keys, ("absent", "begun", "new")),
    "ledger": Work(nothing, register, look_ledger, ("absent", "new")),
    "reserve": Work(register, reserve, look_reserved),
    "checkpoint": Work(train_on, train_on, look_checkpoint),
}
SLOW = ("reserve", "checkpoint")


def leftovers(folder: Path) -> list[str]:
    ends = (".tmp", ".next", ".drawn", ".draft", ".former")
    return sorted(p.name for p in folder.rglob("*") if p.name.endswith(ends))


def fail_once(work: Work, folder: Path, nth: int, mode: str) -> bool:
    """Whether there was an n-th call."""
    folder.mkdir()
    with Faults():
        work.prepare(folder)
    faults = Faults(nth, mode)
    try:
        with faults:
            work.act(folder)
    except (Killed, OSError, UserError):
        assert faults.reached
    state = work.look(folder)
    assert state in work.allowed, (mode, nth, faults.calls)
    if faults.reached:
        with Faults():
            work.act(folder)
    assert work.look(folder) == work.allowed[-1], (mode, nth, faults.calls)
    assert leftovers(folder) == [], (mode, nth, faults.calls)
    return faults.reached


def cases() -> list[Any]:
    """The fast suite leaves out what is slow, and the ways to fail that resemble others."""
    return [
        pytest.param(name, mode, marks=[FULL] if name in SLOW or mode in ("torn", "ENOSPC") else [])
        for name in sorted(WORKS)
        for mode in MODES
    ]


@pytest.mark.parametrize(("name", "mode"), cases())
def test_a_failing_call_leaves_the_old_or_the_new(tmp_path: Path, name: str, mode: str) -> None:
    nth = 1
    while fail_once(WORKS[name], tmp_path / str(nth), nth, mode):
        nth += 1
    assert nth > 4  # each of these makes at least open, write, fsync, rename


@FULL
@pytest.mark.parametrize("name", sorted(WORKS))
def test_a_real_kill_leaves_what_the_simulated_one_does(tmp_path: Path, name: str) -> None:
    """SIGKILL of a forked process: the files are those of `Faults`, name for name."""
    work, nth, code = WORKS[name], 1, 9
    while code == 9:
        folders = [tmp_path / f"{nth}-{kind}" for kind in ("forked", "simulated")]
        for folder in folders:
            folder.mkdir()
            work.prepare(folder)
        child = os.fork()
        if not child:
            with Faults(nth, "kill", real=True):
                work.act(folders[0])
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) * -1
        try:
            with Faults(nth, "kill"):
                work.act(folders[1])
        except Killed:
            assert code == 9
        assert work.look(folders[0]) == work.look(folders[1])
        nth += 1
    assert nth > 4
