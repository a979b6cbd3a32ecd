"""Pseudo-log-likelihood: every token of a text hidden alone (Salazar et al. 2020, 1910.14659).

The nearest thing a masked language model has to the likelihood of a text. It takes a row a token,
so that it is measured on few documents.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dpmlm.clipping import evaluating, masked_lm_loss, padding_matters
from dpmlm.evaluation.measurement import ROWS, Report
from dpmlm.evaluation.spec import EvaluationSpec
from dpmlm.masking import Example, MaskedBatch, TokenTable, counter_rng
from dpmlm.masking.spec import SPECIALS_PER_ROW


@dataclass(frozen=True)
class Pseudo:
    """Sums over all tokens of some documents, each hidden alone."""

    documents: int
    tokens: int
    """Tokens that were hidden: all but special and unknown ones."""
    nats: float
    """Minus the pseudo-log-likelihood."""
    bytes: int
    """UTF-8 bytes of the documents that were hidden as a whole; 0 where they are not known."""
    nats_with_bytes: float
    """Nats of those."""

    @property
    def perplexity(self) -> float | None:
        """exp(nats a token); None without tokens, inf from 700 nats on."""
        if not self.tokens:
            return None
        mean = self.nats / self.tokens
        return math.inf if mean >= 700 else math.exp(mean)

    @property
    def bits_per_byte(self) -> float | None:
        """Bits of pseudo-likelihood a byte of text; None where bytes are not known.

        Words that the vocabulary cannot spell cost nothing here, and flatter a model with many.
        """
        return self.nats_with_bytes / math.log(2) / self.bytes if self.bytes else None


def pseudo_likelihood(
    model: nn.Module,
    examples: Sequence[Example],
    spec: EvaluationSpec,
    *,
    table: TokenTable,
    documents: int,
    bytes_of: Callable[[Example], int] = lambda example: 0,
    report: Report = lambda done, total: None,
) -> Pseudo:
    """Of `documents` of the examples, chosen by their ids, in the rows of `spec`.

    Each token sees the rest of its row and nothing beyond it. Documents longer than the spec's rows
    are hidden in part and left out of the bits per byte. Raises UserError as `measure` does.
    """
    padded = padding_matters(model, table.vocab_size, window=spec.window)
    chosen = _sample(examples, spec, documents)
    device = next(model.parameters()).device
    nats = np.zeros(len(chosen))
    tokens = 0
    hidden = [
        (number, row, place)
        for number, _, row in spec.rows(chosen)
        for place in np.flatnonzero(~table.special[row.tokens]).tolist()
    ]
    with evaluating(model):
        for begin in range(0, len(hidden), ROWS):
            part = hidden[begin : begin + ROWS]
            batch = _one_hidden([(row, place) for _, row, place in part], spec, table, padded)
            said = masked_lm_loss(model, batch.to(device)).cross_entropies[:, 0].cpu().double()
            np.add.at(nats, [number for number, _, _ in part], said.numpy())
            tokens += len(part)
            report(tokens, len(hidden))
    room = (spec.window - SPECIALS_PER_ROW) * spec.rows_per_document
    sizes = np.array([bytes_of(e) if len(e.tokens) <= room else 0 for e in chosen], dtype=np.int64)
    return Pseudo(
        len(chosen), tokens, float(nats.sum()), int(sizes.sum()), float(nats[sizes > 0].sum())
    )


def _sample(examples: Sequence[Example], spec: EvaluationSpec, count: int) -> list[Example]:
    """The same documents for every model: those whose ids draw the smallest numbers."""

    def drawn(example: Example) -> float:
        return float(counter_rng(spec.seed, "pseudo", example.id, 0).random())

    return sorted((e for e in examples if len(e.tokens)), key=drawn)[:count]


def _one_hidden(
    rows: Sequence[tuple[Example, int]], spec: EvaluationSpec, table: TokenTable, padded: bool
) -> MaskedBatch:
    """A row for each (row, place of the token to hide), K = 1."""
    longest = max(len(row.tokens) for row, _ in rows) + SPECIALS_PER_ROW
    width = spec.window if padded else longest
    ids = np.full((len(rows), width), table.pad_id, dtype=np.int64)
    attention = np.zeros((len(rows), width), dtype=np.int64)
    place = np.array([at for _, at in rows]) + 1
    for b, (row, _) in enumerate(rows):
        end = len(row.tokens) + 1
        ids[b, 0], ids[b, 1:end], ids[b, end] = table.cls_id, row.tokens, table.sep_id
        attention[b, : end + 1] = 1
    every = np.arange(len(rows))
    label = ids[every, place].copy()
    ids[every, place] = table.mask_id
    return MaskedBatch(
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(attention),
        masked_positions=torch.from_numpy(place[:, None]),
        masked_labels=torch.from_numpy(label[:, None]),
        masked_weights=torch.ones(len(rows), 1),
    )
