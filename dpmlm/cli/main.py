"""`dpmlm`: collects the verbs and turns outcomes into exit statuses.

0 done or passed; 1 a verdict said no; 2 could not run; 70 a bug; 130 or 143 interrupted.
"""

import contextlib
import errno
import gc
import itertools
import os
import signal
import sys
import traceback
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Annotated, Any

import typer
from typer.main import get_command

from dpmlm.cli import (
    audit,
    bench,
    dedup,
    doctor,
    evaluate,
    gate,
    init,
    keys,
    ledger,
    log,
    masks,
    plan,
    registry,
    release,
    report,
    run,
    runs,
    scrub,
    train,
    verify,
    vocab,
)
from dpmlm.cli.dumps import switch_off_core_dumps
from dpmlm.cli.options import print_json
from dpmlm.errors import UserError, VerdictNo

NAME = "dpmlm"
WORDS = "DPMLM_SHOW_EXCEPTIONS"
"""Variable that has a bug's traceback say what its exceptions say."""

app = typer.Typer(
    name=NAME,
    help="Train masked language models with differential privacy; audit, seal and release them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_versions(asked: bool) -> None:
    """What a report of a bug has to name."""
    if asked:
        names = "torch", "opacus", "transformers"
        others = ", ".join(f"{name} {_version_of(name)}" for name in names)
        python = ".".join(map(str, sys.version_info[:3]))
        typer.echo(f"{NAME} {_version_of('dpmlm-framework')} ({others}, Python {python})")
        raise typer.Exit()


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@app.callback()
def _options(
    versions: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_versions, is_eager=True, help="Print versions and leave."
        ),
    ] = False,
) -> None:
    pass


for verb in (
    init, plan, run, runs, masks, scrub, dedup, vocab, train, evaluate,
    audit, gate, release, verify, registry, report, ledger, log, keys, doctor, bench,
):  # fmt: skip
    verb.register(app)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception, so that temporary files are removed on the way out."""

    signum = signal.SIGTERM


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave with its exit status."""
    switch_off_core_dumps()
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    warnings.showwarning = _warn
    status = status_of(arguments)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    # Or Python walks through all that the libraries hold, for a second, to free it. So nothing may
    # count on being collected to be flushed: files are closed by who opened them.
    gc.freeze()
    sys.exit(status)


def status_of(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status; nothing but a bug prints a traceback.

    A command that asked for JSON and did not come to its result prints `dpmlm.error/1` instead.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        ending = _ending_of(error)
    if ending.message:
        # A name may hold bytes that are no text: they are shown escaped.
        print(ending.message.encode(errors="backslashreplace").decode(), file=sys.stderr)
    if ending.given and "--json" in itertools.takewhile(lambda word: word != "--", words):
        with contextlib.suppress(OSError):
            print_json("dpmlm.error/1", ending.to_json())
            sys.stdout.flush()
    return ending.status


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


@dataclass(frozen=True)
class Ending:
    """How a command ended that did not come to its result."""

    status: int
    """Exit status."""
    message: str = ""
    """For standard error; empty where it was told already."""
    given: str = ""
    """What was given; empty where there is nobody left to tell."""
    rule: str = ""
    """The rule it breaks."""
    next_step: str = ""
    """What to do next."""

    def to_json(self) -> dict[str, Any]:
        return {
            "given": self.given,
            "rule": self.rule,
            "next_step": self.next_step,
            "status": self.status,
        }


def _ending_of(error: BaseException) -> Ending:
    if isinstance(error, VerdictNo):
        return Ending(1, str(error), str(error), "the verdict is no", "read what was judged")
    if isinstance(error, UserError):
        return Ending(2, f"error: {error}", error.given, error.rule, error.next_step)
    if isinstance(error, SystemExit):  # a training that stopped after a checkpoint, and said so
        status = error.code if isinstance(error.code, int) else 0
        return _interrupted(status, "") if status else Ending(0)
    if isinstance(error, KeyboardInterrupt):
        status = 128 + getattr(error, "signum", signal.SIGINT)
        return _interrupted(status, str(error) or "interrupted; run the same command to resume")
    if isinstance(error, OSError) and error.errno:
        return _system_said_no(error)
    if _ran_out_of_memory(error):
        return _out_of_memory()
    if hasattr(error, "format_message"):
        return _misused(error)
    print(_frames(error), file=sys.stderr)
    bug = "this is a bug in dpmlm, not in what you gave it"
    # The class alone: the text of an exception may hold private text.
    next_step = f"report it with the traceback; {WORDS}=1 adds what the exception says"
    return Ending(70, f"{bug}; {next_step}", type(error).__name__, bug, next_step)


def _frames(error: BaseException | None) -> str:
    """A traceback without what the exceptions say, which may quote private text; with it where
    somebody asks for that who may see such text."""
    if os.environ.get(WORDS):
        return "".join(traceback.format_exception(error)).rstrip()
    shown, cause = "", error
    while cause is not None:
        frames = "".join(traceback.format_tb(cause.__traceback__))
        shown = f"Traceback (most recent call last):\n{frames}{type(cause).__name__}\n{shown}"
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return shown.rstrip()


def _ran_out_of_memory(error: BaseException) -> bool:
    """Without torch, unless it was imported anyway: only it knows what its allocators say."""
    memory = sys.modules.get("dpmlm.training.memory")
    return isinstance(error, MemoryError) or (memory is not None and memory.ran_out(error))


def _out_of_memory() -> Ending:
    given, rule = "the memory of this machine", "it does not suffice for what was asked"
    next_step = (
        "lower training.physical_batch_size or set training.memory_gib (neither changes the "
        "claim), or take a larger machine, then run the same command: finished work is kept"
    )
    return Ending(2, f"error: {given}: {rule}; {next_step}", given, rule, next_step)


def _interrupted(status: int, message: str) -> Ending:
    told = "the command was interrupted", "run the same command to resume"
    return Ending(status, message, f"signal {status - 128}", *told)


def _misused(error: Any) -> Ending:
    """An unknown verb or option, a missing argument, a value of the wrong kind.

    Known by its shape: Typer raises classes of Click or of a copy of its own, by version.
    """
    message = error.format_message().rstrip(".")
    if not message:
        return Ending(2)  # no verb was named, and the help was printed
    context = getattr(error, "ctx", None)
    path = context.command_path if context else NAME
    see = f"see `{path} --help`"
    return Ending(2, f"error: {message}; {see}", path, message, see)


def _system_said_no(error: OSError) -> Ending:
    """A file that cannot be read or written, a full disk, a reader that went away."""
    if error.errno == errno.EPIPE:
        # Python writes what is left in its buffer at exit, into a pipe that nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Ending(2)
    given = str(error.filename or "a file")
    rule = f"the system refuses it ({os.strerror(error.errno or 0)})"
    next_step = (
        "check the path, its permissions and the free space, then run the same command: "
        "finished work is kept"
    )
    return Ending(2, f"error: {given}: {rule}; {next_step}", given, rule, next_step)


if __name__ == "__main__":
    main()
