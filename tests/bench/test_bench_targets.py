"""Which figures a measurement is held to, and what counts as a miss."""

from dataclasses import replace

import pytest

from dpmlm.bench.measurement import Measurement, Row, workloads
from dpmlm.bench.memory import Memory
from dpmlm.bench.request import COLUMNS, BenchRequest
from dpmlm.bench.targets import judge
from dpmlm.bench.timing import Timing


def measurement(seconds, *, megabytes=None, **fields) -> Measurement:
    """A measurement with the given seconds by column; an error text stands for a failure."""
    request = BenchRequest(**{"models": ("mini",), "windows": (128,), **fields})
    timings = {name: s if isinstance(s, str) else Timing((s,), (s,)) for name, s in seconds.items()}
    memories = {name: Memory(mb * 10**6, 0, "VmHWM") for name, mb in (megabytes or {}).items()}
    rows = tuple(Row(work, timings, memories) for work in workloads(request))
    return Measurement(request, rows, {}, {}, "")


GOOD = {"plain": 1.0, "own": 0.4, "private": 0.42, "opacus_hooks": 2.0, "opacus_ghost": 2.0}
MEMORY = dict.fromkeys(COLUMNS, 100) | {"private": 80}


def met(measured):
    return {
        (o.target.baseline, o.target.measure, o.row.work.window): o.met for o in judge(measured)
    }


def test_figures_on_the_line_are_met():
    assert met(measurement(GOOD, megabytes=MEMORY)) == {
        ("plain", "wall_seconds", 128): True,
        ("own", "wall_seconds", 128): True,
        ("opacus_hooks", "wall_seconds", 128): True,
        ("opacus_ghost", "wall_seconds", 128): True,
        ("plain", "peak_bytes", 128): True,
    }


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({"private": 0.43}, ["plain"]),
        ({"own": 0.37}, ["own"]),
        ({"opacus_hooks": 1.9}, ["opacus_hooks"]),
        ({"private": "ValueError: x"}, ["plain", "own", "opacus_hooks", "opacus_ghost"]),
    ],
)
def test_a_figure_above_is_missed(changed, missed):
    found = met(measurement(GOOD | changed, memory=False))
    assert [baseline for (baseline, _, _), reached in found.items() if reached is False] == missed


def test_a_failed_peer_leaves_its_figure_open():
    found = met(measurement(GOOD | {"opacus_ghost": "RuntimeError: x"}, memory=False))
    assert found["opacus_ghost", "wall_seconds", 128] is None
    assert found["opacus_hooks", "wall_seconds", 128] is True


def test_too_much_memory_is_missed():
    found = met(measurement(GOOD, megabytes=MEMORY | {"private": 81}))
    assert found["plain", "peak_bytes", 128] is False


@pytest.mark.parametrize(
    "fields",
    [
        {"batch": 3},
        {"vocabulary": 500},
        {"precision": "bfloat16"},
        {"device": "cuda"},
        {"columns": ("plain", "own")},
        {"models": ("base",)},
        {"windows": (64,)},
    ],
)
def test_other_work_has_no_figure(fields):
    assert judge(measurement(GOOD, memory=False, **fields)) == []


def test_long_rows_have_figures_of_their_own():
    assert list(met(measurement(GOOD, windows=(512,), memory=False))) == [
        ("own", "wall_seconds", 512)
    ]


def test_a_gpu_is_held_to_its_figures_at_any_batch():
    fields = {"models": ("base",), "device": "cuda", "precision": "bfloat16", "batch": 64}
    measured = measurement(GOOD, windows=(128, 512), memory=False, **fields)
    assert met(measured) == {
        ("plain", "wall_seconds", 128): True,
        ("own", "wall_seconds", 128): True,
        ("own", "wall_seconds", 512): True,
    }
    changed = replace(measured, request=replace(measured.request, precision="float32"))
    assert judge(changed) == []
