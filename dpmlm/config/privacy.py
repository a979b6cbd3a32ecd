"""`privacy:` and `ledger:` in a run file: the claim, and where it is charged."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from dpmlm.config.section import Section


class PrivacyConfig(Section):
    """The claim. Every field is a public constant, fixed before the first batch."""

    unit: Literal["document", "person", "sequence"] = "document"
    """What is added or removed between neighbouring corpora; a sequence is one row of tokens, the
    weakest of the three: a document of ten rows is ten of them."""
    epsilon: float = Field(gt=0, allow_inf_nan=True)
    """inf trains without privacy and says so."""
    delta: float = Field(gt=0, lt=1)
    """Below 1/units."""
    units: int = Field(ge=1, le=10**12)
    """Declared upper bound on units, canaries included; sets the sampling rate."""
    max_grad_norm: float = Field(1.0, gt=0, allow_inf_nan=True)
    """Clipping bound C of a unit's gradient; inf clips nothing, with epsilon inf alone."""
    accountant: Literal["prv", "pld", "rdp"] = "prv"
    """Which accountant calibrates the noise; the others are printed beside it."""
    max_batch_size: int | None = Field(None, ge=1, le=10**9)
    """A larger sample is cut to so many units at random; needs accountant pld."""
    noise: Literal["gaussian", "discrete_gaussian"] = "gaussian"
    """discrete_gaussian adds whole numbers to a rounded sum; it needs accountant rdp."""
    bands: int = Field(1, ge=1, le=10**4)
    """Steps over which noise is correlated (banded matrix factorisation), so that later noise takes
    back earlier noise; costs bands - 1 copies of the weights in memory. 1: independent noise."""
    noise_seed: int | None = Field(None, ge=0, lt=2**63)
    """Repeats samples and noise of an earlier run; such a run promises nothing and never passes."""

    @property
    def owner(self) -> Literal["document", "person"]:
        """What documents are split and deduplicated by: sequences go with their document."""
        return "person" if self.unit == "person" else "document"


class CapConfig(Section):
    """The most that all runs on one corpus may spend together."""

    epsilon: float = Field(gt=0, allow_inf_nan=True)
    """Cap on epsilon; inf registers a corpus on which nothing is promised."""
    delta: float = Field(gt=0, lt=1)
    """Cap on delta."""


class LedgerConfig(Section):
    """The append-only record of what was spent on this corpus."""

    path: Path
    """JSON-lines file; keep it beside the corpus, not in the workspace."""
    cap: CapConfig
    """Checked against the registration: a run file cannot raise it."""
