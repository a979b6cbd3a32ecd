"""Passages that many documents have word for word: signatures, notices, quoted mails.

Such boilerplate is what a model learns by heart from documents that differ otherwise (Lee et al.
2022, "Deduplicating Training Data Makes Language Models Better"). A passage is a run of at least
so many words, whatever their case and punctuation, all of whose windows stand in more than so
many documents. Found exactly, in passes over the documents:

1. every window is hashed (64 bits, a polynomial over its words), and the hashes of too few
   documents are dropped; where windows are too many for memory, part of them after part;
2. of the windows that are left the words themselves are compared, by SHA-256, so that a collision
   of hashes neither makes a passage nor hides one;
3. the windows that stood the proof are joined to passages.

Each window is kept by the document with the smallest id that has it, and nothing that a document
keeps is cut from it, even where it is also part of a window that another document keeps: what a
certificate names is there, whole, after the cut.

Memory: `_WINDOWS_HELD` windows in the first pass, sixteen bytes each and more while they are
sorted, then a record for each different window that is repeated.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmlm.config import PassagesConfig
from dpmlm.dedup.shingles import window_hashes, word_hashes, words_of

_WINDOWS_HELD = 1 << 26
_FILTER = 1 << 20

Chunks = Callable[[], Iterator[list[dict[str, Any]]]]
"""Starts a pass over the documents (id, text), in chunks."""
Range = tuple[int, int]
Borders = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Where each word of a text begins and ends."""


@dataclass(frozen=True)
class Passage:
    """One repeated passage, where it stands in the document that keeps it. It holds no text."""

    id: str
    """That document: the smallest id of all that have it."""
    start: int
    """Its first character there."""
    end: int
    """One past its last."""
    words: int
    """How many words it has."""
    documents: int
    """In how many documents its most frequent window stands."""


@dataclass(frozen=True)
class Repeated:
    """What is repeated in a corpus."""

    passages: list[Passage]
    """Longest and most frequent first."""
    elsewhere: dict[str, list["Cut"]]
    """By document: what others keep and it does not keep for them, in order of place, disjoint
    from one another and from the document's own passages."""


@dataclass(frozen=True)
class Cut:
    """A stretch of a document that others keep: the certificate that stays where it is cut."""

    start: int
    """Its first character."""
    end: int
    """One past its last."""
    kept_in: tuple[str, ...]
    """Ids of the documents that keep it, each a part or all of it and the words around it."""


@dataclass
class _Window:
    """One different run of words."""

    keeper: str
    last: str
    """The document that was counted last: a document counts once."""
    documents: int = field(default=1)


def find_passages(chunks: Chunks, rules: PassagesConfig) -> Repeated:
    """All passages that `rules` speaks of."""
    places = _places(chunks, rules.words, _frequent_hashes(chunks, rules))
    windows: dict[bytes, _Window] = {}
    for name, _, spelt in _spelt(chunks, rules.words, places):
        for digest in spelt.values():
            window = windows.setdefault(digest, _Window(name, name))
            if window.last != name:
                window.last, window.documents = name, window.documents + 1
                window.keeper = min(window.keeper, name)
    found = {key: each for key, each in windows.items() if each.documents > rules.documents}
    passages: list[Passage] = []
    elsewhere: dict[str, list[Cut]] = {}
    for name, borders, spelt in _spelt(chunks, rules.words, places):
        known = {place: found[key] for place, key in spelt.items() if key in found}
        own = {place: window for place, window in known.items() if window.keeper == name}
        passages += _passages(name, own, borders, rules.words)
        others = {place: window for place, window in known.items() if place not in own}
        if cuts := list(_cuts(others, own, borders, rules.words)):
            elsewhere[name] = cuts
    passages.sort(key=lambda each: (-each.words * each.documents, each.id, each.start))
    return Repeated(passages, elsewhere)


def cut(text: str, cuts: Iterable[Cut]) -> str:
    """`text` without some stretches, a line end in the place of each."""
    pieces, last = [], 0
    for one in cuts:
        pieces.append(text[last : one.start])
        last = one.end
    return "\n".join([*pieces, text[last:]])


def _frequent_hashes(chunks: Chunks, rules: PassagesConfig) -> NDArray[np.uint64]:
    """Hashes of windows in more than `rules.documents` documents, ascending."""
    bits, part = 0, 0
    frequent: list[NDArray[np.uint64]] = []
    while part < 1 << bits:
        # The first pass finds out into how many parts the windows have to be cut.
        hashes, documents, bits = _hashes_of_part(chunks, rules.words, part, bits, grow=part == 0)
        order = np.argsort(hashes, kind="stable")  # documents stay ascending
        hashes, documents = hashes[order], documents[order]
        again = (hashes[1:] == hashes[:-1]) & (documents[1:] == documents[:-1])
        once = hashes[np.append(True, ~again)[: len(hashes)]]
        values, counts = np.unique(once, return_counts=True)
        frequent.append(values[counts > rules.documents])
        part += 1
    return np.sort(np.concatenate(frequent))


