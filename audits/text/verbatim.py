"""Verbatim extraction: can real text be read back out of a model, token for token?

Real spans of the private corpus, their held-out twins, and a reference model that read neither.
One declared cell may decide: greedy from left to right, every span as it was drawn. The cells of
the grid explore with other decoders, lengths and contexts; they are counted and never decide.
All figures are private.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from audits.models import LoadedModel
from audits.scores.decoding import span_logprobs
from audits.scores.scoring import NOT_FINITE, Progress
from audits.statistics import clopper_pearson, holm, upper_limit
from audits.text.attempts import Attempt, Decode, attempt, decoder, left_to_right
from audits.text.spans import STANDARD_SPANS, Cell, Span, VerbatimCase, cells, cut
from dpmlm.artifacts import UserError

RATE = 1e-3
"""Discordant rate that a strict policy asks for: 2,995 spans without a hit (audits.md 6)."""
TRIES = (1, 10, 100, 1000, 10**6)
"""Tries that probabilistic extraction is reckoned for."""
TARGETS = (0.1, 0.5, 0.9)
"""Chances of success that probabilistic extraction counts spans at."""
DUPLICATES = ((0, 0), (1, 1), (2, 3), (4, 15), (16, None))
"""Least and most surviving duplicates that are counted together."""


@dataclass(frozen=True)
class _Arms:
    """Spans that are tried: of training (by both models) and held-out twins (by the target)."""

    train: list[Span]
    twins: list[Span]

    @property
    def rows(self) -> int:
        """Spans decoded, over all arms."""
        return 2 * len(self.train) + len(self.twins)


def verbatim(
    target: LoadedModel,
    reference: LoadedModel,
    case: VerbatimCase,
    *,
    beta: float = 0.05,
    rate: float = RATE,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Decode every span greedily left to right, then the cells of the grid; private counts.

    A hit is equal token ids and equal normalised text; near hits (normalised edit distance at
    most 0.1) are apart. `mcnemar_p_value`: more spans right by the target alone than by the
    reference alone (exact, one-sided). `fisher_p_value`: training spans hit more often than
    twins. `discordant_upper`: one-sided Clopper-Pearson limit at `beta` on the rate of spans that
    the target has and the reference has not; `bound` says how many spans are missing before that
    limit could come down to `rate`. `duplicates`: hits by what survives of the span's document
    elsewhere in training. `grid` explores: see `audits.text.spans`.

    Spans with a special token in them are left out, as no decoder says one. Not applicable, with
    the number that is missing, where no span is left, or a model's scores are not finite. Raises
    UserError for two spans of one unit or an empty one.
    """
    _check_case(case)
    arms, unsayable = _sayable(target, _Arms(list(case.train), list(case.twins)))
    if not arms.train or not arms.twins:
        return _no_spans(arms, unsayable)
    if progress is not None:
        progress(2 * unsayable["train"] + unsayable["twins"])
    attempts = _attempts(target, reference, arms, left_to_right, progress)
    if isinstance(attempts, str):
        return {"label": "private", "applicable": False, "reason": attempts}
    found = _compared(*attempts, beta)
    lengths = np.array([len(span.secret) for span in arms.train])
    hit = attempts[0].hit
    return {
        "label": "private",
        "declared": _declared(arms.train),
        **found,
        "unsayable": unsayable,
        "by_length": [
            {
                "tokens": int(length),
                "spans": int((lengths == length).sum()),
                "hits": int(hit[lengths == length].sum()),
            }
            for length in np.unique(lengths)
        ],
        "bound": bound(found["discordant"], len(arms.train), rate, beta),
        "duplicates": _by_duplicates(arms.train, attempts[0], attempts[2]),
        "decoding": "greedy, left to right",
        "grid": _grid(target, reference, case, beta, progress),
    }


