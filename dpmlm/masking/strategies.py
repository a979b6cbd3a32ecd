"""Strategies: which tokens of each row are masked, for a whole batch at once.

A row's tokens are cut into units, what is masked together: words, spans of words, names. Units are
chosen by `keys` (one uniform for every position) and `turn` (one for the row). Row b of an answer
depends on row b of the arguments alone, which is what keeps a unit of privacy's gradient
independent of the rest of its batch.

In all of them: `keys` float64 [B, T] in [0, 1); `starts` and `pool` bool [B, T], where a unit
begins and which tokens may be chosen; `counts` int64 [B], tokens to choose.
"""

import numpy as np

SPAN_P, SPAN_LONGEST = 0.2, 10
"""Of span lengths in words: geometric, cut off (Joshi et al. 2020, arXiv 1907.10529, section
3.1)."""


def choose_tokens(keys: np.ndarray, pool: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The `counts` tokens of each row with the smallest keys, bool [B, T]: a uniform subset."""
    order = np.argsort(np.where(pool, keys, np.inf), axis=1, kind="stable")
    chosen = np.zeros_like(pool)
    np.put_along_axis(chosen, order, np.arange(keys.shape[1]) < counts[:, None], axis=1)
    return chosen & pool


def choose_units(
    keys: np.ndarray,
    starts: np.ndarray,
    pool: np.ndarray,
    counts: np.ndarray,
    turn: np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Whole units, about `counts` tokens a row and at least one unit, bool [B, T].

    The units are laid in random order around a circle of as many places as the row has tokens, and
    those that begin in an arc of `counts` places are chosen. The arc is drawn, by `turn` float64
    [B], among the arcs in which some unit begins.

    Formal guarantee: in a row every unit is chosen with the same probability, whatever its length:
    each begins in `counts` of the arcs. The tokens chosen are `counts` on average where no unit is
    longer than `counts`, and at most `counts` - 1 + the longest unit.

    With `weights` float64 [B, T] the order is that of Efraimidis and Spirakis 2006 by a unit's mean
    weight, and the arc begins where the order does: heavy units are first.
    """
    rows, width = keys.shape
    unit = np.cumsum(starts, axis=1) - 1
    flat = (np.arange(rows)[:, None] * width + unit)[pool]
    size = np.bincount(flat, minlength=rows * width).reshape(rows, width)
    units = int(starts.sum(axis=1).max(initial=1))  # 1: a column for rows without units
    if weights is not None:
        total = np.bincount(flat, weights[pool], minlength=rows * width).reshape(rows, width)
        mean = np.take_along_axis(total / np.maximum(size, 1), np.maximum(unit, 0), axis=1)
        keys = -np.log1p(-keys) / np.where(starts, mean, 1.0)
    position = np.argsort(np.where(starts, keys, np.inf), axis=1, kind="stable")[:, :units]
    real = np.take_along_axis(starts, position, axis=1)
    number = np.where(real, np.take_along_axis(unit, position, axis=1), 0)
    length = np.where(real, np.take_along_axis(size, number, axis=1), 0)
    end = np.cumsum(length, axis=1)
    arc = np.zeros(rows, dtype=np.int64) if weights is not None else _arc(length, end, counts, turn)
    places = np.maximum(end[:, -1:], 1)
    taken = real & ((end - length - arc[:, None]) % places < counts[:, None])
    chosen_unit = np.zeros((rows, width), dtype=bool)
    row, rank = np.nonzero(taken)
    chosen_unit[row, number[row, rank]] = True
    return np.take_along_axis(chosen_unit, np.maximum(unit, 0), axis=1) & pool


def _arc(length: np.ndarray, end: np.ndarray, counts: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Where each row's arc begins: uniform over the places that have a unit within `counts`.

    Before the unit that begins at `end` of another, `min(counts, length)` places have it within.
    """
    places = np.minimum(length, counts[:, None])
    upto = np.cumsum(places, axis=1)
    drawn = (turn * upto[:, -1]).astype(np.int64)
    rank = np.minimum((upto <= drawn[:, None]).sum(axis=1), length.shape[1] - 1)
    row = np.arange(len(length))
    result: np.ndarray = end[row, rank] - (drawn - upto[row, rank] + places[row, rank])
    return result


def cut_units(
    keys: np.ndarray, starts: np.ndarray, pool: np.ndarray, longest: np.ndarray
) -> np.ndarray:
    """`starts` with units above `longest` int64 [B] tokens cut, at random, into parts of that.

    The first part has 1 to `longest` tokens, by the key of the unit's first token.
    """
    width = keys.shape[1]
    place = np.arange(width)
    first = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
    offset = np.where(pool, place - first, 0)
    if not (offset >= longest[:, None]).any():
        return starts
    unit = np.cumsum(starts, axis=1) - 1
    flat = unit + np.arange(len(unit))[:, None] * width
    size = np.bincount(flat[pool], minlength=unit.size)[np.maximum(flat, 0)]
    phase = (np.take_along_axis(keys, first, axis=1) * longest[:, None]).astype(np.int64)
    cuts = (size > longest[:, None]) & ((offset + phase) % longest[:, None] == 0)
    return starts | (pool & cuts & (offset > 0))


def span_starts(
    uniforms: np.ndarray, starts: np.ndarray, pool: np.ndarray, longest: np.ndarray
) -> np.ndarray:
    """Where spans begin, bool [B, T], if words begin at `starts`: every word is in one span.

    A span has `span_words(uniforms)` words, taken at its first token (float64 [B, T]), or as many
    as fit into `longest` int64 [B] tokens; none goes over a token that is not in the pool, nor over
    the row's end. As all spans are chosen with one probability, lengths stay as they are here.
    """
    rows, width = starts.shape
    word = np.cumsum(starts, axis=1) - 1
    # Of word numbers: the position where each begins, and behind the last the row's end.
    begin = np.full((rows, width + SPAN_LONGEST + 1), width)
    row, position = np.nonzero(starts)
    begin[row, word[row, position]] = position
    found = np.zeros_like(starts)
    found[:, 1:] = starts[:, 1:] & ~pool[:, :-1]
    words = span_words(uniforms)
    each, here = np.arange(rows), begin[:, 0]
    while (live := here < width).any():
        each, here = each[live], here[live]
        found[each, here] = True
        wanted = word[each, here] + words[each, here]
        over = here + longest[each]
        edge = np.minimum(over, width - 1)
        fits = np.where(over < width, word[each, edge] + ~pool[each, edge], wanted)
        here = begin[each, np.maximum(np.minimum(wanted, fits), word[each, here] + 1)]
    return found


def span_words(uniforms: np.ndarray) -> np.ndarray:
    """Span lengths in words, int64 1 to 10: P(n) = p q^(n-1) / (1 - q^10), by its inverse."""
    q = 1 - SPAN_P
    length = np.ceil(np.log1p(-uniforms * (1 - q**SPAN_LONGEST)) / np.log(q))
    return np.clip(length, 1, SPAN_LONGEST).astype(np.int64)
