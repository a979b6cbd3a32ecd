"""Masking: which tokens a row hides, as a function of (seed, example id, visit) and of constants.

Reading order: `spec` (how much), `table` (what a vocabulary allows), `window`, `strategies`,
`choice` (a strategy for a batch), `assembly` (all of it together). `batch.MaskedBatch` is what
leaves this package.
"""

from dpmlm.masking.assembly import make_batch
from dpmlm.masking.batch import MaskedBatch
from dpmlm.masking.example import Example
from dpmlm.masking.randomness import counter_rng
from dpmlm.masking.spec import MaskingSpec, Strategy
from dpmlm.masking.table import TokenTable
from dpmlm.masking.window import draw_window

__all__ = [
    "Example",
    "MaskedBatch",
    "MaskingSpec",
    "Strategy",
    "TokenTable",
    "counter_rng",
    "draw_window",
    "make_batch",
]
