"""What each model says of each exploratory canary, by score, before any label is opened.

Joint: products of token alphabets are ranked exactly, structured secrets among samples. Left to
right: likely secrets of a product are ranked exactly, in a tree of prefixes, as are the last four
digits of phone and card numbers, given the rest; others among samples, as by PLL-word-l2r.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from audits.exposures.exposure import Exposure, exposures
from audits.exposures.group_exposure import Sampled
from audits.exposures.prefix_tree import TreeTooLarge, exposure_among, left_to_right_exposure
from audits.exposures.sampled import Alternatives, score_with_alternatives
from audits.exposures.tails import DIGITS, tails_of
from audits.extraction import extracted
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet
from audits.planting.canary import Canary, CanaryGroup
from audits.planting.families import case_of
from audits.scores.scoring import greedy_in_alphabets, joint_logprobs, secret_positions
from audits.scores.sequence import Rule, SpanScorer

DEFAULT: Rule = "left_to_right"
"""The score that is spoken of first."""
SAMPLES: dict[Rule, int] = {"left_to_right": 250, "joint": 1000, "pll_word_l2r": 100}
"""Other secrets of its kind that a secret is ranked among where its rank cannot be counted."""
MOST_CANARIES = 50
"""Of a group, the first so many are scored by what takes more than one pass; coins are random."""
TREE_INPUTS = 1024
"""Inputs of a tree of prefixes at most, about as many as the samples take that stand in for it."""


@dataclass
class Answer:
    """What one score says of the canaries of a group, in order, whatever their coins."""

    found: Sequence[Exposure | Sampled]
    space_bits: float
    ranked: str
    """What is ranked: the whole secret, or a part of it."""
    extracted: np.ndarray | None = None
    """Whether the secret was said; bool [N]."""


GroupAnswers = dict[Rule, Answer]
"""By score; empty where a model's scores are not finite."""
GroupsScored = Mapping[str, Mapping[str, GroupAnswers | None]]
"""By name of a group, then of a model: its answers; None for a model that is not there."""


def score_groups(
    canaries: CanarySet,
    models: Mapping[str, LoadedModel | None],
    *,
    seed: bytes | None = None,
    progress: Callable[[int], None] | None = None,
) -> GroupsScored:
    """Every model's answers on every exploratory group.

    `seed` fixes the samples; the operating system supplies it by default. `progress` gets
    `rows_explored` rows for each model.
    """
    return {
        group.name: {
            name: None if model is None else _Group(group, model, seed).answers(progress)
            for name, model in models.items()
        }
        for group in canaries.groups
    }


def rows_explored(canaries: CanarySet) -> int:
    """Rows that `score_groups` reports for each model: of each group, those scored by each rule."""
    return sum(len(_scored(group, rule)) for group in canaries.groups for rule in SAMPLES)


def _scored(group: CanaryGroup, rule: Rule) -> Sequence[Canary]:
    """The canaries that are scored by a rule: all, where one pass ranks them all exactly."""
    whole = rule == "joint" and group.exact
    return group.canaries if whole else group.canaries[:MOST_CANARIES]


class _Group:
    """The canaries of one group before one model; no coin is looked at."""

    def __init__(self, group: CanaryGroup, model: LoadedModel, seed: bytes | None) -> None:
        self._group, self._model = group, model
        self._scorer = SpanScorer(model)
        case = case_of(group, model.tokenizer, secret=seed)
        place = {canary.id: at for at, canary in enumerate(group.canaries)}

        def others(canary: Canary, count: int) -> Sequence[tuple[int, ...]]:
            rows = case.alternatives(place[canary.id], count)
            return [row.tokens[row.span[0] : row.span[1]] for row in rows]

        self._others: Alternatives = others

    def answers(self, progress: Callable[[int], None] | None) -> GroupAnswers:
        """By rule; empty where the model's scores are not finite."""
        answers: GroupAnswers = {}
        finite = True
        for rule in SAMPLES:
            rows = _scored(self._group, rule)
            found = self._answer(rule, rows) if finite else None
            finite = found is not None
            if found is not None:
                answers[rule] = found
            if progress is not None:
                progress(len(rows))
        return answers if finite else {}

    def _answer(self, rule: Rule, rows: Sequence[Canary]) -> Answer | None:
        if rule == "joint" and self._group.exact:
            return self._joint(rows)
        own = self._scorer.score([c.tokens for c in rows], [c.secret_span for c in rows], rule)
        if not all(np.isfinite(steps).all() for steps in own):
            return None
        if rule == "left_to_right":
            return self._tails(rows) or self._trees(rows)
        return self._whole(self._sampled(rows, rule))

    def _whole(self, found: list[Exposure | Sampled] | None) -> Answer | None:
        bits = self._group.space_bits
        return None if found is None else Answer(found, bits, "the whole secret")

    def _joint(self, rows: Sequence[Canary]) -> Answer | None:
        logprobs = joint_logprobs(self._model, rows)
        decoded = greedy_in_alphabets(self._model, rows)
        if not (np.isfinite(logprobs).all() and (decoded >= 0).all()):
            return None
        answer = self._whole([*exposures(logprobs, secret_positions(rows))])
        assert answer is not None
        answer.extracted = extracted(rows, logprobs, decoded)
        return answer

    def _tails(self, rows: Sequence[Canary]) -> Answer | None:
        """Exact ranks of last digits; None where none can be told apart, or rows get too long."""
        tails = tails_of(self._group.family, rows, self._model.tokenizer)
        if tails is None:
            return None
        longest = max(len(t.before) + max(map(len, t.candidates)) for t in tails)
        if longest + 2 > self._model.longest_row:
            return None
        ranks = [exposure_among(self._model, *tail).exposure for tail in tails]
        bits = math.log2(min(len(tail.candidates) for tail in tails))
        return Answer([*ranks], bits, f"its last {DIGITS} digits, given the rest")

    def _trees(self, rows: Sequence[Canary]) -> Answer | None:
        """Trees for secrets so likely that these stay small, samples for the others."""
        found: dict[str, Exposure | Sampled] = {}
        for canary in rows if self._group.exact else ():
            with suppress(TreeTooLarge):
                rank = left_to_right_exposure(self._model, canary, most_inputs=TREE_INPUTS)
                found[canary.id] = rank.exposure
        rest = [canary for canary in rows if canary.id not in found]
        sampled = self._sampled(rest, "left_to_right")
        if sampled is None:
            return None
        found |= dict(zip((canary.id for canary in rest), sampled))
        return self._whole([found[canary.id] for canary in rows])

    def _sampled(self, rows: Sequence[Canary], rule: Rule) -> list[Exposure | Sampled] | None:
        scored = score_with_alternatives(
            self._scorer, rows, self._others, samples=SAMPLES[rule], rule=rule
        )
        finite = all(np.isfinite(own) and np.isfinite(others).all() for own, others in scored)
        return [*scored] if finite else None
