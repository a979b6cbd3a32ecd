"""`masking:` in a run file: which tokens the model has to guess."""

from typing import Literal, Self

from pydantic import Field, model_validator

from dpmlm.config.section import Section
from dpmlm.config.text import PublicCorpusConfig


class MaskingWeightsConfig(PublicCorpusConfig):
    """Public text whose token counts say how readily each token is chosen."""

    power: float = Field(0.5, ge=0, le=1)
    """Weights are counts to the minus this power, between 1/8 and 8 of a middling token's."""


class MaskingConfig(Section):
    """What the model has to guess."""

    strategy: Literal["token", "whole_word", "span", "entity"] = "whole_word"
    """Whether pieces, whole words, some words in a row, or names and words are chosen."""
    ratio: float = Field(0.15, gt=0, lt=1)
    """Share of the tokens of a row that are chosen."""
    ratio_end: float | None = Field(None, gt=0, lt=1)
    """Share at the last step, reached in a straight line; null keeps `ratio`."""
    mask_fraction: float = Field(0.8, ge=0, le=1)
    """Of those, the share replaced by the mask token."""
    random_fraction: float = Field(0.1, ge=0, le=1)
    """Of those, the share replaced by a random token; the rest stays."""
    static: bool = False
    """The same window always has the same mask; else every visit has its own."""
    entity_share: float = Field(0.5, gt=0, le=1)
    """Strategy entity: share of the chosen tokens that stand in names, where a row has some."""

    weights: MaskingWeightsConfig | None = None
    """Mask tokens that are rare in public text more readily; null masks all alike."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.mask_fraction + self.random_fraction > 1 + 1e-9:
            raise ValueError("mask_fraction and random_fraction add up to more than 1")
        return self
