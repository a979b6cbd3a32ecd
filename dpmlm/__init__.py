"""Differentially private masked language models, audited, sealed and released through a gate.

What most people call stands here and is imported when first used: `make_plan`, `Trainer`,
`run`, `load_released`.
"""

import os
from typing import TYPE_CHECKING

from dpmlm.lazy import lazy_names

# Read once, when torch loads OpenMP. Threads that spin while they wait make a training step on two
# cores five times slower, and two processes side by side worse than that.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from dpmlm.pipeline.run import RunResult, run
    from dpmlm.pipeline.trainer import Trainer
    from dpmlm.privacy import PrivacyPlan, make_plan
    from dpmlm.release import load_released

__all__ = ["PrivacyPlan", "RunResult", "Trainer", "load_released", "make_plan", "run"]

__getattr__ = lazy_names(
    __name__,
    {
        "pipeline.run": ("RunResult", "run"),
        "pipeline.trainer": ("Trainer",),
        "privacy": ("PrivacyPlan", "make_plan"),
        "release": ("load_released",),
    },
)
