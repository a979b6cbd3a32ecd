"""`model:` in a run file: which encoder is trained."""

from typing import Literal, Self

from pydantic import Field, model_validator

from dpmlm.config.section import Section


class ModelConfig(Section):
    """Which model is trained."""

    size: Literal["tiny", "mini", "small"] | None = None
    """A new BERT: tiny 2 layers of 128, mini 4 of 256, small 4 of 512."""
    from_: str | None = Field(None, alias="from")
    """A folder or hub name to continue from; its text counts as public."""
    train: Literal["all", "no_embeddings", "lora"] = "all"
    """What moves: every weight; all but the embeddings; or low-rank factors beside each linear
    layer, and the biases. Fewer numbers are noised; the model needs to know the words already."""
    lora_rank: int = Field(8, ge=1, le=1024)
    """Columns of a low-rank factor, of lora alone."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.size is None) == (self.from_ is None):
            raise ValueError("name exactly one of model.size and model.from")
        if self.size is not None and self.train != "all":
            raise ValueError(
                f"model.train {self.train} freezes weights that a new model has at "
                "random; it goes with model.from"
            )
        return self
