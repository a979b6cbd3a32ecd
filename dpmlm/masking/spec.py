"""`MaskingSpec`: which tokens of a row are masked, how many, and what they are replaced by."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from dpmlm.errors import UserError

Strategy = Literal["token", "whole_word"]

SPECIALS_PER_ROW = 2
"""CLS and SEP: a window of T tokens holds T - 2 tokens of content."""


@dataclass(frozen=True)
class MaskingSpec:
    """The masking part of a plan (Devlin et al. 2019, section 3.1, are the defaults).

    Raises UserError when a field is out of its range.
    """

    strategy: Strategy = "token"
    """"token": every maskable token alone; "whole_word": all pieces of a word together."""
    ratio: float = 0.15
    """Share of a row's maskable tokens that are masked, above 0 and below 1."""
    mask_fraction: float = 0.8
    """Share of the masked tokens that become the mask token, 0 to 1."""
    random_fraction: float = 0.1
    """Share that become a random ordinary token, 0 to 1 - mask_fraction; the rest stay."""

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            _refuse("strategy", self.strategy, f"it is one of {', '.join(get_args(Strategy))}")
        if not 0 < self.ratio < 1:
            _refuse("ratio", self.ratio, "it lies above 0 and below 1")
        if not 0 <= self.mask_fraction <= 1:
            _refuse("mask_fraction", self.mask_fraction, "it lies between 0 and 1")
        if not 0 <= self.random_fraction <= 1 - self.mask_fraction + 1e-12:
            _refuse("random_fraction", self.random_fraction, "it lies between 0 and 1 - mask")

    def masked_slots(self, window: int) -> int:
        """K, the slots of every row of a `window`-token plan: never a property of the data.

        K = max(1, round(ratio * (window - 2))), what a full row needs; shorter rows leave slots
        unused. `window` counts CLS and SEP; raises UserError below 3.
        """
        if window <= SPECIALS_PER_ROW:
            _refuse("window", window, f"it is at least {SPECIALS_PER_ROW + 1} tokens")
        return int(self.counts(np.array(window - SPECIALS_PER_ROW)))

    def counts(self, maskable: np.ndarray) -> np.ndarray:
        """How many tokens rows with `maskable` (int [...]) maskable tokens mask, int64 [...].

        max(1, round(ratio * maskable)), halves to even, and 0 where nothing can be masked. The
        number is fixed, not Bernoulli: it spends all K slots and keeps the loss's weight steady.
        """
        wanted = np.maximum(1, np.rint(self.ratio * maskable)).astype(np.int64)
        return np.where(maskable > 0, wanted, 0)


def _refuse(field: str, value: object, rule: str) -> None:
    raise UserError(f"masking {field} {value!r}", rule, "change it in the run file under masking")
