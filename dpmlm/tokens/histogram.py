"""`WordHistogram`: which words the units of a private corpus hold, each unit bounded."""

import hashlib
from collections import Counter

from dpmlm.privacy.selection import unit_weight
from dpmlm.tokens.encoder import encodable
from dpmlm.tokens.wordpiece import is_learnable, split_words


class WordHistogram:
    """Words and their weights, where every unit has an L2 norm of at most 1.

    A unit contributes at most `words_per_unit` of its distinct words: those with the smallest keyed
    hash of unit and word. Which ones depends on this unit's text and the key alone, so that adding
    or removing a unit changes no other's contribution. How often a unit says a word counts for
    nothing.
    """

    def __init__(self, words_per_unit: int, key: bytes) -> None:
        """`key`: at most 64 secret bytes."""
        self._limit = words_per_unit
        self._key = key
        self._units: dict[str, dict[str, bytes]] = {}

    def add(self, unit: str, text: str) -> None:
        """Take in a text of `unit`; a unit's texts may come in any order, between others'."""
        held = self._units.setdefault(unit, {})
        state = hashlib.blake2b(unit.encode() + b"\0", key=self._key, digest_size=16)
        for word in set(split_words(encodable(text))) - held.keys():
            if is_learnable(word):
                place = state.copy()
                place.update(word.encode())
                held[word] = place.digest()
        # A word dropped here comes back with the same hash and is dropped again.
        if len(held) > self._limit:
            kept = sorted(held, key=held.__getitem__)[: self._limit]
            self._units[unit] = {word: held[word] for word in kept}

    def weights(self) -> dict[str, int]:
        """Word to the sum of its units' weights, in the fixed point of `unit_weight`."""
        total: Counter[str] = Counter()
        for held in self._units.values():
            if held:
                share = unit_weight(len(held))
                for word in held:
                    total[word] += share
        return dict(total)
