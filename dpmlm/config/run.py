"""The run file: every field, its unit, its range, and whether it changes the claim.

Sections about text stand in `text.py`. Fields marked with `speed()` change how fast a run goes, or
what is watched or measured beside it, and nothing of what is trained: they are left out of the
digest that ties a workspace to its run.
"""

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dpmlm.config.section import Section, speed
from dpmlm.config.text import (
    CorpusConfig,
    DedupConfig,
    PublicCorpusConfig,
    ScrubConfig,
    SplitConfig,
    TokensConfig,
)


class KeysConfig(Section):
    """Key files; `dpmlm keys new` writes them."""

    identity: Path
    """Private identity of the trainer: opens and seals the workspace. Mode 0600."""
    signing: Path
    """Ed25519 key that signs the bundle's manifest. Mode 0600."""
    scrub: Path
    """32-byte secret behind pseudonyms, unit ids, splits and masks. Mode 0600."""


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


class ModelConfig(Section):
    """Which model is trained."""

    size: Literal["tiny", "mini", "small"] | None = None
    """A new BERT: tiny 2 layers of 128, mini 4 of 256, small 4 of 512."""
    from_: str | None = Field(None, alias="from")
    """A folder or hub name to continue from; its text counts as public."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.size is None) == (self.from_ is None):
            raise ValueError("name exactly one of model.size and model.from")
        return self


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


class TrainingConfig(Section):
    """How the model is trained."""

    steps: int = Field(ge=1, le=10**6)
    """Noisy steps."""
    expected_batch_size: int = Field(ge=1, le=10**9)
    """Expected units a step; the realised number varies by Poisson sampling."""
    batch_schedule: dict[int, int] = Field({}, max_length=63)
    """Step to the expected units from that step on, e.g. {50: 256}; plateaus, as each costs."""
    windows_per_draw: int = Field(1, ge=1, le=4096)
    """Rows a drawn unit contributes, clipped as one: of different documents where it has them."""
    learning_rate: float = Field(1e-3, gt=0, le=1000)
    """Peak learning rate of AdamW."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps over which the rate rises linearly; then it falls linearly to zero."""
    weight_decay: float = Field(0.01, ge=0, le=1000)
    """Of AdamW; biases and norms are exempt."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the forward and backward pass; norms, sums and noise are float32 always. With
    bfloat16 every row is padded to the window, or a unit would round the others otherwise."""
    checkpoint_minutes: float = speed(30.0, ge=0)
    """Time between checkpoints; one is always written at the end and on SIGTERM."""
    physical_batch_size: int = speed(64, ge=1, le=10**6)
    """Rows that go through the model at once."""
    activation_checkpointing: bool = speed(False)
    """Run layers again in the backward pass: less memory, more than twice the time."""
    memory_gib: float | None = speed(None, gt=0, le=1024)
    """Memory of a physical batch; where given, as many rows go through at once as fit."""


class CanaryGroupConfig(Section):
    """Canaries beside those of the gating tests: looked at, and never pooled with others."""

    family: Literal["rare_tokens", "random_words", "rare_suffix", "phone", "card", "email"]
    """How secrets are made: products of tokens, or identifiers written as text."""
    count: int = Field(ge=1, le=50_000)
    """Planted secrets; each is included by a fair coin."""
    copies: int = Field(1, ge=1, le=10**4)
    """Units an included secret is inserted in; the claim covers 1."""
    arm: Literal["exempt", "pipeline"] = "exempt"
    """exempt: rows beside the corpus' tokens; pipeline: documents that are scrubbed and
    deduplicated like any other, identifiers alone."""

    @model_validator(mode="after")
    def _documents_are_text(self) -> Self:
        tokens = ("rare_tokens", "random_words", "rare_suffix")
        if self.arm == "pipeline" and self.family in tokens:
            raise ValueError(
                f"family {self.family} is made of tokens, and documents of arm pipeline are text "
                "before there is a tokenizer: use phone, card or email, or arm exempt"
            )
        return self


class AuditConfig(Section):
    """How the model is attacked before release."""

    canaries: int = Field(1000, ge=0, le=10**6)
    """Planted secrets; each is included by a fair coin."""
    copies: int = Field(1, ge=1, le=10**4)
    """Units an included secret is inserted in; the claim covers 1."""
    groups: list[CanaryGroupConfig] = Field(default_factory=list, max_length=99)
    """Exploratory canaries of other families, copies and arms; no gating test looks at them."""
    gradient_canaries: int = Field(0, ge=0, le=10**5)
    """Planted directions in the clipped sum, for the white-box audit; each by a fair coin."""
    control: PublicCorpusConfig | None = None
    """Public text for the non-private control; without one the audits show no power."""
    reference: str | None = None
    """A public masked LM to compare with; null takes the model before its training."""
    verbatim_spans: int = Field(300, ge=0, le=10**6)
    """Training spans tried for verbatim extraction, and as many held-out twins."""
    verbatim_grid: Literal["standard", "full"] = "standard"
    """Cells explored beside the declared one: a few on some spans, or all on all of them."""
    membership: int = Field(200, ge=0, le=10**6)
    """Records of trained units, and as many of held-out ones, for membership inference."""
    identifiers: int = Field(0, ge=0, le=10**6)
    """Documents of each side in which identifiers are played for; their names are looked for."""
    beta: float = Field(0.05, ge=1e-3, lt=0.5)
    """False-alarm probability shared by all gating tests."""

    @model_validator(mode="after")
    def _groups_differ(self) -> Self:
        kinds = [(group.family, group.copies, group.arm) for group in self.groups]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ValueError(
                    f"two groups of family {kind[0]}, copies {kind[1]}, arm {kind[2]}: groups are "
                    "never pooled, so make one larger group of them"
                )
        if any(group.family == "rare_suffix" for group in self.groups) and self.control is None:
            raise ValueError(
                "family rare_suffix begins with words of public text: name it in audit.control"
            )
        return self

    @property
    def most_units(self) -> int:
        """Units that canaries occupy if every coin includes its canary."""
        planted = sum(group.count * group.copies for group in self.groups)
        return self.canaries * self.copies + planted + self.gradient_canaries


class TelemetryConfig(Section):
    """Figures of the training for machines that watch it; docs/cli.md lists them."""

    file: Path | None = speed(None)
    """One JSON object a step, in clear, whole after each checkpoint."""
    clearance: Literal["public", "dp"] = speed("dp")
    """dp shows figures of noised sums too, which the claim covers; private ones stay sealed."""


class ReleaseConfig(Section):
    """Who may open the result, and under which policy."""

    policy: str = "internal"
    """Name of a shipped policy or path of a YAML file."""
    intended_use: str = ""
    """What the model is for, in a sentence for its card; empty: what the policy says of a PASS."""
    recipients: list[Path] = Field(min_length=1)
    """Public keys of the consumers; they get the model's key on PASS only."""
    auditors: list[Path] = Field(default_factory=list)
    """Public keys that may always open the model, the evidence and the full report."""
    waivers: list[Path] = Field(default_factory=list)
    """Waivers of rules that do not hold, as `dpmlm gate waive` signs them."""
    approvers: list[Path] = Field(default_factory=list)
    """Public keys of those who may sign waivers; never the run's own signing key."""
    log: Path | None = speed(None)
    """Append-only log that the release is entered in, its signed head beside it (docs/log.md)."""


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

    @property
    def private(self) -> bool:
        """Whether the run promises anything."""
        return math.isfinite(self.privacy.epsilon) and self.privacy.noise_seed is None
