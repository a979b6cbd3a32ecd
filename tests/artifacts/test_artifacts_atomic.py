"""Files appear whole or not at all, whatever fails on the way."""

import errno
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpmlm.artifacts import UserError, atomic_write
from dpmlm.artifacts.atomic import sweep_temporaries


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
