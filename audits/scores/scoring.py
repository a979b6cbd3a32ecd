"""Log-probabilities and greedy decodings of masked spans, in batches.

A row is CLS, tokens, SEP. The joint score masks the whole span at once, as audit-mode training
does; the left-to-right decode fills it token by token, so that its steps chain to a probability.
Every tensor is made on the model's device. Shapes: N rows, L positions of the span, A tokens of an
alphabet, V vocabulary, T row length.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from audits.models import LoadedModel
from audits.planting.canary import Canary
from dpmlm.artifacts import UserError

Progress = Callable[[int], None]
"""Called with the number of rows that were just scored."""

NOT_FINITE = "its scores are not finite numbers, as after a training that ran away"
"""Why a model cannot be judged by its scores."""

_LOGITS = 1 << 25  # of a batch: 2^25 float32 are 128 MiB
_TOKENS = 1 << 15  # of a batch: in its widest layer a BERT-base holds 384 MiB for so many


def joint_logprobs(
    subject: LoadedModel,
    canaries: Sequence[Canary],
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> np.ndarray:
    """log p of every alphabet token at every position of the span, all of the span masked.

    One forward pass a canary, softmax over the full vocabulary. Returns float64 [N, L, A], A in
    the order of `canary.alphabets`. All canaries have the same L and A. Raises UserError when a
    token is not in the vocabulary or a row is longer than the model's.
    """
    check_fits(subject, [canary.tokens for canary in canaries], [_largest(c) for c in canaries])
    alphabets = np.array([canary.alphabets for canary in canaries], dtype=np.int64)
    result = np.empty(alphabets.shape, dtype=np.float64)
    rows = [masked_row(subject, canary.tokens, canary.secret_span) for canary in canaries]
    starts = [canary.secret_span[0] + 1 for canary in canaries]
    for part in _batches(subject, rows, alphabets.shape[1], batch_size, progress):
        logits_NLV = _span_logits(subject, rows[part], starts[part], alphabets.shape[1])
        logprobs_NLV = torch.log_softmax(logits_NLV.double(), dim=-1)
        picked = logprobs_NLV.gather(2, torch.as_tensor(alphabets[part], device=subject.device))
        result[part] = picked.cpu().numpy()
    return result


def secret_positions(canaries: Sequence[Canary]) -> np.ndarray:
    """Index of each secret token in its alphabet; int64 [N, L]."""
    return np.array(
        [
            [row.index(token) for token, row in zip(canary.secret, canary.alphabets)]
            for canary in canaries
        ],
        dtype=np.int64,
    )


def greedy_in_alphabets(
    subject: LoadedModel,
    canaries: Sequence[Canary],
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> np.ndarray:
    """Decode each span left to right, each token the best of its alphabet; int64 [N, L] ids.

    Rows for which the model gave a logit that is not finite are -1 throughout.
    """
    check_fits(subject, [canary.tokens for canary in canaries], [_largest(c) for c in canaries])
    alphabets = np.array([canary.alphabets for canary in canaries], dtype=np.int64)
    rows = [masked_row(subject, canary.tokens, canary.secret_span) for canary in canaries]
    starts = [canary.secret_span[0] + 1 for canary in canaries]
    return _decode(subject, rows, starts, alphabets.shape[1], alphabets, batch_size, progress)


def greedy(
    subject: LoadedModel,
    rows: Sequence[Sequence[int]],
    spans: Sequence[tuple[int, int]],
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> np.ndarray:
    """Decode a span of each row left to right over the whole vocabulary; int64 [N, L] ids.

    `rows` hold tokens without special ones, `spans` start and end in them, all of one length.
    What stands in a span is masked before the first step. Special tokens are never chosen. Rows
    for which the model gave a logit that is not finite are -1 throughout.
    """
    lengths = {end - start for start, end in spans}
    if len(lengths) != 1:
        raise UserError(
            f"spans of {len(lengths)} lengths",
            "one call decodes spans of one length",
            "group the spans by length",
        )
    check_fits(subject, rows)
    masked = [masked_row(subject, row, span) for row, span in zip(rows, spans)]
    starts = [start + 1 for start, _ in spans]
    return _decode(subject, masked, starts, lengths.pop(), None, batch_size, progress)


def masked_row(subject: LoadedModel, tokens: Sequence[int], span: tuple[int, int]) -> list[int]:
    """CLS, the tokens with those of the span masked, SEP."""
    ids = subject.ids
    hidden = [ids.mask] * (span[1] - span[0])
    return [ids.cls, *tokens[: span[0]], *hidden, *tokens[span[1] :], ids.sep]


def check_fits(
    subject: LoadedModel, rows: Sequence[Sequence[int]], largest: Sequence[int] = ()
) -> None:
    """Raise UserError when a token id or a row length is beyond the model."""
    highest = max([max(row, default=0) for row in rows] + list(largest), default=0)
    if highest >= subject.vocab_size:
        raise UserError(
            f"a vocabulary of {subject.vocab_size}",
            "it does not hold every token id of the canaries or spans",
            "use the vocabulary that they were drawn for",
        )
    if max((len(row) for row in rows), default=0) + 2 > subject.longest_row:
        raise UserError(
            f"a model for rows of {subject.longest_row} tokens",
            "a canary or span with its context is longer",
            "shorten the context, or audit with the window that was trained",
        )


def _decode(
    subject: LoadedModel,
    rows: list[list[int]],
    starts: list[int],
    length: int,
    alphabets: np.ndarray | None,
    batch_size: int,
    progress: Progress | None,
) -> np.ndarray:
    result = np.empty((len(rows), length), dtype=np.int64)
    banned = unsaid(subject)
    for part in _batches(subject, rows, 1, batch_size, progress):
        current, at = [list(row) for row in rows[part]], starts[part]
        sound = np.ones(len(current), dtype=bool)
        for step in range(length):
            logits_NV = _span_logits(subject, current, [s + step for s in at], 1)[:, 0]
            sound &= torch.isfinite(logits_NV).all(dim=-1).cpu().numpy()
            if alphabets is None:
                logits_NV[:, banned] = -torch.inf
                best = logits_NV.argmax(dim=-1).cpu().numpy()
            else:
                choices = torch.as_tensor(alphabets[part, step], device=subject.device)
                index = logits_NV.gather(1, choices).argmax(dim=-1, keepdim=True)
                best = choices.gather(1, index)[:, 0].cpu().numpy()
            result[part, step] = best
            for row, start, token in zip(current, at, best.tolist()):
                row[start + step] = token
        result[part][~sound] = -1
    return result


def _span_logits(
    subject: LoadedModel, rows: Sequence[Sequence[int]], starts: Sequence[int], length: int
) -> Tensor:
    """Logits at `length` positions from `starts` on; float [N, L, V]."""
    return logits_at(subject, rows, np.asarray(starts)[:, None] + np.arange(length)[None, :])


def logits_at(
    subject: LoadedModel, rows: Sequence[Sequence[int]], positions_NL: np.ndarray
) -> Tensor:
    """Logits at L positions of each row; float32 [N, L, V] on the model's device.

    `rows` are whole ones, special tokens included; shorter ones are padded. `positions_NL`
    (int64) point into them, L below the length of the longest. One forward pass.
    """
    return forward_at(
        subject, *padded(subject, rows), torch.as_tensor(positions_NL, device=subject.device)
    )


def padded(subject: LoadedModel, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and attention of rows, shorter ones padded; int64 [N, T] on the model's device."""
    longest, pad = max(len(row) for row in rows), subject.ids.pad
    ids = [[*row, *[pad] * (longest - len(row))] for row in rows]
    attention = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return (
        torch.tensor(ids, device=subject.device),
        torch.tensor(attention, device=subject.device),
    )


