"""`masking:` in a run file: which tokens the model has to guess."""

from typing import Literal, Self

from pydantic import Field, model_validator

from dpmlm.config.section import Section


class MaskingConfig(Section):
    """What the model has to guess."""

    strategy: Literal["token", "whole_word"] = "whole_word"
    """Whether pieces or whole words are chosen."""
    ratio: float = Field(0.15, gt=0, lt=0.9)
    """Share of the tokens of a row that are chosen."""
    mask_fraction: float = Field(0.8, ge=0, le=1)
    """Of those, the share replaced by the mask token."""
    random_fraction: float = Field(0.1, ge=0, le=1)
    """Of those, the share replaced by a random token; the rest stays."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.mask_fraction + self.random_fraction > 1 + 1e-9:
            raise ValueError("mask_fraction and random_fraction add up to more than 1")
        return self
