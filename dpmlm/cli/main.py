"""`dpmlm`: collects the verbs and turns outcomes into exit statuses.

0 done or passed; 1 a verdict said no; 2 could not run; 70 a bug; 130 or 143 interrupted.
"""

import errno
import sys
import traceback

import click
import typer

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

app = typer.Typer(
    name="dpmlm",
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


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave with its exit status."""
    sys.exit(status_of(arguments))


def status_of(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status; nothing but a bug prints a traceback."""
    try:
        result = app(arguments, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except VerdictNo as no:
        return _tell(str(no), 1)
    except UserError as error:
        return _tell(f"error: {error}", 2)
    except click.exceptions.Abort:
        return _tell("interrupted", 130)
    except click.ClickException as error:
        error.show(sys.stderr)
        return 2
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            return _tell(_cannot_write(error), 2)
        return _bug()
    except KeyboardInterrupt as stopped:
        return _tell(
            str(stopped) or "interrupted; run the same command to resume",
            128 + getattr(stopped, "signum", 2),
        )
    except Exception:
        return _bug()


def _cannot_write(error: OSError) -> str:
    return (
        f"error: {error.filename or 'a file'}: cannot be written or read ({error.strerror}); "
        "make room or mend the permissions, then run the same command: finished work is kept"
    )


def _tell(message: str, status: int) -> int:
    if message:
        print(message, file=sys.stderr)
    return status


def _bug() -> int:
    traceback.print_exc()
    return _tell("this is a bug in dpmlm, not in what you gave it", 70)


if __name__ == "__main__":
    main()
