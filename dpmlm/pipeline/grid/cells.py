"""One cell after the other: the text once, then a training and the same questions to each model.

A killed grid goes on with the same command: cells that were measured are read, a cell in the
middle of its training is taken up at its last checkpoint. A cell that fails for a reason of its
own (a training that diverged, a model that does not fit) is a row with that reason.
"""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

from dpmlm.errors import UserError
from dpmlm.pipeline.canaries import canaries_stage
from dpmlm.pipeline.context import Run, data_order
from dpmlm.pipeline.data import data_stages
from dpmlm.pipeline.grid.axes import Cell, Grid
from dpmlm.pipeline.grid.budget import register_public, run_of
from dpmlm.pipeline.grid.checks import refuse_unfit_cells
from dpmlm.pipeline.grid.measured import (
    MEASURED,
    measured_stage,
    read_measured,
    refuse_unanswerable,
)
from dpmlm.pipeline.grid.result import GridResult, Row
from dpmlm.pipeline.models import PLAN, TRAINING, best_device, planned
from dpmlm.pipeline.planted import plants
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_until
from dpmlm.pipeline.stages import execute
from dpmlm.pipeline.workspace import Workspace, deciding_settings


def run_grid(grid: Grid) -> GridResult:
    """Bring every cell to its figures. Raises UserError where no cell came to any, and, before
    anything is charged, where one could not be begun."""
    progress = Progress()
    refuse_unfit_cells(grid, progress)
    grid.claim()
    if grid.public:
        register_public(grid.base.name, grid.text.ledger)
    progress.say(f"text of {grid.base.name}: read once for all cells")
    execute_until(grid.text, "tokens")
    base = Run.load(grid.text, Progress(quiet=True))
    refuse_unanswerable(base, grid.apart)
    rows: list[Row] = []
    failure: UserError | None = None
    for number, cell in enumerate(grid.cells, start=1):
        progress.say(f"cell {number} of {len(grid.cells)}: {cell.name}")
        try:
            rows.append(_run_cell(grid, cell, run_of(cell, base)))
        except UserError as error:
            failure = error
            # What was given may be the name of a source, which is private where some are left out.
            hidden = grid.apart or grid.names_sources
            reason = f"{error.rule}; {error.next_step}" if hidden else str(error)
            progress.say(f"  failed: {reason}")
            rows.append(Row(cell.name, cell.setting, cell.seed, failed=reason))
    if failure is not None and all(row.failed for row in rows):
        raise failure
    return GridResult.of(grid, rows)


def _run_cell(grid: Grid, cell: Cell, run: Run) -> Row:
    with run.workspace.locked():
        run.workspace.claim(cell.name, deciding_settings(cell.config))
        if grid.names_sources:
            (run.workspace.path / "run.json").chmod(0o600)
        if run.finished(MEASURED) is None:
            _share_text(grid, run)
            execute(run, [canaries_stage(cell.config), PLAN])
            spent = _train(run)
            measured = measured_stage(
                spent, public=grid.public, exposing=grid.exposing, apart=grid.apart
            )
            execute(run, [measured])
    plan, _ = planned(run)
    rows = sum(steps * batch for steps, batch in plan.plateaus)
    return Row(
        cell.name,
        cell.setting,
        cell.seed,
        epsilon=plan.epsilon,
        delta=plan.delta,
        rows=rows * cell.config.training.windows_per_draw,
        steps=plan.steps,
        figures=read_measured(run),
    )


def _share_text(grid: Grid, run: Run) -> None:
    """Take over the stages of the text; tokens are made where no cell has such ones yet.

    Masking by names marks them in the tokens, so that these are not the same for all cells.
    """
    planted = ("planted",) if plants(run.config) else ()
    for stage in (*planted, *data_order(run.config)[:-1]):
        _take_over(grid.folder / "text" / stage, run.workspace.stage(stage))
    tokens = data_stages(run.config)[-1]
    key = tokens.origin(run).key
    for place in (grid.folder / "text", *(cell.config.workspace for cell in grid.cells)):
        made = replace(run, workspace=Workspace(place)).finished(tokens.name)
        if made is not None and (made.manifest or {})["key"] == key:
            _take_over(made.path, run.workspace.stage(tokens.name))
            return
    execute(run, [tokens])


def _train(run: Run) -> float | None:
    """CPU seconds of the training; None where an earlier process did a part of it, or a GPU did it:
    there they are not what it cost."""
    elsewhere = run.workspace.stage(TRAINING.name).exists() or best_device() != "cpu"
    before = time.process_time()
    execute(run, [TRAINING])
    return None if elsewhere else time.process_time() - before


def _take_over(source: Path, target: Path) -> None:
    """Give a cell a finished stage of the text: links where the file system has them.

    Sealed files are replaced and never written into, so that no cell changes another's.
    """
    if target.exists():
        return
    draft = target.with_name(f".{target.name}.taking")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft, copy_function=_link)
    draft.rename(target)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target
