"""One row at a time, in loops: what make_batch has to give."""

import math
from collections.abc import Sequence

import numpy as np

from dpmlm.masking import Example, MaskingSpec, TokenTable, counter_rng
from dpmlm.masking.window import window_starts

SEED = b"mask seed"
LONGEST = {"token": 1, "whole_word": 6, "span": 10, "entity": 10}


def ratio_of(spec: MaskingSpec, share: float) -> float:
    end = spec.ratio if spec.ratio_end is None else spec.ratio_end
    return spec.ratio + share * (end - spec.ratio) if share < 1 else end


def slots_of(spec: MaskingSpec, window: int) -> int:
    full = max(max(1, round(ratio_of(spec, share) * (window - 2))) for share in (0, 1))
    return min(window - 2, full + LONGEST[spec.strategy] - 1)


def naive_words(
    tokens: Sequence[int], table: TokenTable, pool: Sequence[int] | None = None
) -> list[list[int]]:
    """Positions of each word."""
    words: list[list[int]] = []
    open_word = False
    head_closes = False
    for position, token in enumerate(tokens):
        if table.special[token] or (pool is not None and position not in pool):
            open_word = False
            continue
        apart = not words or words[-1][-1] != position - 1
        clings = table.clings is not None and table.clings[token] and not apart
        if clings or (table.continuation[token] and open_word and not apart):
            words[-1].append(position)
        else:
            words.append([position])
        if not clings:
            head_closes = bool(table.closes[token])
        open_word = not (head_closes or table.closes[token])
    return words


def naive_parts(words: list[list[int]], keys: np.ndarray, longest: int) -> list[list[int]]:
    """Words that are too long in parts."""
    parts = []
    for word in words:
        if len(word) <= longest:
            parts.append(word)
            continue
        phase = int(keys[word[0]] * longest)
        rest, size = list(word), longest - phase
        while rest:
            parts.append(rest[:size])
            rest, size = rest[size:], longest
    return parts


def naive_spans(
    words: list[list[int]], lengths: np.ndarray, longest: int, width: int
) -> list[list[int]]:
    spans, rest = [], list(words)
    while rest:
        count = span_words(float(lengths[rest[0][0]]))
        span = [rest.pop(0)]
        while rest and len(span) < count and rest[0][-1] < span[0][0] + longest:
            span.append(rest.pop(0))
        flat = [position for word in span for position in word]
        cut = [flat[0]]
        for position in flat[1:]:
            if position != cut[-1] + 1:
                spans.append(cut)
                cut = []
            cut.append(position)
        spans.append(cut)
    return spans


def span_words(uniform: float) -> int:
    """The first length whose distribution function is not below the uniform."""
    weights = [0.2 * 0.8 ** (k - 1) for k in range(1, 11)]
    total = 0.0
    for length, weight in enumerate(weights, start=1):
        total += weight / sum(weights)
        if uniform <= total:
            return length
    return 10


def naive_units(
    units: list[list[int]],
    keys: np.ndarray,
    count: int,
    turn: float,
    weights: np.ndarray | None = None,
) -> list[list[int]]:
    """Units that begin in an arc of `count` places, among the arcs in which one begins."""
    if not units or count == 0:
        return []

    def rank(unit: list[int]) -> float:
        if weights is None:
            return float(keys[unit[0]])
        return -math.log1p(-keys[unit[0]]) / float(np.mean([weights[i] for i in unit]))

    order = sorted(units, key=rank)
    begin, at = {}, 0
    for unit in order:
        begin[at] = unit
        at += len(unit)
    if weights is not None:
        return [unit for place, unit in begin.items() if place < count]
    places = at
    arcs = []
    for place, unit in begin.items():
        end = place + len(unit)
        arcs += [end - before for before in range(min(count, len(unit)))]
    arc = arcs[int(turn * len(arcs))]
    assert all(any((a + k) % places in begin for k in range(count)) for a in arcs)
    return [begin[(arc + k) % places] for k in range(count) if (arc + k) % places in begin]


def naive_row(
    example: Example,
    visit: int,
    table: TokenTable,
    spec: MaskingSpec,
    window: int,
    stride: int,
    share: float = 0.0,
) -> tuple[list[int], list[int], list[int]]:
    """(input ids, masked positions, labels) of one row without its padding."""
    slots, room = slots_of(spec, window), window - 2
    rng = counter_rng(SEED, "mask", example.id, visit)
    first = rng.random()
    starts = list(window_starts(len(example.tokens), room, stride))
    start = int(starts[int(first * len(starts))])
    if spec.static:
        rng = counter_rng(SEED, "static mask", example.id, start)
    keys, action, pick = rng.random(room), rng.random(slots), rng.random(slots)
    turns, lengths = rng.random(2), rng.random(room)
    tokens = [int(t) for t in example.tokens[start : start + room]]
    names = None if example.names is None else example.names[start : start + room]
    units = naive_choice(tokens, keys, turns, lengths, names, table, spec, share)
    ordinary = [i for i in range(table.vocab_size) if not table.special[i]]
    labels, row, positions = [], list(tokens), []
    for unit in units:
        first_slot = len(positions)
        for position in unit:
            slot = len(positions)
            positions.append(position)
            labels.append(tokens[position])
            drawn = action[first_slot if spec.strategy == "span" else slot]
            if drawn < spec.mask_fraction:
                row[position] = table.mask_id
            elif drawn < spec.mask_fraction + spec.random_fraction:
                row[position] = ordinary[int(pick[slot] * len(ordinary))]
    return [table.cls_id, *row, table.sep_id], [p + 1 for p in positions], labels


def naive_choice(
    tokens: list[int],
    keys: np.ndarray,
    turns: np.ndarray,
    lengths: np.ndarray,
    names: np.ndarray | None,
    table: TokenTable,
    spec: MaskingSpec,
    share: float,
) -> list[list[int]]:
    """The units that are masked, in order of position."""
    maskable = [i for i, token in enumerate(tokens) if not table.special[token]]
    if not maskable:
        return []
    weights = None if table.weights is None else np.array([table.weights[t] for t in tokens])
    budget = max(1, round(ratio_of(spec, share) * len(maskable)))
    longest = min(LONGEST[spec.strategy], 2 * budget)
    if spec.strategy == "token":
        rank = keys if weights is None else -np.log1p(-keys[: len(tokens)]) / weights
        return [[i] for i in sorted(sorted(maskable, key=lambda i: rank[i])[:budget])]
    pool, chosen = maskable, []
    if spec.strategy == "entity" and names is not None:
        named = [i for i in maskable if names[i]]
        pool = [i for i in maskable if not names[i]]
        found: list[list[int]] = []
        for i in named:
            if names[i] == 2 and found and found[-1][-1] == i - 1:
                found[-1].append(i)
            else:
                found.append([i])
        wanted = max(1, round(spec.entity_share * budget), budget - len(pool))
        parts = naive_parts(found, keys, longest)
        chosen = naive_units(parts, keys, min(wanted, len(named)), turns[1], weights)
        budget = min(len(pool), max(0, budget - sum(len(unit) for unit in chosen)))
    words = naive_parts(naive_words(tokens, table, pool), keys, longest)
    if spec.strategy == "span":
        words = naive_spans(words, lengths, longest, len(tokens))
    return sorted(chosen + naive_units(words, keys, budget, turns[0], weights))
