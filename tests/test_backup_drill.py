"""The drill of docs/keys.md: keys and ledger are lost, restored, go on; a stale copy is found."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Listener
from pathlib import Path

import pytest
from small_ledger import plan_of

from dpmlm.artifacts import SealedFolder, create_keys, load_identity, load_recipient
from dpmlm.artifacts.rotation import Change
from dpmlm.cli.main import status_of
from dpmlm.pipeline.accounts import Account
from dpmlm.pipeline.rotation import rotate
from dpmlm.privacy import Ledger

ROOT = Path(__file__).parent.parent
SCRIPT = re.search(r"```bash\n(.*?)```", (ROOT / "docs/keys.md").read_text(), re.DOTALL)[1]


CALLER = """#!{python}
import sys
from multiprocessing.connection import Client

with Client({address!r}) as line:
    line.send(sys.argv[1:])
    status, said = line.recv()
sys.stdout.write(said)
sys.exit(status)
"""
"""A `dpmlm` for the script: it asks this process, which has the imports already."""


def answer(listener: Listener) -> None:
    """Run each command that comes, until the listener is closed."""
    while True:
        try:
            line = listener.accept()
        except OSError:
            return
        with line, contextlib.redirect_stdout(io.StringIO()) as said:
            line.send((status_of(line.recv()), said.getvalue()))


@pytest.fixture
def folder(finished, tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of a finished run, with `dpmlm` on the path; the current folder."""
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    address = str(tmp_path / "socket")
    command = tmp_path / "bin/dpmlm"
    command.parent.mkdir()
    command.write_text(CALLER.format(python=sys.executable, address=address))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(copy)
    with Listener(address) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        yield copy


def spend(run_id: str) -> None:
    """What a further run does to the ledger."""
    ledger = Ledger.open(Path("ledger.jsonl"))
    ledger.reserve(run_id, plan_of(unit="person", scope="deduplicated corpus"))
    ledger.charge(run_id, ledger.begin_attempt(run_id), 0)


def test_keys_and_ledger_are_restored_and_go_on(folder):
    before = {path: path.read_bytes() for path in Path("keys").rglob("*") if path.is_file()}
    done = subprocess.run(["bash", "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in before} == before
    identity = load_identity("keys/trainer.key")
    sealed = SealedFolder.open(Path("work/training"), [identity])
    sealed.verify()
    noted = Path("head.txt").read_text().strip()
    assert noted == Account.of(Path("ledger.jsonl")).head
    spend("later")
    assert status_of(["ledger", "verify", "ledger.jsonl", "--head", noted]) == 0
    # The backup is stale now: restored once more, it is found by the younger head.
    head = Account.of(Path("ledger.jsonl")).head
    subprocess.run(["tar", "--extract", "--file", "backup.tar"], check=True)
    assert status_of(["ledger", "verify", "ledger.jsonl", "--head", noted]) == 0
    assert status_of(["ledger", "verify", "ledger.jsonl", "--head", head]) == 1


def test_the_checks_of_the_drill_can_fail(folder):
    """A key, a line of the ledger or the log less, and one of its last commands says so."""
    _, checks = SCRIPT.split("# The keys open everything")
    head = Account.of(Path("ledger.jsonl")).head
    commands = [shlex.split(line.replace("$(cat head.txt)", head))[1:]
                for line in checks.splitlines() if line.startswith("dpmlm ")]  # fmt: skip
    shutil.copy("releases.log.head", "releases.head")
    assert [status_of(words) for words in commands] == [0, 0, 0]
    ledger = Path("ledger.jsonl").read_bytes()
    Path("ledger.jsonl").write_bytes(b"".join(ledger.splitlines(keepends=True)[:-1]))
    Path("keys/trainer.key").chmod(0o644)
    Path("releases.log").unlink()
    Path("releases.log.head").unlink()
    assert [status_of(words) for words in commands] == [2, 1, 2]
    Path("keys/trainer.key").unlink()
    assert status_of(commands[0]) == 2


def test_a_recovery_key_opens_everything_for_a_new_trainer(folder, tmp_path):
    create_keys(tmp_path / "recovery", roles=["trainer"])
    create_keys(tmp_path / "new", roles=["trainer"])
    recovery, new = (
        load_recipient(tmp_path / f"{name}/trainer.pub") for name in ("recovery", "new")
    )
    work = [Path("work")]
    lost = load_identity("keys/trainer.key").key_id
    signing = "keys/sign.key"
    rotate(work, Change(add=(recovery,)), identities=["keys/trainer.key"], signing_key=signing)
    Path("keys/trainer.key").unlink()
    change = Change(replace=((lost, new),))
    rotate(work, change, identities=[tmp_path / "recovery/trainer.key"], signing_key=signing)
    done = rotate(work, Change(), identities=[tmp_path / "new/trainer.key"], write=False)
    assert len(done.targets) > 10
    assert not any(lost in one.after for one in done.targets)
