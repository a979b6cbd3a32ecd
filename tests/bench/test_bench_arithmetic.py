"""The counted operations of a step, against sums over the layers written out by hand."""

import importlib.util
from pathlib import Path

import pytest

from dpmlm.bench.models import Workload
from dpmlm.bench.request import BenchModel

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "arithmetic.py"


@pytest.fixture(scope="module")
def operations():
    spec = importlib.util.spec_from_file_location("benchmark_arithmetic", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.operations


ROWS, TOKENS, LAYERS, HIDDEN, INNER, WORDS = 4, 24, 2, 64, 96, 120
WORK = Workload("bert", BenchModel("bert", LAYERS, HIDDEN, INNER, ROWS, WORDS), TOKENS, ROWS)
ATTENTION = LAYERS * (4 + 10) * ROWS * TOKENS**2 * HIDDEN


def test_plain_computes_every_position_three_times(operations):
    layer = 4 * HIDDEN**2 + 2 * HIDDEN * INNER
    head = HIDDEN**2 + HIDDEN * WORDS
    products = 6 * ROWS * TOKENS * (LAYERS * layer + head)
    assert operations(WORK, "plain") == products + ATTENTION


def test_own_leaves_out_what_no_masked_position_needs(operations):
    masked = ROWS * WORK.slots
    whole = ROWS * TOKENS * ((LAYERS - 1) * (4 * HIDDEN**2 + 2 * HIDDEN * INNER) + 3 * HIDDEN**2)
    picked = masked * (HIDDEN**2 + 2 * HIDDEN * INNER + HIDDEN**2 + HIDDEN * WORDS)
    assert operations(WORK, "own") == 6 * (whole + picked) + ATTENTION


def test_private_adds_norms(operations):
    assert operations(WORK, "own") < operations(WORK, "private") < 1.3 * operations(WORK, "own")
