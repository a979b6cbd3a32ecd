"""Finding personal data in text and replacing it: Presidio, a shipped name finder, policies.

Read in this order: `policy` (what is asked for), `scrubber` (what is done), `engine` and
`recognizers` (what finds), `recall` (how well). `train` makes the shipped model.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpmlm.scrub.policy import ScrubPolicy, load_policy, shipped_policies
    from dpmlm.scrub.recall import RecallReport, measure_recall
    from dpmlm.scrub.scrubber import Decision, Scrubbed, Scrubber

_HOME = {
    "ScrubPolicy": "policy",
    "load_policy": "policy",
    "shipped_policies": "policy",
    "Decision": "scrubber",
    "Scrubbed": "scrubber",
    "Scrubber": "scrubber",
    "RecallReport": "recall",
    "measure_recall": "recall",
}

__all__ = [
    "Decision",
    "RecallReport",
    "ScrubPolicy",
    "Scrubbed",
    "Scrubber",
    "load_policy",
    "measure_recall",
    "shipped_policies",
]


def __getattr__(name: str) -> Any:
    # Presidio brings torch along, which no `--help` may wait for.
    if name in _HOME:
        return getattr(import_module(f"dpmlm.scrub.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
