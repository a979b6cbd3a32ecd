"""Memory, load and temperature of this machine's GPUs, by NVIDIA's management library."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dpmlm.errors import UserError
from dpmlm.telemetry.sinks import Sink


class Gpus:
    """Reads the GPUs when it is asked to. Raises UserError without the package or a driver."""

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError:
            raise UserError(
                "telemetry.gpu",
                "this needs the package nvidia-ml-py, which is not installed",
                "run `pip install 'dpmlm-framework[gpu-metrics]'`",
            ) from None
        self._nvml: Any = pynvml
        try:
            self._nvml.nvmlInit()
            count = self._nvml.nvmlDeviceGetCount()
            self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except pynvml.NVMLError as error:
            raise UserError(
                "telemetry.gpu",
                f"the driver's library does not answer ({type(error).__name__})",
                "leave it out on machines without an NVIDIA GPU",
            ) from None

    def tell(self, sink: Sink) -> None:
        """Give `sink` the gauges of each GPU; what a GPU does not report is left out."""
        for index, handle in enumerate(self._handles):
            for name, value in self._read(handle):
                sink.gauge(name, value, gpu=str(index))

    def _read(self, handle: Any) -> list[tuple[str, float]]:
        nvml, found = self._nvml, []
        readings: dict[str, Callable[[], float]] = {
            "gpu_memory_total_bytes": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total,
            "gpu_memory_used_bytes": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used,
            "gpu_utilization_ratio": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
            "gpu_temperature_celsius": lambda: nvml.nvmlDeviceGetTemperature(
                handle, nvml.NVML_TEMPERATURE_GPU
            ),
        }
        for name, read in readings.items():
            with suppress(nvml.NVMLError):  # some cards and partitions of cards report less
                found.append((name, read()))
        return found

    def close(self) -> None:
        self._nvml.nvmlShutdown()
