"""Files appear whole or not at all, whatever fails on the way."""

import errno
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpmlm.artifacts import UserError, atomic, atomic_write
from dpmlm.artifacts.atomic import replace_folder, sweep_temporaries


def no_room(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, size: int, error: type[BaseException] | None = None) -> None:
    with atomic_write(path) as file:
        for start in range(0, size, 700_000):
            file.write(bytes(min(700_000, size - start)))
        if error:
            raise error


def test_replaces_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert files(tmp_path) == ["f"]


def test_bytes_reach_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def spy(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any) -> Any:
            folder = name == "fsync" and os.path.isdir(f"/proc/self/fd/{arguments[0]}")
            calls.append("fsync folder" if folder else name)
            return real(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", spy("fsync"))
    monkeypatch.setattr(os, "replace", spy("replace"))
    with atomic_write(tmp_path / "f") as file:
        file.write(b"new")
    assert calls == ["fsync", "replace", "fsync folder"]


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, no_room)
    with pytest.raises(UserError, match="No space left on device") as caught:
        with atomic_write(path) as file:
            file.write(b"new")
    monkeypatch.undo()
    assert caught.value.given == str(path)
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == ["f"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """A real failing write: the kernel's file size limit, met in the middle of the data."""
    path = tmp_path / "f"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(UserError, match="could not be written"):
            write(path, 2_100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == ["f"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_exception_in_the_block_leaves_the_old_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(error):
        write(path, 3, error)
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == ["f"]


def test_other_errors_of_the_block_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        with atomic_write(tmp_path / "f"):
            (tmp_path / "absent").read_bytes()


def test_missing_folder_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file or directory"):
        with atomic_write(tmp_path / "absent" / "f") as file:
            file.write(b"new")


def test_mode_is_set_from_the_start(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "key", mode=0o600):
        assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]


def test_sweep_removes_what_a_kill_left(tmp_path: Path) -> None:
    (tmp_path / ".f.1-abcd.tmp").write_bytes(b"half")
    (tmp_path / "f").write_bytes(b"whole")
    sweep_temporaries(tmp_path)
    assert files(tmp_path) == ["f"]


def folder_of(path: Path, word: str) -> Path:
    path.mkdir()
    (path / "f").write_text(word)
    return path


def seen_while_replacing(folder: Path, times: int) -> set[str]:
    """What a reader in another thread finds in a folder that is replaced again and again."""
    target = folder_of(folder / "B", "0")
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                seen.add((target / "f").read_text())
            except FileNotFoundError:
                seen.add("nothing")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, times + 1):
            replace_folder(folder_of(folder / "draft", str(number)), target)
    finally:
        done.set()
        reader.join()
    assert files(folder) == ["B"]
    assert (target / "f").read_text() == str(times)
    return seen


def test_a_reader_always_finds_a_replaced_folder(tmp_path: Path) -> None:
    seen = seen_while_replacing(tmp_path, 150)
    assert "nothing" not in seen
    assert len(seen) > 5


def test_where_nobody_can_exchange_a_reader_may_find_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else is wrong: the same test finds the moment without a folder."""

    def refused(*_: object) -> None:
        time.sleep(0.001)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(atomic, "_exchange", refused)
    real = os.rename

    def slow(*names: Any) -> None:
        real(*names)
        time.sleep(0.001)

    monkeypatch.setattr(os, "rename", slow)
    assert "nothing" in seen_while_replacing(tmp_path, 30)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_other_errors_of_an_exchange_are_told_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic, "_exchange", fails)
    target, draft = folder_of(tmp_path / "B", "old"), folder_of(tmp_path / "draft", "new")
    with pytest.raises(OSError, match=os.strerror(number)):
        replace_folder(draft, target)
    assert [(path / "f").read_text() for path in (target, draft)] == ["old", "new"]


def test_a_draft_that_cannot_be_moved_leaves_the_former_folder_at_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(atomic, "_exchange", refused)
    target = folder_of(tmp_path / "B", "old")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "absent", target)
    assert (target / "f").read_text() == "old"
    assert files(tmp_path) == ["B"]


def test_a_link_is_replaced_and_what_it_points_at_stays(tmp_path: Path) -> None:
    elsewhere = folder_of(tmp_path / "elsewhere", "old")
    (tmp_path / "B").symlink_to(elsewhere)
    replace_folder(folder_of(tmp_path / "draft", "new"), tmp_path / "B")
    assert files(tmp_path) == ["B", "elsewhere"]
    assert [(tmp_path / name / "f").read_text() for name in ("B", "elsewhere")] == ["new", "old"]
