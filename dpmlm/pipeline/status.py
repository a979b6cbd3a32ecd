"""How a run ended, as a file beside its workspace, for whoever starts it again.

A launcher such as torchrun leaves with a status of its own whatever its ranks left with, so that
a run that was preempted cannot be told from one whose verdict is no. The file is in clear, for the
user alone who runs: it says what a terminal and the exit status say, and a refusal may name a file
of the corpus and what is wrong with it.
"""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpmlm.artifacts import atomic_write
from dpmlm.errors import UserError
from dpmlm.training.checkpoint import last_step
from dpmlm.training.memory import ran_out

SCHEMA = "dpmlm.status/1"


def status_file(workspace: Path) -> Path:
    """WORKSPACE.status.json, beside the folder."""
    return workspace.with_name(f"{workspace.name}.status.json")


class Ending:
    """What a run that comes to its end leaves with."""

    def __init__(self) -> None:
        self.verdict: str | None = None
        """Of the release; None where the run was taken to an earlier stage."""


@contextmanager
def telling_status(workspace: Path, name: str) -> Iterator[Ending]:
    """Inside, the file says `running`: where a process is killed, it goes on saying so.

    Afterwards it says what came: `done`, `stopped` (resumable), `refused` (a user's error) or
    `failed` (a bug). The caller holds the workspace's lock.
    """
    path, ending = status_file(workspace), Ending()

    def tell(state: str, status: int | None, reason: str = "") -> None:
        _tell(path, name, state, status, reason, _step(workspace))

    tell("running", None)
    try:
        yield ending
    except UserError as error:
        tell("refused", 2, str(error))
        raise
    except KeyboardInterrupt as error:
        tell("stopped", 128 + getattr(error, "signum", signal.SIGINT), "a signal")
        raise
    except SystemExit as error:
        tell("stopped", error.code if isinstance(error.code, int) else 1,
             getattr(error, "why", "a signal"))  # fmt: skip
        raise
    except BaseException as error:
        # The class alone: the text of an exception may hold private text.
        known = ran_out(error) or (isinstance(error, OSError) and error.errno)
        tell(*(("refused", 2) if known else ("failed", 70)), type(error).__name__)
        raise
    tell("done", 0 if ending.verdict in (None, "PASS") else 1, ending.verdict or "")


def tell_refused(workspace: Path, name: str, error: UserError) -> None:
    """Of a start that ended before it could say `running`; what stands there already stays.

    For a launcher, which leaves with a status of its own: without it a refusal looks like a kill.
    """
    path = status_file(workspace)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _tell(path, name, "refused", 2, str(error), None)


def _tell(
    path: Path, name: str, state: str, status: int | None, reason: str, step: int | None
) -> None:
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "run": name,
        "state": state,
        "status": status,
        "reason": reason,
        "step": step,
    }
    with atomic_write(path, mode=0o600) as file:
        file.write(json.dumps(found).encode() + b"\n")


def _step(workspace: Path) -> int | None:
    """Steps that the newest checkpoint of a training in progress holds; a public number."""
    # A Trainer's lie in its workspace itself.
    folders = (workspace / "training/checkpoints", workspace / "checkpoints")
    return max(map(last_step, folders)) or None
