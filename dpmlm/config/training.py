"""`training:` in a run file: how weights follow from batches."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from dpmlm.config.section import Section, speed


class BestConfig(Section):
    """Which step's weights are the result: those with the least loss on public text."""

    corpus: Path
    """Text that counts as public, as `corpus.path`; never the private text or a part of it."""
    text: str = "text"
    """Field with the text."""
    documents: int = Field(200, ge=1, le=10**6)
    """At most so many are looked at, chosen by a hash of each."""
    every: int = Field(10, ge=1, le=10**6)
    """Steps between two looks."""
    patience: int | None = Field(None, ge=1, le=10**6)
    """Looks without a better loss after which training ends; all steps of the plan stay charged.
    null trains to the last step."""
    jump: float | None = Field(None, gt=0, le=1000)
    """Ends training once the loss is so many nats above the best one: the weights go back to that
    step. null takes no notice."""


class ScaleConfig(Section):
    """Multiplies gradients before they are clipped, so that noise follows their size."""

    corpus: Path
    """Text that counts as public, as `corpus.path`; never the private text or a part of it. The
    size of each number's gradients is measured on it, before training begins."""
    text: str = "text"
    """Field with the text."""
    documents: int = Field(1000, ge=16, le=10**6)
    """At most so many are looked at, a window of each, chosen by a hash."""
    power: float = Field(0.25, gt=0, le=0.5)
    """A number is multiplied by its mean squared gradient to the minus this."""


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
    """Share of the steps over which the rate rises linearly."""
    schedule: Literal["linear", "cosine", "constant", "wsd"] = "linear"
    """How the rate goes on: it falls over all other steps (linear, cosine), stays (constant), or
    stays and falls linearly over the last steps only (wsd)."""
    decay: float = Field(0.2, gt=0, le=1)
    """Share of the steps at the end over which the rate of wsd falls."""
    weight_decay: float = Field(0.01, ge=0, le=1000)
    """Of AdamW; biases and norms are exempt."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the forward and backward pass; norms, sums and noise are float32 always. With
    bfloat16 every row is padded to the window, or a unit would round the others otherwise."""
    best: BestConfig | None = None
    """Keep the weights of the best step by public text; null keeps the last step's."""
    scale: ScaleConfig | None = None
    """Multiply gradients before they are clipped; null leaves them as they are."""
    average: float | None = Field(None, gt=0, lt=1)
    """Release the exponential moving average of each step's weights, of which a step keeps this
    share, e.g. 0.95; null releases the last step's."""
    leave_out: list[str] = Field([], max_length=1000)
    """Source files, by their names or paths below the corpus folder, whose documents are held out
    as ever and not trained on, unless their text stands in another source too; for ablations."""
    checkpoint_minutes: float = speed(30.0, ge=0)
    """Time between checkpoints; one is always written at the end and on SIGTERM."""
    max_hours: float | None = speed(None, gt=0, le=10**6)
    """Wall time of a training, all its attempts together, after which it stops as on SIGTERM; the
    control's counts apart. null sets no limit."""
    keep_checkpoints: int = speed(2, ge=1, le=1000)
    """The newest so many are kept while the training lasts; where the last one is damaged, the one
    before it can be gone on from."""
    checkpoint_local: Path | None = speed(None)
    """A folder on this machine's own disk, yours alone, where checkpoints are sealed before they
    are copied to the workspace; for workspaces on slow network disks."""
    physical_batch_size: int = speed(64, ge=1, le=10**6)
    """Rows that go through the model at once."""
    activation_checkpointing: bool = speed(False)
    """Run layers again in the backward pass: less memory, more than twice the time."""
    memory_gib: float | None = speed(None, gt=0, le=1024)
    """Memory of a physical batch; where given, as many rows go through at once as fit."""

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise ValueError("warmup and decay are shares of the same steps: at most 1 together")
        return self
