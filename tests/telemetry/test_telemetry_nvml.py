"""GPU figures, against a stand-in for NVIDIA's library: no GPU is needed to see what is told."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from dpmlm.errors import UserError
from dpmlm.telemetry import GAUGES, Sinks
from dpmlm.telemetry.nvml import Gpus


class NVMLError(Exception):
    pass


def library(*, cards=2, driver=True, load=True):
    def init():
        if not driver:
            raise NVMLError

    def rates(handle):
        if not load:
            raise NVMLError
        return SimpleNamespace(gpu=25)

    made = ModuleType("pynvml")
    made.__dict__.update(
        NVMLError=NVMLError, NVML_TEMPERATURE_GPU=0, nvmlInit=init, nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: cards, nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=800 + handle, used=200),
        nvmlDeviceGetUtilizationRates=rates, nvmlDeviceGetTemperature=lambda handle, kind: 61,
    )  # fmt: skip
    return made


class Told:
    def __init__(self):
        self.found = {}

    def gauge(self, name, value, **labels):
        self.found[name, labels["gpu"]] = value


@pytest.mark.parametrize("times", [True, False])
def test_each_gpu_is_told_and_its_load_only_with_times(monkeypatch, times):
    monkeypatch.setitem(sys.modules, "pynvml", library())
    told = Told()
    Gpus().tell(Sinks({"endpoint": told}, times=times))
    known = {"gpu_memory_total_bytes": 800}
    if times:
        known |= {"gpu_memory_used_bytes": 200, "gpu_utilization_ratio": 0.25,
                  "gpu_temperature_celsius": 61}  # fmt: skip
    assert {name: value for (name, gpu), value in told.found.items() if gpu == "0"} == known
    assert told.found["gpu_memory_total_bytes", "1"] == 801
    assert known.keys() == {name for name, kind in GAUGES.items()
                            if kind.labels == ("gpu",) and (times or not kind.timing)}  # fmt: skip


def test_what_a_card_does_not_report_is_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", library(cards=1, load=False))
    told = Told()
    Gpus().tell(Sinks({"endpoint": told}, times=True))
    reported = ("gpu_memory_total_bytes", "gpu_memory_used_bytes", "gpu_temperature_celsius")
    assert told.found.keys() == {(name, "0") for name in reported}


def test_without_a_driver_or_the_package_it_is_refused_with_the_next_step(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", library(driver=False))
    with pytest.raises(UserError, match="without an NVIDIA GPU"):
        Gpus()
    lost = library()

    def gone(index):
        raise lost.NVMLError

    lost.nvmlDeviceGetHandleByIndex = gone  # a GPU that fell off its bus
    monkeypatch.setitem(sys.modules, "pynvml", lost)
    with pytest.raises(UserError, match="does not answer"):
        Gpus()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(UserError, match="pip install"):
        Gpus()
