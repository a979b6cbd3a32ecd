"""Finding personal data in text and replacing it: Presidio, a shipped name finder, policies.

Read in this order: `policy.py` (what is asked for), `scrubber.py` (what is done), `engine.py` with
`recognizers/` and `patterns/` (what finds, and how patterns are run), `operators/` (what stands
instead), `recall.py` and `gold.py` (how well). `train.py` and `training/` make the shipped model.
"""

from typing import TYPE_CHECKING

from dpmlm.lazy import lazy_names

if TYPE_CHECKING:
    from dpmlm.scrub.policy import ScrubPolicy, load_policy, shipped_policies
    from dpmlm.scrub.recall import RecallReport, measure_recall
    from dpmlm.scrub.scrubber import Decision, Scrubbed, Scrubber, replay

__all__ = [
    "Decision",
    "RecallReport",
    "ScrubPolicy",
    "Scrubbed",
    "Scrubber",
    "load_policy",
    "measure_recall",
    "replay",
    "shipped_policies",
]


# Presidio brings torch along, which no `--help` may wait for.
__getattr__ = lazy_names(
    __name__,
    {
        "policy": ("ScrubPolicy", "load_policy", "shipped_policies"),
        "recall": ("RecallReport", "measure_recall"),
        "scrubber": ("Decision", "Scrubbed", "Scrubber", "replay"),
    },
)
