"""Finding personal data in text and replacing it: Presidio, a shipped name finder, policies.

Read in this order: `policy` (what is asked for), `scrubber` (what is done), `engine` and
`recognizers` (what finds; by telling words `organisations`, `demographics`, `people`, `places`,
`written`), `operators` (what stands instead: `surrogates` with `keyed`, `numbers` and `dates`,
`generalised`), `recall` (how well). `train` makes the shipped model from `examples`, varied by
`augment` with `templates` and `slots`.
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
