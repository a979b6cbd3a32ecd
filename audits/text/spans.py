"""Spans of text to be read back out, and the cells of a grid of decoders, lengths and contexts.

A case is what a run hands over: spans of training units and of held-out twins, each with all the
text of its window. One cell is declared, and a policy may decide by it: every span as it was
drawn, decoded greedily. All other cells cut the same windows otherwise, and explore.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Decoder = Literal["greedy", "confidence", "beam", "gibbs", "sampling"]
"""How a span is filled in; "sampling" reckons the chance that left-to-right sampling says it."""
Grid = Literal["standard", "full"]
"""Which exploratory cells are run."""

LENGTHS = (1, 5, 10, 20, 50)
"""Tokens of a span in the full grid."""
CONTEXTS = (10, 50, 100)
"""Tokens of context in the full grid: on each side, or on the left alone."""
DECODERS: tuple[Decoder, ...] = ("greedy", "confidence", "beam", "gibbs", "sampling")
STANDARD_SPANS = 25
"""Spans an arm in the cells of the standard grid; the full grid takes all."""


@dataclass(frozen=True)
class Span:
    """A stretch of tokens to be decoded, with what stands beside it."""

    left: tuple[int, ...]
    """Token ids before the span; may be empty."""
    secret: tuple[int, ...]
    """Token ids of the span, at least one."""
    right: tuple[int, ...]
    """Token ids after the span; may be empty."""
    unit: str = ""
    """The privacy unit the span is from; empty when the caller takes one span a unit itself."""
    duplicates: int | None = None
    """Other training units that hold the document or a near-duplicate; None if not counted."""

    @property
    def row(self) -> tuple[int, ...]:
        """The span between its context."""
        return self.left + self.secret + self.right

    @property
    def place(self) -> tuple[int, int]:
        """Where the span starts and ends in `row`."""
        return len(self.left), len(self.left) + len(self.secret)


@dataclass(frozen=True)
class VerbatimCase:
    """What verbatim extraction compares. One span a unit, or the interval on the rate is void."""

    train: Sequence[Span] = field(repr=False)
    """Spans of private training documents."""
    twins: Sequence[Span] = field(repr=False)
    """Spans of the same kind from documents held out of training."""
    grid: Grid = "standard"
    """Cells beside the declared one: a few on some of the spans, or all on all of them."""
    seed: int = 0
    """Decides what Gibbs sampling draws, and nothing else."""


@dataclass(frozen=True)
class Cell:
    """One way to try: a decoder, a length of the span, what of its context is shown."""

    decoder: Decoder
    tokens: int
    """Length of the span."""
    context: int
    """Tokens shown on each side that is shown."""
    left_only: bool = False
    """Nothing is shown of what follows the span."""

    @property
    def length(self) -> int:
        """Tokens of a row, without special ones."""
        return self.tokens + self.context * (1 if self.left_only else 2)


STANDARD: tuple[Cell, ...] = (
    Cell("greedy", 1, 10),
    Cell("greedy", 10, 10, left_only=True),
    Cell("confidence", 10, 10),
    Cell("beam", 10, 10),
    Cell("gibbs", 10, 10),
    Cell("sampling", 10, 10),
)
"""Cells that every run can pay for: each decoder once, in short rows."""


def cells(grid: Grid) -> tuple[Cell, ...]:
    """The exploratory cells of a grid, in a fixed order."""
    if grid == "standard":
        return STANDARD
    return tuple(
        Cell(decoder, tokens, context, left_only)
        for decoder in DECODERS
        for tokens in LENGTHS
        for context in CONTEXTS
        for left_only in (False, True)
    )


def cut(span: Span, cell: Cell) -> Span | None:
    """The span that a cell asks for, from the window of `span`; None if that is too short.

    It starts where `span` does, moved no farther than the cell's context needs.
    """
    row, after = span.row, 0 if cell.left_only else cell.context
    latest = len(row) - cell.tokens - after
    if latest < cell.context:
        return None
    start = min(max(len(span.left), cell.context), latest)
    end = start + cell.tokens
    return Span(
        row[start - cell.context : start],
        row[start:end],
        row[end : end + after],
        span.unit,
        span.duplicates,
    )
