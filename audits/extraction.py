"""Extraction: can the model be made to say what it was trained on, token for token?

Canary extraction plants random secrets, so that chance is known exactly. Verbatim extraction uses
real spans of the private corpus, their held-out twins, and a reference model that never saw
either; its figures are private.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from audits.canaries import Canary
from audits.models import LoadedModel
from audits.scoring import NOT_FINITE, Progress, greedy
from audits.statistics import clopper_pearson, upper_limit
from dpmlm.artifacts import UserError

GUESSES = 2
"""Guesses a canary: the left-to-right decode, and the best tokens with all masked jointly."""
NEAR = 0.1
"""Normalised edit distance up to which a miss counts as near."""


def extracted(
    canaries: Sequence[Canary], logprobs_NLA: np.ndarray, decoded_NL: np.ndarray
) -> np.ndarray:
    """Whether either of the two guesses is the whole secret; bool [N].

    The guesses are fixed beforehand: `decoded_NL` (token ids, left to right) and the arg-max of
    the joint scores `logprobs_NLA` inside the alphabets.
    """
    secrets = np.array([canary.secret for canary in canaries], dtype=np.int64)
    alphabets = np.array([canary.alphabets for canary in canaries], dtype=np.int64)
    joint = np.take_along_axis(alphabets, logprobs_NLA.argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
    return np.asarray(
        (decoded_NL == secrets).all(axis=1) | (joint == secrets).all(axis=1), dtype=bool
    )


def baseline_rate(canaries: Sequence[Canary]) -> float:
    """Chance of extracting a canary that was never inserted: guesses over |R|, at most 1."""
    return min(1.0, GUESSES * 2.0 ** -min(canary.space_bits for canary in canaries))


@dataclass(frozen=True)
class Span:
    """A stretch of tokens to be decoded, with what stands beside it."""

    left: tuple[int, ...]
    """Token ids before the span; may be empty."""
    secret: tuple[int, ...]
    """Token ids of the span, at least one."""
    right: tuple[int, ...]
    """Token ids after the span; may be empty."""
    unit: str = ""
    """The privacy unit the span is from; empty when the caller takes one span a unit itself."""


@dataclass(frozen=True)
class VerbatimCase:
    """What verbatim extraction compares. One span a unit, or the interval on the rate is void."""

    train: Sequence[Span] = field(repr=False)
    """Spans of private training documents."""
    twins: Sequence[Span] = field(repr=False)
    """Spans of the same kind from documents held out of training."""


def verbatim(
    target: LoadedModel,
    reference: LoadedModel,
    case: VerbatimCase,
    *,
    beta: float = 0.05,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Decode every span greedily left to right; returns private counts, never text.

    A hit is equal token ids and equal normalised text; near hits (normalised edit distance at
    most 0.1) are apart. `mcnemar_p_value`: more spans right by the target alone than by the
    reference alone (exact, one-sided). `fisher_p_value`: training spans hit more often than
    twins. `discordant_upper`: one-sided Clopper-Pearson limit at `beta` on the rate of spans that
    the target has and the reference has not. Not applicable where a model's scores are not
    finite. Raises UserError on an empty case or two spans of
    one unit.
    """
    _check_case(case)
    on_train = _attempt(target, case.train, progress)
    on_twins = _attempt(target, case.twins, progress)
    by_reference = _attempt(reference, case.train, progress)
    if not (on_train.finite and on_twins.finite and by_reference.finite):
        reason = f"{'the model' if by_reference.finite else 'the reference'}: {NOT_FINITE}"
        return {"label": "private", "applicable": False, "reason": reason}
    gained = int((on_train.hit & ~by_reference.hit).sum())
    lost = int((~on_train.hit & by_reference.hit).sum())
    lengths = np.array([len(span.secret) for span in case.train])
    return {
        "label": "private",
        "spans": {"train": len(case.train), "twins": len(case.twins)},
        "hits": {
            "train": int(on_train.hit.sum()),
            "twins": int(on_twins.hit.sum()),
            "reference": int(by_reference.hit.sum()),
        },
        "near_hits": {
            "train": int(on_train.near.sum()),
            "twins": int(on_twins.near.sum()),
            "reference": int(by_reference.near.sum()),
        },
        "rate_interval": {
            "train": clopper_pearson(int(on_train.hit.sum()), len(case.train)),
            "twins": clopper_pearson(int(on_twins.hit.sum()), len(case.twins)),
            "reference": clopper_pearson(int(by_reference.hit.sum()), len(case.train)),
        },
        "by_length": [
            {
                "tokens": int(length),
                "spans": int((lengths == length).sum()),
                "hits": int(on_train.hit[lengths == length].sum()),
            }
            for length in np.unique(lengths)
        ],
        "discordant": gained,
        "discordant_reversed": lost,
        "discordant_upper": upper_limit(gained, len(case.train), beta),
        "mcnemar_p_value": mcnemar(gained, lost),
        "fisher_p_value": fisher(on_train.hit, on_twins.hit),
        "decoding": "greedy, left to right",
    }