def verbatim_rows(target: LoadedModel, reference: LoadedModel, case: VerbatimCase) -> int:
    """Rows that `verbatim` reports to `progress` in all."""
    explored = [_arms_of(target, reference, case, cell) for cell in cells(case.grid)]
    declared = 2 * len(case.train) + len(case.twins)
    return declared + sum(arms.rows for arms in explored if isinstance(arms, _Arms))


def bound(discordant: int, spans: int, rate: float = RATE, beta: float = 0.05) -> dict[str, Any]:
    """Whether the upper limit can be as low as `rate`, and how many spans are missing if not."""
    needed = spans_needed(rate, beta, discordant)
    return {"rate": rate, "spans_needed": needed, "spans_missing": max(0, needed - spans)}


def spans_needed(rate: float, beta: float = 0.05, discordant: int = 0) -> int:
    """Least number of spans with which `discordant` of them keep the upper limit at `rate`.

    Without a discordant span ln(beta)/ln(1 - rate), rounded up. Raises UserError for a rate
    outside (0, 1).
    """
    if not 0 < rate < 1:
        raise UserError(
            f"a rate of {rate}", "a rate lies between 0 and 1, both excluded", "pass 0.001"
        )
    low, high = discordant, discordant + 1
    while upper_limit(discordant, high, beta) > rate:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if upper_limit(discordant, middle, beta) > rate:
            low = middle
        else:
            high = middle
    return high


def extraction_chance(logprobs: np.ndarray, tries: int) -> np.ndarray:
    """1 - (1 - p)^n: the chance that n samples say a span at least once; float64 [N].

    Hayes et al. 2024 (arXiv 2410.19482): a span is (n, p)-extractable when this reaches p. Here
    `logprobs` [N] are log-probabilities of saying it in one sample, -inf where it never is.
    """
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(tries * np.log1p(-np.exp(np.minimum(logprobs, 0.0)))))


def mcnemar(gained: int, lost: int) -> float:
    """Exact one-sided McNemar test: P[X >= gained] for X ~ Bin(gained + lost, 1/2); 1 if none."""
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue)


def fisher(train_hits: np.ndarray, twin_hits: np.ndarray) -> float:
    """Exact one-sided Fisher test that the first rate is not above the second."""
    table = [
        [int(train_hits.sum()), int((~train_hits).sum())],
        [int(twin_hits.sum()), int((~twin_hits).sum())],
    ]
    return float(stats.fisher_exact(table, alternative="greater").pvalue)


def _attempts(
    target: LoadedModel,
    reference: LoadedModel,
    arms: _Arms,
    decode: Decode,
    progress: Progress | None,
) -> tuple[Attempt, Attempt, Attempt] | str:
    """Target on training spans, target on twins, reference on training spans; or what is amiss."""
    # A twin's key is no training span's: their draws are independent, as Fisher's test asks.
    on_train = attempt(target, arms.train, decode, 0, progress)
    on_twins = attempt(target, arms.twins, decode, 1, progress)
    by_reference = attempt(reference, arms.train, decode, 0, progress)
    if not (on_train.finite and on_twins.finite and by_reference.finite):
        return _not_finite(by_reference.finite)
    return on_train, on_twins, by_reference


def _not_finite(reference_is_finite: bool) -> str:
    return f"{'the model' if reference_is_finite else 'the reference'}: {NOT_FINITE}"


def _compared(
    on_train: Attempt, on_twins: Attempt, by_reference: Attempt, beta: float
) -> dict[str, Any]:
    gained = int((on_train.hit & ~by_reference.hit).sum())
    lost = int((~on_train.hit & by_reference.hit).sum())
    arms = {"train": on_train, "twins": on_twins, "reference": by_reference}
    hits = {name: int(arm.hit.sum()) for name, arm in arms.items()}
    return {
        "spans": {"train": len(on_train.hit), "twins": len(on_twins.hit)},
        "hits": hits,
        "near_hits": {name: int(arm.near.sum()) for name, arm in arms.items()},
        "rate_interval": {
            name: clopper_pearson(hits[name], len(arm.hit)) for name, arm in arms.items()
        },
        "discordant": gained,
        "discordant_reversed": lost,
        "discordant_upper": upper_limit(gained, len(on_train.hit), beta),
        "mcnemar_p_value": mcnemar(gained, lost),
        "fisher_p_value": fisher(on_train.hit, on_twins.hit),
    }


