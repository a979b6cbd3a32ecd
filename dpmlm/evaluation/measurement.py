"""`measure`: every masked token of held-out documents, and the figures that follow from them.

A `Measurement` keeps a few numbers of each masked token, so that buckets, groups, calibration and
intervals come from one pass over the text, and measurements of parts join by `+`. What it holds of
private text is private, each number of it and every figure.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from dpmlm.clipping import evaluating, masked_lm_loss, padding_matters
from dpmlm.evaluation.buckets import BUCKETS, WordBuckets
from dpmlm.evaluation.spec import EvaluationSpec
from dpmlm.masking import Example, TokenTable, make_batch

Report = Callable[[int, int], None]
"""Called with (rows done, rows in all)."""
ROWS = 64
"""Rows at once: changes speed and memory alone."""


@dataclass(frozen=True)
class Figures:
    """Averages over masked tokens."""

    tokens: int
    """Masked tokens that were guessed."""
    loss: float
    """Mean cross-entropy in nats a masked token; nan or inf of a model that ran away."""
    perplexity: float
    """exp(loss); inf from 700 nats on."""
    top1: float
    """Share of masked tokens guessed first."""
    top5: float
    """Share of masked tokens among the first five guesses."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a model said of D documents with N masked tokens in all."""

    documents: tuple[str, ...]
    """Ids, [D]."""
    units: tuple[str, ...]
    """Whom each document belongs to, [D]: intervals resample these."""
    content: np.ndarray
    """int64 [D]: tokens of each document, asked about or not."""
    bytes: np.ndarray
    """int64 [D]: UTF-8 bytes of its text; 0 where they are not known."""
    document: np.ndarray
    """int64 [N]: which document a masked token stands in."""
    bucket: np.ndarray
    """int8 [N]: index into `BUCKETS` of its word; -1 where no counts were given."""
    loss: np.ndarray
    """float64 [N]: cross-entropy in nats."""
    first: np.ndarray
    """bool [N]: the first guess was right."""
    five: np.ndarray
    """bool [N]: one of the first five guesses was right."""
    confidence: np.ndarray
    """float64 [N]: probability that the model gave its first guess."""

    def __add__(self, other: "Measurement") -> "Measurement":
        """Both measurements as one; of the same documents they count twice."""
        shifted = other.document + len(self.documents)

        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(self, name), getattr(other, name)])

        return Measurement(
            documents=self.documents + other.documents,
            units=self.units + other.units,
            content=joined("content"),
            bytes=joined("bytes"),
            document=np.concatenate([self.document, shifted]),
            bucket=joined("bucket"),
            loss=joined("loss"),
            first=joined("first"),
            five=joined("five"),
            confidence=joined("confidence"),
        )

    @property
    def figures(self) -> Figures | None:
        """Over all masked tokens; None where there is none."""
        return self.where(np.ones(len(self.loss), dtype=bool))

    @property
    def by_bucket(self) -> dict[str, Figures]:
        """By frequency of the word in public text, rare ones first; empty without counts."""
        found = {name: self.where(self.bucket == b) for b, name in enumerate(BUCKETS)}
        return {name: figures for name, figures in found.items() if figures is not None}

    @property
    def bits_per_byte(self) -> float | None:
        """Bits a byte of text, from masked tokens: mean loss times tokens / bytes / ln 2.

        Does not depend on how many pieces a tokenizer makes of a word. It is not a likelihood:
        most of the text around a masked token is shown (`pseudo_perplexity` hides one at a time).
        None where bytes are not known.
        """
        if self.figures is None or not self.bytes.sum():
            return None
        told = self.bytes > 0
        return self.figures.loss * float(self.content[told].sum() / self.bytes.sum()) / math.log(2)

    def where(self, chosen: np.ndarray) -> Figures | None:
        """Over the masked tokens that `chosen`, bool [N], picks; None where there is none."""
        tokens = int(chosen.sum())
        if tokens == 0:
            return None
        mean = float(self.loss[chosen].mean())
        perplexity = math.inf if mean >= 700 else math.exp(mean)
        top1, top5 = float(self.first[chosen].mean()), float(self.five[chosen].mean())
        return Figures(tokens, mean, perplexity, top1, top5)


def measure(
    model: nn.Module,
    examples: Sequence[Example],
    spec: EvaluationSpec,
    *,
    table: TokenTable,
    buckets: WordBuckets | None = None,
    bytes_of: Callable[[Example], int] = lambda example: 0,
    units: Sequence[str] | None = None,
    report: Report = lambda done, total: None,
) -> Measurement:
    """Ask `model`, in float32 and without dropout, for the masked tokens of `examples`.

    `units` names whom each example belongs to (itself, where not given), `bytes_of` tells the
    UTF-8 bytes of its text. Where a model's results depend on padding, every row is as long as the
    window. Raises UserError for rows that the model has no positions for, and for a tokenizer with
    more ids than the model has embeddings.
    """
    padded = padding_matters(model, table.vocab_size, window=spec.window)
    device = next(model.parameters()).device
    words = [buckets.of(example.tokens) if buckets else None for example in examples]
    # Rows of like length together: less padding.
    rows = sorted(spec.rows(examples), key=lambda row: -len(row[2].tokens))
    found: list[list[np.ndarray]] = []
    with evaluating(model):
        for begin in range(0, len(rows), ROWS):
            part = rows[begin : begin + ROWS]
            batch = make_batch(
                [row for _, _, row in part],
                [0] * len(part),
                seed=spec.seed,
                table=table,
                spec=spec.masking,
                window=spec.window,
                pad_to_window=padded,
            )
            said = masked_lm_loss(model, batch.to(device))
            row, slot = np.nonzero(batch.masked_weights.numpy() > 0)
            place = batch.masked_positions.numpy()[row, slot] - 1  # CLS comes first
            document = np.array([number for number, _, _ in part])[row]
            start = np.array([first for _, first, _ in part])[row]
            found.append([document, _buckets(words, document, start + place)])
            tensors = (said.cross_entropies, said.correct1, said.correct5, said.confidences)
            found[-1] += [tensor.cpu().numpy()[row, slot] for tensor in tensors]
            report(begin + len(part), len(rows))
    document, bucket, loss, first, five, confidence = _columns(found)
    return Measurement(
        documents=tuple(example.id for example in examples),
        units=tuple(units) if units is not None else tuple(example.id for example in examples),
        content=np.array([len(example.tokens) for example in examples], dtype=np.int64),
        bytes=np.array([bytes_of(example) for example in examples], dtype=np.int64),
        document=document.astype(np.int64),
        bucket=bucket.astype(np.int8),
        loss=loss.astype(np.float64),
        first=first.astype(bool),
        five=five.astype(bool),
        confidence=confidence.astype(np.float64),
    )


def _buckets(
    words: Sequence[np.ndarray | None], document: np.ndarray, place: np.ndarray
) -> np.ndarray:
    """Bucket of each masked token, by document and place in it; -1 without counts."""
    held = [words[d] for d in document.tolist()]
    found = [-1 if of is None else of[p] for of, p in zip(held, place.tolist(), strict=True)]
    return np.array(found, dtype=np.int8)


def _columns(found: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    if not found:
        return [np.zeros(0)] * 6
    return [np.concatenate(column) for column in zip(*found, strict=True)]