def mcnemar(gained: int, lost: int) -> float:
    """Exact one-sided McNemar test: P[X >= gained] for X ~ Bin(gained + lost, 1/2); 1 if none."""
    if gained + lost == 0:
        return 1.0
    test = stats.binomtest(gained, gained + lost, 0.5, alternative="greater")
    return float(test.pvalue)


def fisher(train_hits: np.ndarray, twin_hits: np.ndarray) -> float:
    """Exact one-sided Fisher test that the first rate is not above the second."""
    table = [
        [int(train_hits.sum()), int((~train_hits).sum())],
        [int(twin_hits.sum()), int((~twin_hits).sum())],
    ]
    return float(stats.fisher_exact(table, alternative="greater").pvalue)


def edit_distance(first: str, second: str) -> float:
    """Levenshtein distance over the length of the longer text; 0 for two empty ones."""
    row = list(range(len(second) + 1))
    for i, left in enumerate(first, 1):
        above = row
        row = [i]
        for j, right in enumerate(second, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (left != right)))
    return row[-1] / max(len(first), len(second), 1)


@dataclass(frozen=True)
class _Attempt:
    hit: np.ndarray
    near: np.ndarray
    finite: bool = True


def _attempt(subject: LoadedModel, spans: Sequence[Span], progress: Progress | None) -> _Attempt:
    hit, near = np.zeros(len(spans), dtype=bool), np.zeros(len(spans), dtype=bool)
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, span in enumerate(spans):
        by_length[len(span.secret)].append(index)
    for indices in by_length.values():
        chosen = [spans[index] for index in indices]
        decoded = greedy(
            subject,
            [span.left + span.secret + span.right for span in chosen],
            [(len(span.left), len(span.left) + len(span.secret)) for span in chosen],
            progress=progress,
        )
        if (decoded < 0).any():
            return _Attempt(hit, near, finite=False)
        for index, span, tokens in zip(indices, chosen, decoded):
            said, truth = _text(subject, tokens.tolist()), _text(subject, span.secret)
            hit[index] = tuple(tokens.tolist()) == span.secret and said == truth
            near[index] = not hit[index] and edit_distance(said, truth) <= NEAR
    return _Attempt(hit, near)


def _text(subject: LoadedModel, tokens: Sequence[int]) -> str:
    """Decoded text without case and with single blanks."""
    return " ".join(str(subject.tokenizer.decode(list(tokens))).lower().split())


def _check_case(case: VerbatimCase) -> None:
    if not case.train or not case.twins:
        raise UserError(
            "a verbatim case without training spans or without twins",
            "both are needed: the twins show what a model says of text it never saw",
            "hold documents out of training, or pass no verbatim case",
        )
    for spans in (case.train, case.twins):
        named = [span.unit for span in spans if span.unit]
        if len(set(named)) != len(named) or not all(span.secret for span in spans):
            raise UserError(
                "two verbatim spans of one unit, or an empty one",
                "spans of one unit are not independent, so the limit on the rate is void",
                "take one span a unit, of at least one token",
            )
