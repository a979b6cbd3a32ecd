"""`training:` in a run file: how weights follow from batches."""

from typing import Literal

from pydantic import Field

from dpmlm.config.section import Section, speed


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