def _declared(spans: list[Span]) -> dict[str, Any]:
    """The cell that a policy may decide by, as it was drawn before any score."""
    return {
        "decoder": "greedy",
        "tokens": sorted({len(span.secret) for span in spans}),
        "context": "all that the window holds",
        "context_at_least": {
            "left": min(len(span.left) for span in spans),
            "right": min(len(span.right) for span in spans),
        },
        "decides": "discordant_upper",
    }


def _linked(spans: list[Span], on_train: Attempt) -> dict[str, Any]:
    """Hits on documents of which other training units hold a duplicate, and on the others."""
    counts = _counted(spans)
    if (counts < 0).all():
        return {"applicable": False, "reason": "nobody counted the duplicates", "spans": 0}
    return {
        "spans": int((counts >= 0).sum()),
        "hits_on_duplicated": int(on_train.hit[counts > 0].sum()),
        "hits_on_unique": int(on_train.hit[counts == 0].sum()),
    }


def _counted(spans: list[Span]) -> np.ndarray:
    """Duplicates of each span's document, -1 where nobody counted; int64 [N]."""
    return np.array([-1 if span.duplicates is None else span.duplicates for span in spans])


def _by_duplicates(spans: list[Span], on_train: Attempt, by_reference: Attempt) -> dict[str, Any]:
    """Hits by how many other training units hold the document or a near-duplicate."""
    linked, counts, parts = _linked(spans, on_train), _counted(spans), []
    if not linked["spans"]:
        return linked
    for least, most in DUPLICATES:
        inside = (counts >= least) & (counts <= (counts.max() if most is None else most))
        spans_in, hits = int(inside.sum()), int(on_train.hit[inside].sum())
        parts.append(
            {
                "least": least,
                "most": most,
                "spans": spans_in,
                "hits": hits,
                "near_hits": int(on_train.near[inside].sum()),
                "reference_hits": int(by_reference.hit[inside].sum()),
                "rate_interval": clopper_pearson(hits, spans_in) if spans_in else None,
            }
        )
    return linked | {"by_count": parts}


def _grid(
    target: LoadedModel,
    reference: LoadedModel,
    case: VerbatimCase,
    beta: float,
    progress: Progress | None,
) -> dict[str, Any]:
    """The exploratory cells, how many tests they were, and which are left by Holm over them."""
    run: list[dict[str, Any]] = []
    p_values: dict[str, float] = {}
    for number, cell in enumerate(cells(case.grid)):
        arms = _arms_of(target, reference, case, cell)
        if isinstance(arms, dict):
            found = arms
        elif cell.decoder == "sampling":
            found = _sampled(target, reference, arms, progress)
        else:
            decode = decoder(cell, case.seed)
            attempts = _attempts(target, reference, arms, decode, progress)
            found = (
                {"applicable": False, "reason": attempts}
                if isinstance(attempts, str)
                else _compared(*attempts, beta) | {"duplicates": _linked(arms.train, attempts[0])}
            )
        for test in ("mcnemar_p_value", "fisher_p_value"):
            if test in found:
                p_values[f"{number} {test}"] = found[test]
        run.append({**vars(cell), **found})
    left = [name.split() for name in holm(p_values, beta)]
    return {
        "name": case.grid,
        "exploratory": True,
        "spans_at_most": STANDARD_SPANS if case.grid == "standard" else None,
        "cells_run": sum(found.get("applicable", True) for found in run),
        "tests_run": len(p_values),
        "rejected": [{"cell": int(number), "test": test} for number, test in left],
        "cells": run,
    }


