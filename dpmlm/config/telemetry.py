"""`telemetry:` in a run file: figures for those who watch a training."""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from dpmlm.config.section import Section, speed


class PrometheusConfig(Section):
    """The latest figures in Prometheus' text format; docs/monitoring.md lists them."""

    port: int | None = Field(None, ge=1, le=65535)
    """Serves them at /metrics while the run goes."""
    address: str = "127.0.0.1"
    """IP address to listen at; any but a loopback one shows public figures alone."""
    textfile: Path | None = None
    """FILE.prom for node_exporter's textfile collector; stays after the run."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        ip_address(value)
        return value

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.port is None and self.textfile is None:
            raise ValueError("telemetry.prometheus needs a port or a textfile")
        return self


class MlflowConfig(Section):
    """A run on an MLflow server, with public figures alone unless `remote` says dp."""

    uri: str
    """Of the server: https://, or http:// on this machine."""
    experiment: str = Field("dpmlm", min_length=1)
    """Where the run is entered; created if it is missing."""


class TelemetryConfig(Section):
    """Figures of the training for machines that watch it; docs/cli.md lists them."""

    file: Path | None = speed(None)
    """One JSON object a step, in clear, whole after each checkpoint."""
    clearance: Literal["public", "dp"] = speed("dp")
    """dp shows figures of noised sums too, which the claim covers; private ones stay sealed."""
    prometheus: PrometheusConfig | None = speed(None)
    """Where Prometheus finds the latest figures."""
    tensorboard: Path | None = speed(None)
    """Folder for TensorBoard."""
    mlflow: MlflowConfig | None = speed(None)
    """A run on an MLflow server beside the files."""
    remote: Literal["public", "dp"] = speed("public")
    """The clearance of places that other machines reach: MLflow, and a port of another address."""
    times: bool = speed(False)
    """Tells times and speeds too, which no claim covers: checkpoint age, speed, GPU load."""
    gpu: bool = speed(False)
    """Reads the GPUs' memory, and with `times` their load and temperature, at each checkpoint."""
