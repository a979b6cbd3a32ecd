"""What every cell is held against before the first is charged.

A run is checked before it begins (`preflight`). Of a grid the text is read once, and what is wrong
with its last cell would be found when all others are charged.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from dpmlm.pipeline.context import Run
from dpmlm.pipeline.declared import declared_public, refuse_private_text
from dpmlm.pipeline.grid.axes import LEDGER, Grid
from dpmlm.pipeline.grid.budget import register_public, run_of
from dpmlm.pipeline.grid.measured import MEASURED
from dpmlm.pipeline.preflight import preflight
from dpmlm.pipeline.progress import Progress


def refuse_unfit_cells(grid: Grid, progress: Progress) -> None:
    """Raise UserError where a cell would be refused if it were a run by itself.

    Room in the ledger is `price_of`'s to ask for. Cells that have their figures are passed over,
    and of those that differ in their seeds one is checked.
    """
    first = Run.load(grid.cells[0].config, Progress(quiet=True))
    checked: set[str] = set()
    texts: set[str] = set()
    for cell in grid.cells:
        config, run = cell.config, run_of(cell, first)
        alike = config.model_dump_json(exclude={"name", "workspace", "seed"})
        if alike in checked or run.finished(MEASURED) is not None:
            continue
        checked.add(alike)
        _check(grid, run)
        public = {name: (one.corpus, one.text) for name, one in declared_public(config).items()}
        if config.private and not grid.public and str(public) not in texts:
            texts.add(str(public))
            with progress.bar("public texts"):
                refuse_private_text(config)


def _check(grid: Grid, run: Run) -> None:
    """`preflight`; of a grid on public text with a ledger like the one that its folder will have:
    who is refused leaves no folder behind."""
    if not grid.public:
        preflight(run, to_plan=False)
        return
    with tempfile.TemporaryDirectory() as folder:
        ledger = run.config.ledger.model_copy(update={"path": Path(folder) / LEDGER})
        register_public(grid.base.name, ledger)
        config = run.config.model_copy(update={"ledger": ledger})
        preflight(replace(run, config=config), to_plan=False)