def _arms_of(
    target: LoadedModel, reference: LoadedModel, case: VerbatimCase, cell: Cell
) -> _Arms | dict[str, Any]:
    """The spans of a cell, or why it cannot be run and what is missing."""
    longest = min(target.longest_row, reference.longest_row)
    if cell.length + 2 > longest:
        return {
            "applicable": False,
            "reason": f"a row of {cell.length + 2} tokens; a model takes {longest}",
            "missing": {"row_tokens": cell.length + 2 - longest},
        }
    cuts = [[cut(span, cell) for span in spans] for spans in (case.train, case.twins)]
    arms, _ = _sayable(target, _Arms(*([span for span in spans if span] for spans in cuts)))
    if not arms.train or not arms.twins:
        held = min(
            max((len(s.row) for s in spans), default=0) for spans in (case.train, case.twins)
        )
        return {
            "applicable": False,
            "reason": f"no span with a window of {cell.length} tokens and no special one in it",
            "missing": {"window_tokens": max(0, cell.length - held)},
            "spans": {"train": len(arms.train), "twins": len(arms.twins)},
        }
    most = STANDARD_SPANS if case.grid == "standard" else None
    return _Arms(arms.train[:most], arms.twins[:most])


def _sayable(subject: LoadedModel, arms: _Arms) -> tuple[_Arms, dict[str, int]]:
    """Without spans that hold a special token, such as an unknown word, and how many those are."""
    special = set(subject.tokenizer.all_special_ids)
    train, twins = (
        [span for span in spans if special.isdisjoint(span.secret)]
        for spans in (arms.train, arms.twins)
    )
    left_out = {
        "train": len(arms.train) - len(train),
        "twins": len(arms.twins) - len(twins),
    }
    return _Arms(train, twins), left_out


def _sampled(
    target: LoadedModel, reference: LoadedModel, arms: _Arms, progress: Progress | None
) -> dict[str, Any]:
    """Probabilistic extraction: what n samples from left to right would say."""

    def chances(subject: LoadedModel, spans: list[Span]) -> np.ndarray:
        rows, places = [span.row for span in spans], [span.place for span in spans]
        return span_logprobs(subject, rows, places, progress=progress)

    found = {
        "train": chances(target, arms.train),
        "twins": chances(target, arms.twins),
        "reference": chances(reference, arms.train),
    }
    if any(np.isnan(logprobs).any() for logprobs in found.values()):
        reason = _not_finite(not np.isnan(found["reference"]).any())
        return {"applicable": False, "reason": reason}
    return {
        "spans": {"train": len(arms.train), "twins": len(arms.twins)},
        "by_tries": [
            {
                "tries": tries,
                "expected_hits": {
                    name: float(extraction_chance(logprobs, tries).sum())
                    for name, logprobs in found.items()
                },
                "spans_at": {
                    str(chance): {
                        name: int((extraction_chance(logprobs, tries) >= chance).sum())
                        for name, logprobs in found.items()
                    }
                    for chance in TARGETS
                },
            }
            for tries in TRIES
        ],
    }


def _no_spans(arms: _Arms, unsayable: dict[str, int]) -> dict[str, Any]:
    return {
        "label": "private",
        "applicable": False,
        "reason": (
            f"{len(arms.train)} training spans and {len(arms.twins)} held-out twins: "
            "one of each is needed at least, and the twins show what a model says of text "
            "that it never saw"
        ),
        "missing": {"train": int(not arms.train), "twins": int(not arms.twins)},
        "unsayable": unsayable,
    }


def _check_case(case: VerbatimCase) -> None:
    for spans in (case.train, case.twins):
        named = [span.unit for span in spans if span.unit]
        if len(set(named)) != len(named) or not all(span.secret for span in spans):
            raise UserError(
                "two verbatim spans of one unit, or an empty one",
                "spans of one unit are not independent, so the limit on the rate is void",
                "take one span a unit, of at least one token",
            )
