"""Exposure among samples: for scores and spaces whose ranks cannot be counted.

Secrets that were never inserted are drawn from the generator of the canary's own. The share of
them that scores better is the share of the space that does; its Clopper-Pearson interval is one
of the exposure. n samples show at most log2 n bits: what reaches that is written ">=".
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from audits.exposures.ranks import units
from audits.planting.canary import Canary
from audits.scores.sequence import Rule, SpanScorer
from audits.statistics import clopper_pearson
from dpmlm.artifacts import UserError

SMALLEST_SAMPLE = 100
"""Fewer alternatives show less than 7 bits and are refused."""

Alternatives = Callable[[Canary, int], Sequence[Sequence[int]]]
"""Draws so many secrets (token ids without their context) as the canary's own was drawn."""

_AT_ONCE = 4096


@dataclass(frozen=True)
class SampledExposure:
    """One secret's exposure among n alternatives, in bits, each at most log2 n."""

    samples: int
    """n, the alternatives that were scored."""
    higher: int
    """How many of them score higher than the secret."""
    equal: int
    """How many score the same."""
    low: float
    """Lower end of the interval, ties counted against the secret."""
    high: float
    """Upper end, ties counted for it."""

    @property
    def cap(self) -> float:
        """log2 n, the most that n samples show."""
        return math.log2(self.samples)

    @property
    def optimistic(self) -> float:
        """-log2 of the share that scores higher."""
        return self.cap - math.log2(max(self.higher, 1))

    @property
    def conservative(self) -> float:
        """-log2 of the share that scores as high or higher."""
        return self.cap - math.log2(max(self.higher + self.equal, 1))

    @property
    def at_least(self) -> bool:
        """Whether no sample scores as high, so that the exposure may be anything from log2 n up."""
        return self.higher + self.equal == 0

    def __str__(self) -> str:
        return f"{'>= ' if self.at_least else ''}{self.conservative:.2f} bits"


def sampled_exposure(
    own: float, alternatives: Sequence[float] | np.ndarray, *, confidence: float = 0.95
) -> SampledExposure:
    """Exposure of a secret with score `own` among the scores of secrets never inserted.

    The interval has `confidence` for the exposure in the whole space, whose ranks are shares of
    it. Raises UserError on NaN, or on fewer than 100 alternatives.
    """
    scores = np.asarray(alternatives, dtype=np.float64)
    if len(scores) < SMALLEST_SAMPLE:
        raise UserError(
            f"{len(scores)} alternatives",
            f"an exposure is sampled among at least {SMALLEST_SAMPLE}:"
            f" {SMALLEST_SAMPLE - len(scores)} are missing",
            "draw more secrets that were never inserted",
        )
    if np.isnan(scores).any() or np.isnan(own):
        raise UserError(
            "a score that is not a number",
            "the model must give the secret and every alternative a score",
            "look for NaN in the weights",
        )
    n, higher, equal = len(scores), int((scores > own).sum()), int((scores == own).sum())
    most = clopper_pearson(higher + equal, n, confidence)[1]
    least = clopper_pearson(higher, n, confidence)[0]
    cap = math.log2(n)
    high = cap if least == 0 else min(cap, -math.log2(least))
    return SampledExposure(n, higher, equal, low=-math.log2(most), high=high)


def score_with_alternatives(
    scorer: SpanScorer,
    canaries: Sequence[Canary],
    alternatives: Alternatives,
    *,
    samples: int,
    rule: Rule = "left_to_right",
) -> list[tuple[float, np.ndarray]]:
    """Of each canary its own score and those of `samples` alternatives, in units of 1/512 nat.

    An alternative takes the secret's place in the canary's row. Any that is the secret of one of
    `canaries` is left out, as it may have been inserted. Raises UserError when the sampler gives
    fewer than `samples` or an empty one. NaN where the model gives no finite score.
    """
    taken = {canary.secret for canary in canaries}
    result = []
    step = max(1, _AT_ONCE // (samples + 1))
    for start in range(0, len(canaries), step):
        part = canaries[start : start + step]
        secrets = [
            [canary.secret, *_drawn(alternatives(canary, samples), samples, taken)]
            for canary in part
        ]
        rows, spans = [], []
        for canary, candidates in zip(part, secrets):
            begin, end = canary.secret_span
            for secret in candidates:
                rows.append((*canary.tokens[:begin], *secret, *canary.tokens[end:]))
                spans.append((begin, begin + len(secret)))
        scores = np.array([_total(steps) for steps in scorer.score(rows, spans, rule)])
        ends = np.cumsum([len(candidates) for candidates in secrets])
        result += [(float(each[0]), each[1:]) for each in np.split(scores, ends[:-1])]
    return result


def _total(steps: np.ndarray) -> float:
    return float(units(steps).sum()) if np.isfinite(steps).all() else math.nan


def _drawn(
    secrets: Sequence[Sequence[int]], samples: int, taken: set[tuple[int, ...]]
) -> list[tuple[int, ...]]:
    if len(secrets) < samples or not all(len(secret) for secret in secrets):
        raise UserError(
            f"a sampler that gave {len(secrets)} alternatives, or an empty one",
            f"each canary is compared with {samples}: {max(0, samples - len(secrets))} are missing",
            "ask for fewer, or widen the space of secrets",
        )
    return [tuple(secret) for secret in secrets[:samples] if tuple(secret) not in taken]
