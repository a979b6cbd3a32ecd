"""Log-probabilities of secret spans under a masked model, by three rules.

Joint: the whole span masked, one input. Left to right: each token given those before it, itself
and the rest of the span masked; its steps chain to a probability. Pseudo-log-likelihood: each
token given all others but the later pieces of its own word, which would give it away
(PLL-word-l2r; Kauf and Ivanova 2023, arXiv 2305.10588).
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch

from audits.models import LoadedModel
from audits.scores.scoring import Progress, check_fits, logits_at, rows_at_once
from dpmlm.artifacts import UserError

Rule = Literal["joint", "left_to_right", "pll_word_l2r"]
RULES: tuple[Rule, ...] = ("joint", "left_to_right", "pll_word_l2r")

Words = Callable[[Sequence[int]], Sequence[int]]
"""From the tokens of a row to the number of the word each is in."""

_Question = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]
"""A masked input and the (position, token) pairs asked of it, positions in the whole row."""

_CHUNK = 4096
_KEPT = 1 << 18


class SpanScorer:
    """Scores spans under one model, each row once.

    What rows of one call have in common (the first step of all secrets of one context, say) is
    one input. Scores are kept under a hash of the row, so a row that is asked again costs nothing;
    the oldest go when there are 2^18.
    """

    def __init__(
        self,
        subject: LoadedModel,
        *,
        words: Words | None = None,
        batch_size: int = 256,
        progress: Progress | None = None,
    ) -> None:
        """`words` tells the words of a row; by default the tokenizer's word marks do."""
        self.inputs = 0
        """Masked inputs that the model has been asked."""
        self._subject, self._batch_size, self._progress = subject, batch_size, progress
        self._words = words or marked_words(subject.tokenizer)
        self._known: dict[bytes, np.ndarray] = {}

    def score(
        self,
        rows: Sequence[Sequence[int]],
        spans: Sequence[tuple[int, int]],
        rule: Rule = "left_to_right",
    ) -> list[np.ndarray]:
        """log p of each token of each span, in nats; float64 of the span's length, one a row.

        `rows` are token ids without special ones, `spans` start and end in them; lengths may
        differ. Softmax over the full vocabulary. NaN where the model gives none. Raises UserError
        on an unknown rule, an empty span or one outside its row, and as `check_fits` does.
        """
        _check(rows, spans, rule)
        check_fits(self._subject, rows)
        keys = [_key(row, span, rule) for row, span in zip(rows, spans)]
        new = {key: at for at, key in enumerate(keys) if key not in self._known}
        fresh = list(new.items())
        for start in range(0, len(fresh), _CHUNK):
            part = fresh[start : start + _CHUNK]
            questions = [self._ask(rows[at], spans[at], rule) for _, at in part]
            for (key, _), values in zip(part, self._answer(questions)):
                self._known[key] = values
        result = [self._known[key] for key in keys]
        for key in list(self._known)[: max(0, len(self._known) - _KEPT)]:
            del self._known[key]
        return result

    def _ask(self, tokens: Sequence[int], span: tuple[int, int], rule: Rule) -> list[_Question]:
        start, end = span
        if rule == "joint":
            asked = tuple((at + 1, tokens[at]) for at in range(start, end))
            return [(self._masked(tokens, range(start, end)), asked)]
        words = self._words(tokens) if rule == "pll_word_l2r" else ()
        questions: list[_Question] = []
        for at in range(start, end):
            if rule == "left_to_right":
                hidden: Sequence[int] = range(at, end)
            else:
                hidden = [i for i in range(at, len(tokens)) if words[i] == words[at]]
            questions.append((self._masked(tokens, hidden), ((at + 1, tokens[at]),)))
        return questions

    def _masked(self, tokens: Sequence[int], hidden: Sequence[int]) -> tuple[int, ...]:
        ids = self._subject.ids
        row = [ids.cls, *tokens, ids.sep]
        for at in hidden:
            row[at + 1] = ids.mask
        return tuple(row)

    def _answer(self, questions: Sequence[Sequence[_Question]]) -> list[np.ndarray]:
        """The answers to each row's questions, in order; an input that recurs is asked once."""
        wanted: dict[tuple[int, ...], dict[tuple[int, int], float]] = {}
        for row in questions:
            for masked, asked in row:
                wanted.setdefault(masked, {}).update(dict.fromkeys(asked, 0.0))
        order = sorted(wanted, key=len, reverse=True)
        positions = max((len({at for at, _ in pairs}) for pairs in wanted.values()), default=1)
        start = 0
        while start < len(order):
            # Longest first, so the first row of a batch is its longest.
            size = rows_at_once(self._subject, len(order[start]), positions, self._batch_size)
            batch = order[start : start + size]
            self._forward(batch, [wanted[row] for row in batch])
            start += size
        return [
            np.array([wanted[masked][pair] for masked, asked in row for pair in asked])
            for row in questions
        ]

    def _forward(
        self, batch: Sequence[tuple[int, ...]], wanted: Sequence[dict[tuple[int, int], float]]
    ) -> None:
        """Fill in the log-probabilities that are wanted of a batch of inputs."""
        columns = [{at: k for k, at in enumerate(sorted({at for at, _ in w}))} for w in wanted]
        width = max(len(column) for column in columns)
        positions = np.array([[*c, *[0] * (width - len(c))] for c in columns])
        logits_NKV = logits_at(self._subject, batch, positions)
        logprobs_NKV = torch.log_softmax(logits_NKV.double(), dim=-1)
        places = [
            (row, columns[row][at], token)
            for row, pairs in enumerate(wanted)
            for at, token in pairs
        ]
        index = torch.tensor(places, device=logprobs_NKV.device).T
        values = iter(logprobs_NKV[index[0], index[1], index[2]].tolist())
        for pairs in wanted:
            for pair in pairs:
                pairs[pair] = next(values)
        self.inputs += len(batch)
        if self._progress is not None:
            self._progress(len(batch))


