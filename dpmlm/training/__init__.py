"""Private training of one masked language model: the loop, its optimizer, its checkpoints."""

from dpmlm.training.best import PublicLoss
from dpmlm.training.charges import LedgerCharges, PublicText
from dpmlm.training.checkpoint import Checkpoints, Progress
from dpmlm.training.gradients import (
    NO_GRADIENT_CANARIES,
    GradientCanaries,
    refuse_gradient_canaries,
)
from dpmlm.training.interrupts import Interrupted
from dpmlm.training.loop import train
from dpmlm.training.memory import in_bytes
from dpmlm.training.model import (
    activation_checkpointing_if,
    load_base_model,
    new_model,
    refuse_inexact,
)
from dpmlm.training.optimizer import SecureDPOptimizer, adamw
from dpmlm.training.pace import timed_rows
from dpmlm.training.ranks import Ranks
from dpmlm.training.recipe import Recipe
from dpmlm.training.scaling import public_scales
from dpmlm.training.trainable import merged, restrict
from dpmlm.training.units import (
    CanaryUnits,
    CorpusUnits,
    JoinedUnits,
    SequenceUnits,
    Units,
    units_of,
)

__all__ = [
    "NO_GRADIENT_CANARIES",
    "CanaryUnits",
    "Checkpoints",
    "CorpusUnits",
    "GradientCanaries",
    "Interrupted",
    "JoinedUnits",
    "LedgerCharges",
    "Progress",
    "PublicLoss",
    "PublicText",
    "Ranks",
    "Recipe",
    "SecureDPOptimizer",
    "SequenceUnits",
    "Units",
    "activation_checkpointing_if",
    "adamw",
    "in_bytes",
    "load_base_model",
    "merged",
    "new_model",
    "public_scales",
    "refuse_gradient_canaries",
    "refuse_inexact",
    "restrict",
    "timed_rows",
    "train",
    "units_of",
]
