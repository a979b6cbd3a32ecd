"""`make_batch`: examples and visits to a `MaskedBatch`.

One row takes 3 + 2 (window - 2) + 2 K uniforms from the generator of (seed, id, visit), always as
many, in this order: the window, a key for each position of the window, what happens to each slot,
what each slot is replaced by, two turns of the circle of units, a span length for each position.
Rows are then worked on together in numpy.
"""

from collections.abc import Sequence

import numpy as np
import torch

from dpmlm.errors import UserError
from dpmlm.masking.batch import MaskedBatch
from dpmlm.masking.choice import Draws, choose
from dpmlm.masking.example import Example
from dpmlm.masking.randomness import counter_rng
from dpmlm.masking.spec import SPECIALS_PER_ROW, MaskingSpec
from dpmlm.masking.table import TokenTable
from dpmlm.masking.window import maskable_window, secret_window, window_at


def make_batch(
    examples: Sequence[Example],
    visits: Sequence[int],
    *,
    seed: bytes,
    table: TokenTable,
    spec: MaskingSpec,
    window: int,
    stride: int = 1,
    pad_to_window: bool = False,
    step_share: float = 0.0,
) -> MaskedBatch:
    """One row an example: CLS, a window of it, SEP, masked by `spec`; B = len(examples), may be 0.

    `visits[b]` counts how often example b was drawn before: another visit, another window and
    another mask; of a static spec the mask is that of the window. `step_share` is the share of the
    training's steps that are taken, for a spec with a schedule. Rows are padded to the longest of
    the batch, or all to the window where a model's result depends on its padding. K =
    `spec.masked_slots(window)` always. Slots are filled from the left in order of position; unused
    ones have position 0, the padding label and weight 0.

    Formal guarantee: row b, its padding aside, is a function of (seed, examples[b], visits[b],
    step_share, table, spec, window, stride): no other row and no order of rows has a part in it.

    Every example with a maskable token has at least one masked: when the drawn window shows none,
    it is drawn among those that do. An example with a `secret_span` shows all of it, and has
    exactly that span replaced by mask tokens.

    Raises UserError for a secret span longer than K, a token id outside of the vocabulary, lists of
    different lengths, and a strategy of words where the table knows none.
    """
    if len(examples) != len(visits):
        raise UserError(
            f"{len(examples)} examples with {len(visits)} visits",
            "every example has its visit",
            "pass lists of one length",
        )
    table.refuse_unfit(spec)
    slots, room = spec.masked_slots(window), window - SPECIALS_PER_ROW
    uniforms = _uniforms(examples, visits, seed, 3 + 2 * room + 2 * slots)
    content, start, length, secret = _windows(
        examples, uniforms[:, 0], table, slots, window, stride
    )
    if spec.static:
        for row, example, at in zip(uniforms, examples, start, strict=True):
            counter_rng(seed, "static mask", example.id, int(at)).random(out=row[1:])
    if not pad_to_window:
        content = content[:, : max(1, int(length.max(initial=0)))]
    width = content.shape[1]
    edges = np.cumsum([room, slots, slots, 2])
    keys, action, pick, turns, lengths = np.split(uniforms[:, 1:], edges, axis=1)

    inside = np.arange(width) < length[:, None]
    maskable = inside & ~table.special[content]
    counts = spec.counts(maskable.sum(axis=1), step_share)
    names = _names(examples, start, width) if spec.strategy == "entity" else None
    draws = Draws(keys[:, :width], turns, lengths[:, :width])
    chosen, starts = choose(draws, content, maskable, counts, names, table, spec)
    canary = secret[:, 1] > 0
    place = np.arange(width)
    chosen[canary] = (place >= secret[canary, :1]) & (place < secret[canary, 1:])

    position, used = _slots(chosen, slots)
    label = np.where(used, np.take_along_axis(content, position, axis=1), table.pad_id)
    if spec.strategy == "span":
        _share_action(action, starts, position)
    action[canary] = -1.0
    corrupted = _corrupt(label, action, pick, table, spec)
    rows, columns = np.nonzero(used)
    content[rows, position[rows, columns]] = corrupted[rows, columns]
    filled = room if pad_to_window else int(length.max(initial=0))
    return _rows(content, length, filled, np.where(used, position + 1, 0), label, used, table)


def _names(examples: Sequence[Example], start: np.ndarray, width: int) -> np.ndarray:
    """The windows' parts of `Example.names`, uint8 [B, width]."""
    names = np.zeros((len(examples), width), dtype=np.uint8)
    for row, example, at in zip(names, examples, start, strict=True):
        if example.names is not None:
            part = example.names[at : at + width]
            row[: len(part)] = part
    return names


def _share_action(action: np.ndarray, starts: np.ndarray, position: np.ndarray) -> None:
    """Give each slot, in place, what was drawn for the first slot of its span."""
    slot = np.arange(action.shape[1])
    first = np.take_along_axis(starts, position, axis=1) | (slot == 0)
    head = np.maximum.accumulate(np.where(first, slot, 0), axis=1)
    action[:] = np.take_along_axis(action, head, axis=1)