def marked_words(tokenizer: Any) -> Words:
    """The number of the word that each token is in, by the marks of the vocabulary.

    WordPiece marks pieces that continue a word (`##`); byte-level BPE and SentencePiece mark
    those that begin one, with a blank of their own. A vocabulary without marks is one of words.
    """
    vocabulary, special = tokenizer.get_vocab(), set(tokenizer.all_special_ids)
    begin = tuple(m for m in "Ġ▁" if any(len(p) > 1 and p.startswith(m) for p in vocabulary))

    def number(tokens: Sequence[int]) -> list[int]:
        words: list[int] = []
        previous = None
        for token, piece in zip(tokens, map(str, tokenizer.convert_ids_to_tokens(list(tokens)))):
            alone = previous is None or token in special or previous in special
            continues = piece.startswith("##") or (bool(begin) and not piece.startswith(begin))
            words.append((words[-1] if words else -1) + (alone or not continues))
            previous = token
        return words

    return number


def _key(row: Sequence[int], span: tuple[int, int], rule: str) -> bytes:
    head = f"{rule} {span[0]} {span[1]} ".encode()
    return hashlib.blake2b(head + np.asarray(row, "<i8").tobytes(), digest_size=16).digest()


def _check(rows: Sequence[Sequence[int]], spans: Sequence[tuple[int, int]], rule: str) -> None:
    if rule not in RULES:
        raise UserError(
            f"a score called {rule!r}",
            f"a span is scored by one of {', '.join(RULES)}",
            "ask for left_to_right, which chains to a probability",
        )
    if len(rows) != len(spans) or not all(
        0 <= start < end <= len(row) for row, (start, end) in zip(rows, spans)
    ):
        raise UserError(
            f"{len(rows)} rows with {len(spans)} spans",
            "each row has one span, of at least one token, inside it",
            "count start and end in the tokens without special ones",
        )
