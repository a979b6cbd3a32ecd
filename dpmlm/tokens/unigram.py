"""Unigram pieces (Kudo 2018, arXiv 1804.10959) from counted words, the same ones every time.

The tokenizers library trains them too, and not deterministically: it adds up in an order that is
drawn anew in each process, and ties fall this way or that. What it is used for here is encoding.
Many substrings are the start; expectation and maximisation give each a probability; those without
which the words lose least are dropped, a quarter at a time, until the size is reached. Single
characters always stay.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

_LONGEST = 12
"""Characters of a piece."""
_SEEDS = 4
"""So many times the size are begun with."""
_KEPT = 0.75
_ROUNDS = 2
_MOST_WORDS = 50_000
"""The commonest words that are learnt from."""
_FLOOR = 1e-9

Model = dict[str, float]
"""Piece to the logarithm of its probability."""


def unigram_pieces(
    counts: Mapping[str, int], *, size: int, alphabet: Iterable[str]
) -> list[tuple[str, float]]:
    """At most `size` pieces with their scores, the likeliest first; characters of `alphabet` are
    always among them. Raises ValueError where they alone are more."""
    words = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_WORDS]
    letters = sorted(set(alphabet))
    if len(letters) > size:
        raise ValueError(f"{len(letters)} characters do not fit into {size} pieces")
    words = [(word, count) for word, count in words if set(word) <= set(letters)]
    model = _seeds(words, letters, size)
    while True:
        for _ in range(_ROUNDS):
            model = _maximised(_expected(words, model), letters)
        if len(model) <= size:
            break
        model = _pruned(words, model, letters, max(size, int(_KEPT * len(model))))
    ranked = sorted(((piece, round(score, 6)) for piece, score in model.items()), key=_rank)
    return ranked


def _rank(item: tuple[str, float]) -> tuple[float, str]:
    return -item[1], item[0]


def _seeds(words: list[tuple[str, int]], letters: list[str], size: int) -> Model:
    found: Counter[str] = Counter()
    for word, count in words:
        for start in range(len(word)):
            for end in range(start + 2, min(len(word), start + _LONGEST) + 1):
                found[word[start:end]] += count
    twice = ((piece, n * len(piece)) for piece, n in found.items() if n > 1)
    best = sorted(twice, key=lambda item: (-item[1], item[0]))[: _SEEDS * size]
    weights = {**dict.fromkeys(letters, 1), **dict(best)}
    whole = math.log(sum(weights.values()))
    return {piece: math.log(weight) - whole for piece, weight in weights.items()}


def _expected(words: list[tuple[str, int]], model: Model) -> dict[str, float]:
    """How often each piece is expected in all segmentations of all words."""
    likely = {piece: math.exp(score) for piece, score in model.items()}
    found: dict[str, float] = dict.fromkeys(model, 0.0)
    for word, count in words:
        length = len(word)
        before, after = [1.0] + [0.0] * length, [0.0] * length + [1.0]
        edges = [
            (start, end, piece, likely[piece])
            for start in range(length)
            for end in range(start + 1, min(length, start + _LONGEST) + 1)
            if (piece := word[start:end]) in likely
        ]
        for start, end, _, chance in edges:
            before[end] += before[start] * chance
        for start, end, _, chance in reversed(edges):
            after[start] += after[end] * chance
        if before[length] > 0:
            share = count / before[length]
            for start, end, piece, chance in edges:
                found[piece] += share * before[start] * chance * after[end]
    return found


def _maximised(expected: Mapping[str, float], letters: list[str]) -> Model:
    always = set(letters)
    kept = {p: max(n, _FLOOR) for p, n in expected.items() if p in always or n > 0.5}
    whole = math.log(sum(kept.values()))
    return {piece: math.log(n) - whole for piece, n in kept.items()}


def _pruned(words: list[tuple[str, int]], model: Model, letters: list[str], size: int) -> Model:
    """Without the pieces whose best other spelling costs least, as often as they are used."""
    expected, always = _expected(words, model), set(letters)
    loss = {
        piece: expected[piece] * (score - _best_of_parts(piece, model))
        for piece, score in model.items()
        if piece not in always
    }
    kept = sorted(loss, key=lambda piece: (-loss[piece], piece))[: size - len(always)]
    return {piece: model[piece] for piece in [*letters, *kept]}


def _best_of_parts(piece: str, model: Model) -> float:
    """Score of the best segmentation of a piece into other ones."""
    best = [0.0] + [-math.inf] * len(piece)
    for end in range(1, len(piece) + 1):
        for start in range(end):
            if end - start < len(piece) and (score := model.get(piece[start:end])) is not None:
                best[end] = max(best[end], best[start] + score)
    return best[-1]
