"""What a private step costs, side by side with the steps that others run.

Reading order: `models` (which models, which batch), `steps` (our columns), `peers` (Opacus'),
`timing`, `memory`, `update` (noise and optimizer), `measurement` (all of it together), `targets`
(the figures to reach), `report` (table and JSON).
"""

from typing import TYPE_CHECKING

from dpmlm.lazy import lazy_names

if TYPE_CHECKING:
    from dpmlm.bench.measurement import Measurement, measure
    from dpmlm.bench.report import table, to_json
    from dpmlm.bench.request import COLUMNS, MODELS, BenchRequest
    from dpmlm.bench.targets import Outcome, judge

__all__ = [
    "COLUMNS",
    "MODELS",
    "BenchRequest",
    "Measurement",
    "Outcome",
    "judge",
    "measure",
    "table",
    "to_json",
]

__getattr__ = lazy_names(
    "dpmlm.bench",
    {
        "measurement": ("Measurement", "measure"),
        "report": ("table", "to_json"),
        "request": ("COLUMNS", "MODELS", "BenchRequest"),
        "targets": ("Outcome", "judge"),
    },
)
