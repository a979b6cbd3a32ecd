"""`telemetry:` in a run file: figures for those who watch a training."""

from pathlib import Path
from typing import Literal

from dpmlm.config.section import Section, speed


class TelemetryConfig(Section):
    """Figures of the training for machines that watch it; docs/cli.md lists them."""

    file: Path | None = speed(None)
    """One JSON object a step, in clear, whole after each checkpoint."""
    clearance: Literal["public", "dp"] = speed("dp")
    """dp shows figures of noised sums too, which the claim covers; private ones stay sealed."""