def _hashes_of_part(
    chunks: Chunks, words: int, part: int, bits: int, *, grow: bool
) -> tuple[NDArray[np.uint64], NDArray[np.int64], int]:
    """Windows whose hash ends in the bits of `part`: hash, number of the document, ascending."""
    held = [(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64))]
    size = first = 0
    for chunk in chunks():
        hashes, counts = window_hashes(*word_hashes([each["text"] for each in chunk]), words)
        documents = np.repeat(np.arange(first, first + len(chunk)), counts)
        held.append(_of_part(hashes, documents, part, bits))
        size, first = size + len(held[-1][0]), first + len(chunk)
        while grow and size > _WINDOWS_HELD:
            bits += 1
            held = [_of_part(*_joined(held), part, bits)]
            size = len(held[0][0])
    return *_joined(held), bits


def _joined(
    held: list[tuple[NDArray[np.uint64], NDArray[np.int64]]],
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    hashes, documents = zip(*held)
    return np.concatenate(hashes), np.concatenate(documents)


def _of_part(
    hashes: NDArray[np.uint64], documents: NDArray[np.int64], part: int, bits: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    chosen = hashes & np.uint64((1 << bits) - 1) == part
    return hashes[chosen], documents[chosen]


def _places(
    chunks: Chunks, words: int, frequent: NDArray[np.uint64]
) -> dict[str, NDArray[np.int64]]:
    """By document, the windows whose hash is a frequent one, by the number of their first word."""
    found: dict[str, NDArray[np.int64]] = {}
    if not len(frequent):
        return found
    may_be = np.zeros(_FILTER, dtype=bool)
    may_be[frequent % _FILTER] = True
    for chunk in chunks():
        hashes, counts = window_hashes(*word_hashes([each["text"] for each in chunk]), words)
        likely = np.flatnonzero(may_be[hashes % _FILTER])
        at = np.minimum(np.searchsorted(frequent, hashes[likely]), len(frequent) - 1)
        hits = likely[frequent[at] == hashes[likely]]
        ends = np.cumsum(counts)
        for number in np.unique(np.searchsorted(ends, hits, side="right")).tolist():
            first = ends[number] - counts[number]
            inside = (first <= hits) & (hits < ends[number])
            found[chunk[number]["id"]] = hits[inside] - first
    return found


def _spelt(
    chunks: Chunks, words: int, places: dict[str, NDArray[np.int64]]
) -> Iterator[tuple[str, Borders, dict[int, bytes]]]:
    """Of each document in `places`: its id, where its words stand, and what each window says."""
    for chunk in chunks():
        for document in chunk:
            if document["id"] in places:
                spelt, starts, ends = words_of(document["text"])
                at = places[document["id"]].tolist()
                digests = {place: _digest(spelt[place : place + words]) for place in at}
                yield document["id"], (starts, ends), digests


def _digest(words: list[str]) -> bytes:
    return hashlib.sha256(" ".join(words).encode("utf-8", "surrogatepass")).digest()[:16]


def _passages(
    name: str, own: dict[int, _Window], borders: Borders, words: int
) -> Iterator[Passage]:
    for first, end in _runs(own, words):
        inside = (own[place] for place in range(first, end - words + 1) if place in own)
        most = max(window.documents for window in inside)
        yield Passage(name, *_characters(first, end, borders), end - first, most)


def _cuts(
    others: dict[int, _Window], own: dict[int, _Window], borders: Borders, words: int
) -> Iterator[Cut]:
    """Stretches of the words in windows of `others` that are in none of the document's `own`."""
    goes = np.zeros(len(borders[0]) + 2, dtype=bool)  # of word n at n + 1: a run has two edges
    for first, end in _runs(others, words):
        goes[first + 1 : end + 1] = True
    for first, end in _runs(own, words):
        goes[first + 1 : end + 1] = False
    edges = np.flatnonzero(goes[1:] != goes[:-1])
    for first, end in edges.reshape(-1, 2).tolist():
        over = (others[place] for place in range(first - words + 1, end) if place in others)
        keepers = sorted({window.keeper for window in over})
        yield Cut(*_characters(first, end, borders), tuple(keepers))


def _runs(places: Iterable[int], words: int) -> list[Range]:
    """Words covered by windows, where windows overlap or touch in one: the first, and one past
    the last, ascending."""
    runs: list[Range] = []
    for place in sorted(places):
        if runs and place <= runs[-1][1]:
            runs[-1] = (runs[-1][0], place + words)
        else:
            runs.append((place, place + words))
    return runs


def _characters(first: int, end: int, borders: Borders) -> Range:
    starts, ends = borders
    return int(starts[first]), int(ends[end - 1])
