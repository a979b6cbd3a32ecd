"""`MaskingSpec`: which tokens are masked, how many, and what they are replaced by."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from dpmlm.errors import UserError

Strategy = Literal["token", "whole_word", "span", "entity"]

SPECIALS_PER_ROW = 2
"""CLS and SEP: a window of T tokens holds T - 2 tokens of content."""

LONGEST: dict[Strategy, int] = {"token": 1, "whole_word": 6, "span": 10, "entity": 10}
"""Most tokens that are masked together; a longer word, span or name is masked in parts."""


@dataclass(frozen=True)
class MaskingSpec:
    """The masking part of a plan (Devlin et al. 2019, section 3.1, are the defaults).

    Raises UserError when a field is out of its range.
    """

    strategy: Strategy = "token"
    """"token": every maskable token alone; "whole_word": all pieces of a word together; "span":
    some words in a row (Joshi et al. 2020); "entity": names whole, and words."""
    ratio: float = 0.15
    """Share of a row's maskable tokens that are masked, above 0 and below 1."""
    mask_fraction: float = 0.8
    """Share of the masked tokens that become the mask token, 0 to 1."""
    random_fraction: float = 0.1
    """Share that become a random ordinary token, 0 to 1 - mask_fraction; the rest stay."""
    ratio_end: float | None = None
    """The ratio that the last step comes to, in a straight line from `ratio` (Ankner et al. 2023,
    arXiv 2305.15096: from 0.3 to 0.15). None keeps `ratio`."""
    static: bool = False
    """The same window of a document always has the same mask; else each visit has its own."""
    entity_share: float = 0.5
    """Strategy entity: share of the masked tokens that stand in names, where a row has names;
    above 0, at most 1."""

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            _refuse("strategy", self.strategy, f"it is one of {', '.join(get_args(Strategy))}")
        if not 0 < self.ratio < 1:
            _refuse("ratio", self.ratio, "it lies above 0 and below 1")
        if self.ratio_end is not None and not 0 < self.ratio_end < 1:
            _refuse("ratio_end", self.ratio_end, "it lies above 0 and below 1")
        if not 0 <= self.mask_fraction <= 1:
            _refuse("mask_fraction", self.mask_fraction, "it lies between 0 and 1")
        if not 0 <= self.random_fraction <= 1 - self.mask_fraction + 1e-9:
            _refuse("random_fraction", self.random_fraction, "it lies between 0 and 1 - mask")
        if not 0 < self.entity_share <= 1:
            _refuse("entity_share", self.entity_share, "it lies above 0 and is at most 1")

    @property
    def longest(self) -> int:
        """Most tokens that are masked together."""
        return LONGEST[self.strategy]

    def ratio_at(self, step_share: float) -> float:
        """The ratio when `step_share`, 0 to 1, of the steps are taken."""
        if self.ratio_end is None:
            return self.ratio
        share = min(1.0, max(0.0, step_share))
        return (1 - share) * self.ratio + share * self.ratio_end

    def masked_slots(self, window: int) -> int:
        """K, the slots of every row of a `window`-token plan: never a property of the data.

        What a full row needs at the largest ratio of the schedule, max(1, round(ratio * (window -
        2))), and where tokens are masked together `longest - 1` more, as the last word goes over.
        `window` counts CLS and SEP; raises UserError below 3.
        """
        if window <= SPECIALS_PER_ROW:
            _refuse("window", window, f"it is at least {SPECIALS_PER_ROW + 1} tokens")
        content = window - SPECIALS_PER_ROW
        full = max(int(self.counts(np.array(content), share)) for share in (0.0, 1.0))
        return min(content, full + self.longest - 1)

    def counts(self, maskable: np.ndarray, step_share: float = 0.0) -> np.ndarray:
        """How many tokens rows with `maskable` (int [...]) maskable tokens mask, int64 [...].

        max(1, round(ratio * maskable)), halves to even, and 0 where nothing can be masked. The
        number is fixed, not Bernoulli: it keeps the loss's weight steady. Words and spans come to
        it on average (`strategies.choose_units`).
        """
        wanted = np.maximum(1, np.rint(self.ratio_at(step_share) * maskable)).astype(np.int64)
        return np.where(maskable > 0, wanted, 0)


def _refuse(field: str, value: object, rule: str) -> None:
    raise UserError(f"masking {field} {value!r}", rule, "change it in the run file under masking")
