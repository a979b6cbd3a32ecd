"""A grid of small runs at one budget: `dpmlm masks compare` and `dpmlm runs sweep`.

Reading order: `axes` (what varies, and the cells that follow from it), `budget` (what all cells
cost, asked for before the first), `checks` (what each is held against before that), `cells` (one
run after the other, taken up where they were killed), `measured` (the same questions to every
model), `counted` (where words are counted, so that some are rare), `spread` (which differences are
more than chance between trainings), `result` (table and JSON), `page` (for people who never masked
a word).
"""

from dpmlm.pipeline.grid.axes import Axis, Grid, axes_of
from dpmlm.pipeline.grid.budget import Price, price_of
from dpmlm.pipeline.grid.cells import run_grid
from dpmlm.pipeline.grid.page import refuse_present, write_page
from dpmlm.pipeline.grid.result import GridResult

__all__ = [
    "Axis",
    "Grid",
    "GridResult",
    "Price",
    "axes_of",
    "price_of",
    "refuse_present",
    "run_grid",
    "write_page",
]
