"""The run file: its sections together, and what must hold between them.

Each section stands in the file of its name, those about text in `text.py`: every field with its
unit and range. Fields marked with `speed()` change how fast a run goes, or what is watched or
measured beside it, and nothing of what is trained: they are left out of the digest that ties a
workspace to its run.
"""

import math
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from dpmlm.config.audit import AuditConfig
from dpmlm.config.masking import MaskingConfig
from dpmlm.config.model import ModelConfig
from dpmlm.config.privacy import LedgerConfig, PrivacyConfig
from dpmlm.config.release import KeysConfig, ReleaseConfig
from dpmlm.config.section import Section
from dpmlm.config.telemetry import TelemetryConfig
from dpmlm.config.text import (
    ONE_VOCABULARY,
    CorpusConfig,
    DedupConfig,
    ScrubConfig,
    SplitConfig,
    TokensConfig,
)
from dpmlm.config.training import TrainingConfig


class RunConfig(Section):
    """One run, from corpus to release."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the run in the ledger and the report."""
    workspace: Path
    """Folder of sealed stages; one run each."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Everything but noise and sampling secrets."""
    keys: KeysConfig
    ledger: LedgerConfig
    corpus: CorpusConfig
    split: SplitConfig = SplitConfig(validation=0.05)
    scrub: ScrubConfig = ScrubConfig()
    dedup: DedupConfig = DedupConfig()
    tokens: TokensConfig
    model: ModelConfig
    masking: MaskingConfig = MaskingConfig()
    privacy: PrivacyConfig
    training: TrainingConfig
    audit: AuditConfig = AuditConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    release: ReleaseConfig

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.privacy.unit == "person" and self.corpus.person is None:
            raise ValueError("privacy.unit person needs corpus.person, the field that names them")
        batches = [self.training.expected_batch_size, *self.training.batch_schedule.values()]
        if max(batches) > self.privacy.units:
            raise ValueError(
                "training.expected_batch_size is larger than privacy.units: "
                "the sampling rate would exceed 1"
            )
        if self.audit.copies > 1 and (self.privacy.bands > 1 or self.privacy.max_batch_size):
            raise ValueError(
                "audit.copies above 1 has no known trade-off curve with privacy.bands or "
                "privacy.max_batch_size: the audits could not judge it"
            )
        unfit = (
            self.privacy.bands > 1
            or self.privacy.max_batch_size
            or math.isinf(self.privacy.epsilon)
        )
        if self.audit.gradient_canaries and unfit:
            raise ValueError(
                "audit.gradient_canaries is for a finite privacy.epsilon, without privacy.bands or "
                "privacy.max_batch_size: set it to 0"
            )
        if self.privacy.bands * max(batches) > self.privacy.units:
            raise ValueError(
                "privacy.bands times training.expected_batch_size is larger than privacy.units: "
                "units take turns, and the sampling rate of those whose turn it is would exceed 1"
            )
        self._vocabulary_fits()
        private = self.tokens.private
        if private is not None and self.privacy.unit == "sequence":
            raise ValueError(
                "tokens.private chooses words by document or person: it bounds what one of them "
                "contributes, and a sequence is cut only once the vocabulary is there"
            )
        if private is not None and private.delta >= 1 / self.privacy.units:
            raise ValueError(
                f"tokens.private.delta is not below 1/privacy.units = {1 / self.privacy.units:.3g}"
            )
        if math.isfinite(self.privacy.epsilon) and not math.isfinite(self.privacy.max_grad_norm):
            raise ValueError("a finite privacy.epsilon needs a finite privacy.max_grad_norm")
        return self

    def _vocabulary_fits(self) -> None:
        tokens = self.tokens
        if self.model.continues is None:
            if not tokens.sources:
                raise ValueError(ONE_VOCABULARY)
        elif tokens.train is not None or tokens.private is not None:
            raise ValueError(
                "model.continues comes with its own vocabulary: leave out tokens.train and "
                "tokens.private"
            )

    @property
    def private(self) -> bool:
        """Whether the run promises anything."""
        return math.isfinite(self.privacy.epsilon) and self.privacy.noise_seed is None
