"""Differentially private masked language models, audited, sealed and released through a gate.

What most people call stands here and is imported when first used: `make_plan`, `Trainer`,
`run`, `load_released`.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Read once, when torch loads OpenMP. Threads that spin while they wait make a training step on two
# cores five times slower, and two processes side by side worse than that.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from dpmlm.pipeline.run import RunResult, run
    from dpmlm.pipeline.trainer import Trainer
    from dpmlm.privacy import PrivacyPlan, make_plan
    from dpmlm.release import load_released

__all__ = ["PrivacyPlan", "RunResult", "Trainer", "load_released", "make_plan", "run"]

_HOMES = {
    "PrivacyPlan": "dpmlm.privacy",
    "RunResult": "dpmlm.pipeline.run",
    "Trainer": "dpmlm.pipeline.trainer",
    "load_released": "dpmlm.release",
    "make_plan": "dpmlm.privacy",
    "run": "dpmlm.pipeline.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dpmlm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
