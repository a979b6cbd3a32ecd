"""What a training run measures, who may see it, and where it goes."""

from dpmlm.telemetry.fanout import Sinks
from dpmlm.telemetry.gauges import GAUGES
from dpmlm.telemetry.metrics import METRICS, Event, Label, Metric, event
from dpmlm.telemetry.sinks import EventFile, Sink, cleared

__all__ = [
    "GAUGES",
    "METRICS",
    "Event",
    "EventFile",
    "Label",
    "Metric",
    "Sink",
    "Sinks",
    "cleared",
    "event",
]
