"""The units a run may draw: what they are called, and which example a drawn unit contributes."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from dpmlm.masking import Example, counter_rng
from dpmlm.tokens import TokenStore


class Units(Protocol):
    """A list of units that can be drawn from."""

    @property
    def names(self) -> Sequence[str]:
        """Their identifiers, each once, in a fixed order."""
        ...

    def example(self, index: int, visit: int) -> Example:
        """The one example that unit `index` contributes at visit `visit`."""
        ...


class CorpusUnits:
    """The units of one split of a token store.

    A drawn unit contributes one window of one of its documents. Which document is a function of
    (seed, unit, visit) alone, as the window and the masks are: nothing depends on the batch.
    """

    def __init__(self, store: TokenStore, split: str, seed: bytes) -> None:
        self._store, self._seed = store, seed
        self.names: Sequence[str] = store.units(split)

    def example(self, index: int, visit: int) -> Example:
        name = self.names[index]
        documents = self._store.documents_of(name)
        chosen = documents[0]
        if len(documents) > 1:
            rng = counter_rng(self._seed, "document", name, visit)
            chosen = documents[int(rng.integers(len(documents)))]
        return Example(self._store.id(chosen), self._store.tokens(chosen))


class CanaryUnits:
    """Included canaries, each inserted as `copies` units of its own."""

    def __init__(self, rows: Sequence[tuple[str, Sequence[int], Sequence[int]]]) -> None:
        """`rows` holds (name, prefix tokens, secret tokens)."""
        self._examples = [
            Example(
                name,
                np.asarray([*prefix, *secret], dtype=np.int64),
                secret_span=(len(prefix), len(prefix) + len(secret)),
            )
            for name, prefix, secret in rows
        ]
        self.names: Sequence[str] = [example.id for example in self._examples]

    def example(self, index: int, visit: int) -> Example:
        return self._examples[index]


class JoinedUnits:
    """Several sources of units under one numbering."""

    def __init__(self, *sources: Units) -> None:
        self._sources = [source for source in sources if source.names]
        self._ends = np.cumsum([len(source.names) for source in self._sources])
        self.names: Sequence[str] = [name for source in self._sources for name in source.names]

    def example(self, index: int, visit: int) -> Example:
        source = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[source - 1]) if source else 0
        return self._sources[source].example(index - start, visit)
