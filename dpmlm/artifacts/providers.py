"""Where a key is kept: a file, `env:NAME`, or `kms:ARN`.

A file of a private key is readable by its owner alone, and its folder is not everybody's to write.
`env:NAME` is a variable that holds what the file would; `kms:ARN` is a key that stays in AWS KMS.
"""

import os
import stat
from pathlib import Path

from dpmlm.artifacts.kms import check_arn
from dpmlm.errors import UserError

_ENVIRONMENT, _KMS = "env:", "kms:"
_MAX_BYTES = 16_384


def is_reference(where: Path | str) -> bool:
    """Whether it names a variable or a KMS key rather than a file."""
    return str(where).startswith((_ENVIRONMENT, _KMS))


def kms_arn(where: Path | str) -> str | None:
    """The ARN that `kms:ARN` names; None for a file or a variable."""
    text = str(where)
    return check_arn(text.removeprefix(_KMS)) if text.startswith(_KMS) else None


def read_key(where: Path | str, *, private: bool) -> bytes:
    """What a key file or variable holds; UserError if it cannot be read or others could."""
    text = str(where)
    if text.startswith(_ENVIRONMENT):
        return _from_environment(text.removeprefix(_ENVIRONMENT))
    if text.startswith(_KMS):
        raise UserError(
            text,
            "KMS keys open and seal; a key that signs or makes pseudonyms is a file or variable",
            "name a file, or env:NAME",
        )
    return read_private(Path(where)) if private else _read(Path(where))


def read_private(path: Path) -> bytes:
    """A file that its owner alone can read; UserError for a wider one, saying what to do."""
    return _read(path, private=True)


def _from_environment(name: str) -> bytes:
    value = os.environ.get(name)
    if value is None:
        raise UserError(
            f"{_ENVIRONMENT}{name}",
            "there is no such variable",
            "set it to the content of a key file; `dpmlm keys new` draws keys",
        )
    return os.fsencode(value)[:_MAX_BYTES]


def _read(path: Path, *, private: bool = False) -> bytes:
    try:
        with open(path, "rb") as file:
            if private:
                _refuse_wide(path, os.fstat(file.fileno()))
            return file.read(_MAX_BYTES)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            str(path),
            f"no key can be read there ({reason})",
            "check the path; `dpmlm keys new` draws keys",
        ) from error


def _refuse_wide(path: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if mode & ~0o600:
        raise UserError(
            f"{path} has mode {mode:04o}",
            "a private key is readable by its owner alone (0600)",
            f"run `chmod 600 {path}`",
        )
    user = os.geteuid()
    if user not in (0, found.st_uid):
        raise UserError(
            f"{path} belongs to user {found.st_uid}, not {user}",
            "who owns a private key can read and replace it",
            f"copy it to a file of your own, or run `chown {user} {path}`",
        )
    folder = path.parent
    mode = os.stat(folder).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise UserError(
            f"{path} in a folder of mode {stat.S_IMODE(mode):04o}",
            "everybody can put another key in its place",
            f"run `chmod 700 {folder}`",
        )
