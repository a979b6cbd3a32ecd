"""`model:` in a run file: which encoder is trained."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from dpmlm.config.section import Section, speed
from dpmlm.config.text import PublicCorpusConfig


class ForgettingConfig(PublicCorpusConfig):
    """Public text that the model could do before its training and should do after it."""

    points: float = Field(2.0, ge=0, le=100)
    """Points of top-1 accuracy that may be lost on it, interval included."""
    documents: int = Field(1000, ge=10, le=100_000)
    """Documents of it that are asked about, at most."""


class ModelConfig(Section):
    """Which model is trained."""

    size: Literal["tiny", "mini", "small"] | None = None
    """A new BERT: tiny 2 layers of 128, mini 4 of 256, small 4 of 512."""
    from_: str | None = Field(None, alias="from")
    """A folder or hub name to continue from; its text counts as public."""
    continues: Path | None = None
    """A bundle whose model is trained further; what it promises is added to the run's."""
    trusted_keys: Path | None = speed(None)
    """Folder with the .pub files of those who may have signed that bundle."""
    forgetting: ForgettingConfig | None = None
    """Text on which the model is held against the one that it starts from."""
    train: Literal["all", "no_embeddings", "lora"] = "all"
    """What moves: every weight; all but the embeddings; or low-rank factors beside each linear
    layer, and the biases. Fewer numbers are noised; the model needs to know the words already."""
    lora_rank: int = Field(8, ge=1, le=1024)
    """Columns of a low-rank factor, of lora alone."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if [self.size, self.from_, self.continues].count(None) != 2:
            raise ValueError("name exactly one of model.size, model.from and model.continues")
        if (self.continues is None) is not (self.trusted_keys is None):
            raise ValueError(
                "model.continues and model.trusted_keys go together: a bundle is believed "
                "because of who signed it"
            )
        if self.size is not None and self.forgetting is not None:
            raise ValueError(
                "model.forgetting compares with what the model starts from, and a new one can do "
                "nothing; it goes with model.from or model.continues"
            )
        if self.size is not None and self.train != "all":
            raise ValueError(
                f"model.train {self.train} freezes weights that a new model has at "
                "random; it goes with model.from or model.continues"
            )
        return self
