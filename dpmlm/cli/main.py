"""`dpmlm`: collects the verbs and turns outcomes into exit statuses.

0 done or passed; 1 a verdict said no; 2 could not run; 70 a bug; 130 or 143 interrupted.
"""

import contextlib
import errno
import os
import signal
import sys
import traceback
import warnings
from types import FrameType
from typing import Any

import typer
from typer.main import get_command

from dpmlm.cli import (
    audit,
    dedup,
    evaluate,
    gate,
    init,
    keys,
    ledger,
    plan,
    release,
    report,
    run,
    scrub,
    train,
    verify,
)
from dpmlm.errors import UserError, VerdictNo

NAME = "dpmlm"

app = typer.Typer(
    name=NAME,
    help="Train masked language models with differential privacy; audit, seal and release them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for verb in (
    init, plan, run, scrub, dedup, train, evaluate,
    audit, gate, release, verify, report, ledger, keys,
):  # fmt: skip
    verb.register(app)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception, so that temporary files are removed on the way out."""

    signum = signal.SIGTERM


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave with its exit status."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    warnings.showwarning = _warn
    status = status_of(arguments)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.exit(status)


def status_of(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status; nothing but a bug prints a traceback."""
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return status
    except VerdictNo as no:
        return _tell(str(no), 1)
    except UserError as error:
        return _tell(f"error: {error}", 2)
    except SystemExit as left:  # a training that stopped after a checkpoint, and said so
        return left.code if isinstance(left.code, int) else 0
    except KeyboardInterrupt as stopped:
        told = str(stopped) or "interrupted; run the same command to resume"
        return _tell(told, 128 + getattr(stopped, "signum", signal.SIGINT))
    except OSError as error:
        return _system_said_no(error) if error.errno else _bug()
    except Exception as error:
        if hasattr(error, "format_message"):
            return _misused(error)
        return _bug()


def _run(arguments: list[str]) -> int:
    """Parse and call one verb.

    Not through Typer's own entry, which turns every interrupt into status 130 without a word.
    """
    try:
        with get_command(app).make_context(NAME, list(arguments)) as context:
            result = context.command.invoke(context)
    except typer.Exit as leaving:
        return leaving.exit_code
    return result if isinstance(result, int) else 0


def _warn(message: Warning | str, *place: Any, **more: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated()


def _misused(error: Any) -> int:
    """An unknown verb or option, a missing argument, a value of the wrong kind.

    Known by its shape: Typer raises classes of Click or of a copy of its own, by version.
    """
    message = error.format_message().rstrip(".")
    if not message:
        return 2  # no verb was named, and the help was printed
    context = getattr(error, "ctx", None)
    path = context.command_path if context else NAME
    return _tell(f"error: {message}; see `{path} --help`", 2)


def _system_said_no(error: OSError) -> int:
    """A file that cannot be read or written, a full disk, a reader that went away."""
    if error.errno == errno.EPIPE:
        # Python writes what is left in its buffer at exit, into a pipe that nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return _tell(
        f"error: {error.filename or 'a file'}: the system refuses it "
        f"({os.strerror(error.errno or 0)}); check the path, its permissions and the free space, "
        "then run the same command: finished work is kept",
        2,
    )


def _tell(message: str, status: int) -> int:
    if message:
        # A name may hold bytes that are no text: they are shown escaped.
        print(message.encode(errors="backslashreplace").decode(), file=sys.stderr)
    return status


def _bug() -> int:
    traceback.print_exc()
    return _tell("this is a bug in dpmlm, not in what you gave it", 70)


if __name__ == "__main__":
    main()
