"""The exact rank of a secret by its left-to-right score, in a tree of prefixes.

What follows a prefix is masked, so one input scores all its next tokens: six digits take 111,111
inputs for 10^6 candidates. Log-probabilities are never positive, so a prefix that has fallen below
the secret's whole score leads to no candidate above it and is dropped. Probabilities of prefixes
of one length sum to at most 1, so about 1/p of them stay for a secret of probability p: a
memorised secret is ranked in a space of any size.
"""

from dataclasses import dataclass

import numpy as np
import torch

from audits.exposures.exposure import Exposure
from audits.exposures.ranks import units
from audits.models import LoadedModel
from audits.planting.canaries import Canary
from audits.scores.scoring import Progress, check_fits, logits_at, masked_row, rows_at_once
from audits.scores.sequence import SpanScorer
from dpmlm.artifacts import UserError

MOST_INPUTS = 1 << 18
"""Inputs after which a tree is given up; six digits stay below."""


@dataclass(frozen=True)
class TreeRank:
    """Where a secret stands among the product of its alphabets, by the left-to-right score."""

    exposure: Exposure
    """In bits, under both conventions for ties."""
    inputs: int
    """Masked inputs that the tree asked of the model."""


def left_to_right_exposure(
    subject: LoadedModel,
    canary: Canary,
    *,
    most_inputs: int = MOST_INPUTS,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> TreeRank:
    """Exact exposure of a canary's secret by the left-to-right score, in units of 1/512 nat.

    Raises UserError on scores that are NaN, on rows or ids beyond the model, and when more than
    `most_inputs` would be needed, as for an unlikely secret in a large space: sample then.
    """
    check_fits(subject, [canary.tokens, [max(map(max, canary.alphabets))]])
    path = [row.index(token) for token, row in zip(canary.secret, canary.alphabets)]
    first = SpanScorer(subject).score([canary.tokens], [canary.secret_span])[0]
    # Two batches of one input may round to neighbouring units: a unit a position of slack. The
    # secret is compared at the end by the score that the tree itself gave it.
    floor = float(units(first).sum()) - len(path)
    prefixes, scores, own = np.empty((1, 0), dtype=np.int64), np.zeros(1), 0
    inputs = 0
    for index in path:
        inputs += len(prefixes)
        _check_size(inputs, most_inputs)
        grown = scores[:, None] + _next_units(subject, canary, prefixes, batch_size, progress)
        kept = grown >= floor
        kept[own, index] = True
        rows, choices = np.nonzero(kept)
        own = int(np.flatnonzero((rows == own) & (choices == index))[0])
        prefixes = np.concatenate([prefixes[rows], choices[:, None]], axis=1)
        scores = grown[rows, choices]
    higher, equal = int((scores > scores[own]).sum()), int((scores == scores[own]).sum())
    return TreeRank(Exposure.of(higher, equal, canary.space_bits), inputs)


def _next_units(
    subject: LoadedModel,
    canary: Canary,
    prefixes: np.ndarray,
    batch_size: int,
    progress: Progress | None,
) -> np.ndarray:
    """Scores of every next token after every prefix (indices in the alphabets); [F, A]."""
    depth, start = prefixes.shape[1], canary.secret_span[0] + 1
    row = np.array(masked_row(subject, canary.tokens, canary.secret_span), dtype=np.int64)
    choices = torch.tensor(canary.alphabets[depth], device=subject.device)
    size = rows_at_once(subject, len(row), 1, batch_size)
    result = np.empty((len(prefixes), len(choices)))
    for begin in range(0, len(prefixes), size):
        part = prefixes[begin : begin + size]
        rows = np.tile(row, (len(part), 1))
        for position in range(depth):
            tokens = np.array(canary.alphabets[position], dtype=np.int64)
            rows[:, start + position] = tokens[part[:, position]]
        places = torch.full((len(part), 1), start + depth)
        logprobs_FV = torch.log_softmax(
            logits_at(subject, rows.tolist(), places)[:, 0].double(), dim=-1
        )
        result[begin : begin + size] = units(logprobs_FV[:, choices].cpu().numpy())
        if progress is not None:
            progress(len(part))
    return result


def _check_size(inputs: int, most_inputs: int) -> None:
    if inputs > most_inputs:
        raise UserError(
            f"a prefix tree of more than {most_inputs} inputs",
            "the exact left-to-right rank needs one for each prefix at least as likely as the"
            " secret",
            "sample alternatives instead, or allow more inputs",
        )