def _uniforms(
    examples: Sequence[Example], visits: Sequence[int], seed: bytes, count: int
) -> np.ndarray:
    uniforms = np.empty((len(examples), count))
    for row, example, visit in zip(uniforms, examples, visits, strict=True):
        counter_rng(seed, "mask", example.id, int(visit)).random(out=row)
    return uniforms


def _windows(
    examples: Sequence[Example],
    uniforms: np.ndarray,
    table: TokenTable,
    slots: int,
    window: int,
    stride: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Content int64 [B, window - 2] padded with pad_id, where it starts in the example, lengths
    [B], secret spans [B, 2] in it."""
    room = window - SPECIALS_PER_ROW
    content = np.full((len(examples), room), table.pad_id, dtype=np.int64)
    start, length = np.zeros((2, len(examples)), dtype=np.int64)
    secret = np.zeros((len(examples), 2), dtype=np.int64)
    for b, example in enumerate(examples):
        uniform = float(uniforms[b])
        if example.secret_span is None:
            part = window_at(example.tokens, room, uniform, stride)
        else:
            _check_secret(example, slots)
            part = secret_window(example, room, uniform)
            secret[b] = [edge - part.start for edge in example.secret_span]
        start[b], length[b] = part.start, part.stop - part.start
        content[b, : length[b]] = example.tokens[part]
    if content.size and not 0 <= content.min() <= content.max() < table.vocab_size:
        _refuse_tokens(table)
    bare = table.special[content] | (np.arange(room) >= length[:, None])
    for b in np.flatnonzero(bare.all(axis=1) & (secret[:, 1] == 0)).tolist():
        start[b] = _show_maskable(
            examples[b], content[b], int(start[b]), float(uniforms[b]), table, stride
        )
    return content, start, length, secret


def _show_maskable(
    example: Example, row: np.ndarray, start: int, uniform: float, table: TokenTable, stride: int
) -> int:
    """Move a row's window, in place, to one with a maskable token, if the example has any; returns
    where it starts then."""
    if len(example.tokens) <= len(row):
        return start
    if not 0 <= example.tokens.min() <= example.tokens.max() < table.vocab_size:
        _refuse_tokens(table)
    part = maskable_window(~table.special[example.tokens], len(row), uniform, stride)
    if part is None:
        return start
    row[:] = example.tokens[part]
    return part.start


def _check_secret(example: Example, slots: int) -> None:
    first, end = example.secret_span or (0, 0)
    if end - first > slots:
        raise UserError(
            f"a canary secret of {end - first} tokens",
            f"a row has {slots} masked slots, and a secret is masked whole",
            "shorten the secret, or raise masking.ratio or tokens.window",
        )


def _refuse_tokens(table: TokenTable) -> None:
    raise UserError(
        "a token id outside of the vocabulary",
        f"ids lie in 0..{table.vocab_size - 1}",
        "use the tokenizer that encoded these documents",
    )


def _slots(chosen: np.ndarray, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the chosen tokens, ascending, and which slots are used, each [B, slots]."""
    position = np.zeros((len(chosen), slots), dtype=np.int64)
    used = np.arange(slots) < chosen.sum(axis=1)[:, None]
    position[used] = np.nonzero(chosen)[1]
    return position, used


def _corrupt(
    label: np.ndarray, action: np.ndarray, pick: np.ndarray, table: TokenTable, spec: MaskingSpec
) -> np.ndarray:
    """What stands in each slot's place, int64 [B, K]: mask token, random ordinary token, itself."""
    ordinary = np.flatnonzero(~table.special)
    replacement = ordinary[(pick * len(ordinary)).astype(np.int64)]
    masked = action < spec.mask_fraction
    random = ~masked & (action < spec.mask_fraction + spec.random_fraction)
    return np.where(masked, table.mask_id, np.where(random, replacement, label))


def _rows(
    content: np.ndarray,
    length: np.ndarray,
    filled: int,
    position: np.ndarray,
    label: np.ndarray,
    used: np.ndarray,
    table: TokenTable,
) -> MaskedBatch:
    """Put CLS and SEP around each row, padded to `filled` content tokens, and hand it to torch."""
    count = len(content)
    width = filled + SPECIALS_PER_ROW
    ids = np.full((count, width), table.pad_id, dtype=np.int64)
    ids[:, 0] = table.cls_id
    ids[:, 1:-1] = content[:, :filled]
    ids[np.arange(count), length + 1] = table.sep_id
    attention = np.arange(width) < (length + SPECIALS_PER_ROW)[:, None]
    return MaskedBatch(
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(attention.astype(np.int64)),
        masked_positions=torch.from_numpy(position),
        masked_labels=torch.from_numpy(np.ascontiguousarray(label)),
        masked_weights=torch.from_numpy(used.astype(np.float32)),
    )
