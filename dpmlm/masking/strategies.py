"""Strategies: which tokens of each row are masked, for a whole batch at once.

A strategy maps `keys` (one uniform for every position of every row) to chosen positions. Row b of
the answer depends on row b of the arguments alone, which is what keeps a unit's gradient
independent of the rest of its batch.
"""

import numpy as np


def choose_tokens(keys: np.ndarray, maskable: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The `counts` [B] maskable tokens of each row with the smallest keys, bool [B, T].

    `keys` float64 [B, T], `maskable` bool [B, T]; a uniform subset of `counts` tokens.
    """
    order = np.argsort(np.where(maskable, keys, np.inf), axis=1, kind="stable")
    chosen = np.zeros_like(maskable)
    np.put_along_axis(chosen, order, np.arange(keys.shape[1]) < counts[:, None], axis=1)
    return chosen & maskable


def choose_words(
    keys: np.ndarray, maskable: np.ndarray, starts: np.ndarray, counts: np.ndarray, slots: int
) -> np.ndarray:
    """Whole words in random order while they fit into `counts` [B] tokens a row, bool [B, T].

    `starts` bool [B, T] marks the first piece of each word, whose key orders the words. The rule:

    1. take words in order; skip a word that no longer fits, go on with the next;
    2. when no word fits, the first word of at most `slots` (K) pieces, whole, though it is above
       the row's count;
    3. when every word is longer than K, the first `counts` pieces of the first word: the only
       case in which a word is split, and then no other word of the row is touched.
    """
    rows, width = keys.shape
    word = np.cumsum(starts, axis=1) - 1
    flat = (np.arange(rows)[:, None] * width + word)[maskable]
    size = np.bincount(flat, minlength=rows * width).reshape(rows, width)
    words = int(starts.sum(axis=1).max(initial=1))  # 1: a column for rows without words
    # Words in random order: their start positions sorted by key, then their numbers and sizes.
    position = np.argsort(np.where(starts, keys, np.inf), axis=1, kind="stable")[:, :words]
    real = np.take_along_axis(starts, position, axis=1)
    number = np.where(real, np.take_along_axis(word, position, axis=1), 0)
    length = np.where(real, np.take_along_axis(size, number, axis=1), width + 1)
    taken = _fill(length, counts)
    _fall_back(taken, length, real, slots)
    chosen_word = np.zeros((rows, width), dtype=bool)
    row, rank = np.nonzero(taken)
    chosen_word[row, number[row, rank]] = True
    chosen = np.take_along_axis(chosen_word, np.maximum(word, 0), axis=1) & maskable
    # Rule 3 of the docstring: a word above K is cut to the row's count.
    keep = np.where(chosen.sum(axis=1) > slots, counts, width)
    return chosen & (np.cumsum(chosen, axis=1) <= keep[:, None])


def _fill(length: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Greedy by rank: bool [B, W], the words taken in order while they fit into `counts` [B]."""
    taken = np.zeros(length.shape, dtype=bool)
    left = counts.copy()
    for rank in range(length.shape[1]):
        fits = length[:, rank] <= left
        taken[:, rank] = fits
        left -= np.where(fits, length[:, rank], 0)
        if not left.any():
            break
    return taken


def _fall_back(taken: np.ndarray, length: np.ndarray, real: np.ndarray, slots: int) -> None:
    """Rules 2 and 3 for rows that have words but took none: one word for each, in place."""
    row = np.flatnonzero(real.any(axis=1) & ~taken.any(axis=1))
    fits = length[row] <= slots
    # argmax of a row without any true value is 0: the first word in order, which rule 3 cuts.
    taken[row, fits.argmax(axis=1)] = True
