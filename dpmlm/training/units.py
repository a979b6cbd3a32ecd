"""The units a run may draw: what they are called, and which rows a drawn unit contributes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from dpmlm.masking import Example, counter_rng
from dpmlm.masking.spec import SPECIALS_PER_ROW
from dpmlm.tokens import TokenStore


class View(NamedTuple):
    """One row of a drawn unit: the window and the masks that `example` has at `visit`."""

    example: Example
    visit: int


class Units(Protocol):
    """A list of units that can be drawn from."""

    @property
    def names(self) -> Sequence[str]:
        """Their identifiers, each once, in a fixed order."""
        ...

    def views(self, index: int, step: int, count: int) -> Sequence[View]:
        """What unit `index` contributes if it is drawn at `step`: 1 to `count` rows."""
        ...


class CorpusUnits:
    """The units of one split of a token store.

    A drawn unit contributes `count` rows, however much text it has: windows of as many of its
    documents, drawn without replacement, and where it has fewer, further windows and masks of the
    same. Which ones is a function of (seed, unit, step, count) alone: nothing depends on the
    batch.
    """

    def __init__(self, store: TokenStore, split: str, seed: bytes) -> None:
        self._store, self._seed = store, seed
        self.names: Sequence[str] = store.units(split)

    def views(self, index: int, step: int, count: int) -> Sequence[View]:
        name = self.names[index]
        documents = self._store.documents_of(name)
        order = counter_rng(self._seed, "document", name, step).permutation(len(documents))
        chosen = [documents[int(place)] for place in order[:count]]
        store = self._store
        examples = [Example(store.id(i), store.tokens(i), names=store.names(i)) for i in chosen]
        # No two rows of any two steps share document and visit. Under static masks rows of a
        # document that fits one window are the same all the same (docs/masking.md).
        return [
            View(examples[row % len(examples)], step * count + row // len(examples))
            for row in range(count)
        ]


class SequenceUnits:
    """Every row of tokens of one split's documents as a unit of its own.

    Documents are cut from their beginning into rows of `window` tokens, special ones included; the
    last is shorter, none overlap. A drawn unit contributes `count` rows of that text, each masked
    otherwise.
    """

    def __init__(self, store: TokenStore, split: str, window: int) -> None:
        self._store, self._room = store, window - SPECIALS_PER_ROW
        self._rows = [
            (document, begin)
            for unit in store.units(split)
            for document in store.documents_of(unit)
            for begin in range(0, len(store.tokens(document)), self._room)
        ]
        self.names: Sequence[str] = [self._name(*row) for row in self._rows]

    def views(self, index: int, step: int, count: int) -> Sequence[View]:
        document, begin = self._rows[index]
        row = slice(begin, begin + self._room)
        names = self._store.names(document)
        example = Example(
            self.names[index],
            self._store.tokens(document)[row],
            names=None if names is None else names[row],
        )
        return [View(example, step * count + row) for row in range(count)]

    def _name(self, document: int, begin: int) -> str:
        return f"{self._store.id(document)}/{begin}"


def units_of(store: TokenStore, split: str, unit: str, seed: bytes, window: int) -> Units:
    """The units of one split that a plan of `unit` draws from."""
    if unit == "sequence":
        return SequenceUnits(store, split, window)
    return CorpusUnits(store, split, seed)


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

    def views(self, index: int, step: int, count: int) -> Sequence[View]:
        """One row: its secret is masked whole, so that another view would be the same."""
        return [View(self._examples[index], step)]


class JoinedUnits:
    """Several sources of units under one numbering."""

    def __init__(self, *sources: Units) -> None:
        self._sources = [source for source in sources if source.names]
        self._ends = np.cumsum([len(source.names) for source in self._sources])
        self.names: Sequence[str] = [name for source in self._sources for name in source.names]

    def views(self, index: int, step: int, count: int) -> Sequence[View]:
        source = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[source - 1]) if source else 0
        return self._sources[source].views(index - start, step, count)