@torch.no_grad()
def forward_at(
    subject: LoadedModel, ids_NT: Tensor, attention_NT: Tensor, positions_NL: Tensor
) -> Tensor:
    """`logits_at` of rows that are on the model's device already."""
    with _projected_at(subject, positions_NL):
        logits = subject.model(input_ids=ids_NT, attention_mask=attention_NT).logits
    if logits.shape[1] == ids_NT.shape[1]:  # this model's head lets nothing be picked
        logits = _pick(logits, positions_NL)
    return logits.float()


def unsaid(subject: LoadedModel) -> Tensor:
    """Ids that no decoder says, the special tokens; int64 [S] on the model's device."""
    special = sorted(i for i in set(subject.tokenizer.all_special_ids) if i < subject.vocab_size)
    return torch.tensor(special, dtype=torch.int64, device=subject.device)


def rows_at_once(
    subject: LoadedModel, longest: int, positions: int, batch_size: int = 256, *, each: int = 1
) -> int:
    """Rows of `longest` tokens, asked at `positions` each, that fit in memory at once.

    A row may stand for `each` rows of the batch, as the hypotheses of a beam do. Logits and
    layers of a batch stay below 1 GiB for a BERT-base, whatever the length of its rows.
    """
    picked = isinstance(subject.model.get_output_embeddings(), nn.Linear)
    held = each * (positions if picked else longest) * subject.vocab_size
    return max(1, min(batch_size, _LOGITS // held, _TOKENS // (longest * each)))


@contextmanager
def _projected_at(subject: LoadedModel, span_NL: Tensor) -> Iterator[None]:
    """Project onto the vocabulary at the asked positions alone: most of a small model's time.

    A row is longer than any span, as it holds CLS and SEP, so the caller can tell by the length
    of the logits whether the model's head let its positions be picked.
    """
    head = subject.model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        yield
        return

    def pick(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return (_pick(inputs[0], span_NL), *inputs[1:]) if inputs[0].ndim == 3 else None

    hook = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        hook.remove()


def _pick(values_NTX: Tensor, span_NL: Tensor) -> Tensor:
    rows = torch.arange(len(span_NL), device=span_NL.device)[:, None]
    return values_NTX[rows, span_NL]


def _batches(
    subject: LoadedModel,
    rows: Sequence[Sequence[int]],
    positions: int,
    batch_size: int,
    progress: Progress | None,
) -> Iterator[slice]:
    longest = max((len(row) for row in rows), default=1)
    size = rows_at_once(subject, longest, positions, batch_size)
    for start in range(0, len(rows), size):
        end = min(start + size, len(rows))
        yield slice(start, end)
        if progress is not None:
            progress(end - start)


def _largest(canary: Canary) -> int:
    return max(max(alphabet) for alphabet in canary.alphabets)
