"""A small corpus with its run file, and grids over it."""

from small_run import draw_keys, write_corpus, write_run_file

from dpmlm.pipeline.grid import Axis, Grid
from dpmlm.privacy import Ledger

STRATEGIES = Axis("masking.strategy", ("token", "whole_word"))
SMALL = {
    "ledger__cap": {"epsilon": 16, "delta": 1e-3},
    "privacy__epsilon": 1,
    "privacy__accountant": "rdp",
    "tokens__window": 48,
    "training__steps": 2,
    "training__checkpoint_minutes": 30,
    "audit__canaries": 20,
}


def begin(folder, **changes):
    """Corpus, run file, keys and ledger."""
    write_corpus(folder)
    write_run_file(folder, **{**SMALL, **changes})
    draw_keys(folder)
    return folder / "run.yaml"


def grid_of(run_file, axes=(STRATEGIES,), *, seeds=1, out="grid", **more):
    """Beside the run file."""
    return Grid.of(run_file, run_file.parent / out, axes, seeds=seeds, **more)


def entries(folder):
    """Of its ledger."""
    return Ledger.open(folder / "ledger.jsonl").entries
