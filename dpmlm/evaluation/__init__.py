"""Evaluation: how well a masked language model guesses, and for whom.

Reading order: `spec` (which tokens are asked for), `buckets` (how common a word is), `measurement`
(one pass over the text), `calibration`, `intervals`, `groups`, `pseudo` (every token alone),
`forgetting` (a change beside a margin);
`features` (what a frozen encoder makes of text) with the probes `sentiment` and `entities`; `told`
(all of it as values and as lines).
Nothing here knows of runs, keys or labels: who calls it says whose text it was.
"""

from dpmlm.evaluation.buckets import BUCKETS, WordBuckets, count_words
from dpmlm.evaluation.calibration import Calibration, calibration
from dpmlm.evaluation.forgetting import FORGOT, KEPT, UNDECIDED, Forgetting, forgetting
from dpmlm.evaluation.groups import Group, by_group, gap
from dpmlm.evaluation.intervals import Estimate, changes, differences, estimates
from dpmlm.evaluation.measurement import Figures, Measurement, measure
from dpmlm.evaluation.pseudo import Pseudo, pseudo_likelihood
from dpmlm.evaluation.spec import SEED, EvaluationSpec
from dpmlm.evaluation.told import (
    beside,
    figures_of,
    generalization,
    generalization_lines,
    group_lines,
    groups_told,
    lines_of,
    probe_lines,
    pseudo_lines,
)

__all__ = [
    "BUCKETS",
    "FORGOT",
    "KEPT",
    "SEED",
    "UNDECIDED",
    "Calibration",
    "Estimate",
    "EvaluationSpec",
    "Figures",
    "Forgetting",
    "Group",
    "Measurement",
    "Pseudo",
    "WordBuckets",
    "beside",
    "by_group",
    "calibration",
    "changes",
    "count_words",
    "differences",
    "estimates",
    "figures_of",
    "forgetting",
    "gap",
    "generalization",
    "generalization_lines",
    "group_lines",
    "groups_told",
    "lines_of",
    "measure",
    "probe_lines",
    "pseudo_likelihood",
    "pseudo_lines",
]
