"""A ledger under many processes, kills in the middle of a write, and how cost grows with it."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_ledger import PLAN, plan_of

from dpmlm.errors import UserError
from dpmlm.privacy import Ledger, journal
from dpmlm.privacy.accountants import renyi_divergence


def together(count: int, work: Callable[[int], bool]) -> int:
    """Run `work(0..count-1)` in forked processes at once; how many returned True."""
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(count)

    def target(index: int) -> None:
        gate.wait()
        try:
            done = work(index)
        except UserError:
            done = False
        os._exit(0 if done else 3)

    processes = [context.Process(target=target, args=(index,)) for index in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert {process.exitcode for process in processes} <= {0, 3}
    return sum(process.exitcode == 0 for process in processes)


def test_one_of_many_registers(path: Path) -> None:
    def register(index: int) -> bool:
        Ledger.register(path, epsilon=index + 1, delta=1e-5, corpus=f"c{index}")
        return True

    assert together(6, register) == 1
    Ledger.open(path).verify()


def test_together_they_never_pass_the_cap(path: Path) -> None:
    ledger = Ledger.register(path, epsilon=4.0, delta=1e-5, corpus="posts")
    plan = plan_of(1.5)
    cost = renyi_divergence(plan.composition(), ledger.order)
    room = int(ledger.left().rdp / cost)
    assert 2 <= room < 12

    def reserve(index: int) -> bool:
        Ledger.open(path).reserve(f"run{index}", plan)
        return True

    assert together(room + 3, reserve) == room
    ledger.verify()
    assert len(ledger.run_ids) == room
    assert ledger.spent().rdp == pytest.approx(room * cost)


def test_charges_of_many_processes_form_one_chain(ledger: Ledger, path: Path) -> None:
    for index in range(3):
        ledger.reserve(f"run{index}", plan_of(0.5))

    def charge(index: int) -> bool:
        own = Ledger.open(path)
        attempt = own.begin_attempt(f"run{index}")
        for step in range(15):
            own.charge(f"run{index}", attempt, step)
        own.commit(f"run{index}", 15, attempt)
        return True

    assert together(3, charge) == 3
    ledger.verify()
    assert [ledger.charged_steps(f"run{index}") for index in range(3)] == [15] * 3


def test_one_of_two_processes_of_one_run_goes_on(ledger: Ledger, path: Path) -> None:
    ledger.reserve("run", PLAN)
    old = Ledger.open(path)
    attempt = old.begin_attempt("run")
    new = Ledger.open(path)
    assert new.begin_attempt("run") == attempt + 1
    with pytest.raises(UserError, match="took the run over"):
        old.charge("run", attempt, 0)
    new.charge("run", attempt + 1, 0)


KILLED = """
import os, sys
from dpmlm.privacy import Ledger
ledger = Ledger.open(sys.argv[1])
attempt = ledger.begin_attempt("run")
for step in range(20):
    ledger.charge("run", attempt, step)
    if step == int(sys.argv[2]):
        os._exit(9)
    print(f"drew {step}", flush=True)
"""


@pytest.mark.parametrize("step", [0, 7])
def test_killed_between_charge_and_draw(ledger: Ledger, path: Path, step: int) -> None:
    ledger.reserve("run", PLAN)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(step)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 9, done.stderr
    drawn = done.stdout.count("drew")
    assert drawn == step
    assert ledger.charged_steps("run") == drawn + 1
    assert ledger.begin_attempt("run", step) == 2
    ledger.charge("run", 2, step)
    ledger.verify()


TORN = """
import os, sys
from dpmlm.privacy import Ledger
ledger = Ledger.open(sys.argv[1])
attempt = ledger.begin_attempt("run")
write = os.write
def half(handle, data):
    write(handle, data[: len(data) // 2])
    os._exit(9)
os.write = half
ledger.charge("run", attempt, 0)
"""


def test_killed_in_the_middle_of_a_write(ledger: Ledger, path: Path) -> None:
    ledger.reserve("run", PLAN)
    done = subprocess.run([sys.executable, "-c", TORN, str(path)], check=False, timeout=120)
    assert done.returncode == 9
    assert not path.read_bytes().endswith(b"\n")
    assert ledger.charged_steps("run") == 0
    assert ledger.begin_attempt("run") == 2
    ledger.charge("run", 2, 0)
    assert [entry["kind"] for entry in Ledger.open(path).entries][-3:] == [
        "repair", "attempt", "charge"
    ]  # fmt: skip
    ledger.verify()


def test_charging_stays_constant_and_reading_linear(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.register(path, epsilon=16, delta=1e-5, corpus="posts")
    ledger.reserve("run", plan_of(1.0, steps=2000, expected_batch_size=5))
    ledger.begin_attempt("run")
    monkeypatch.setattr(journal, "_sync", lambda handle: None)

    def seconds(first: int, last: int) -> float:
        start = time.process_time()
        for step in range(first, last):
            ledger.charge("run", 1, step)
        return (time.process_time() - start) / (last - first)

    early = seconds(0, 100)
    seconds(100, 900)
    assert seconds(900, 1000) < 5 * early
    start = time.process_time()
    assert Ledger.open(path).charged_steps("run") == 1000
    assert time.process_time() - start < 3.0


def test_a_charge_reads_only_what_is_new(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.reserve("run", PLAN)
    ledger.begin_attempt("run")
    parsed: list[int] = []
    parse = journal._parse

    def count(path: Path, line: bytes, number: int, head: str) -> dict[str, object]:
        parsed.append(number)
        return parse(path, line, number, head)

    monkeypatch.setattr(journal, "_parse", count)
    for step in range(5):
        ledger.charge("run", 1, step)
    assert parsed == []
    Ledger.open(ledger._journal.path).charge("run", 1, 5)
    parsed.clear()
    ledger.charge("run", 1, 6)
    assert parsed == [9]
