"""`EvaluationSpec`: which questions a model is asked, whatever it was trained with."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dpmlm.errors import UserError
from dpmlm.masking import Example, MaskingSpec
from dpmlm.masking.spec import SPECIALS_PER_ROW

SEED = hashlib.sha256(b"dpmlm/evaluation/1").digest()
"""Public: no masks of a training come from it."""


@dataclass(frozen=True)
class EvaluationSpec:
    """Public constants that fix rows and masks as functions of a document's id and tokens.

    Two models of one tokenizer are asked for the same tokens, however each was trained: a model
    trained with a ratio of 0.4 is not asked harder questions than one trained with 0.15.
    """

    window: int
    """Tokens a row, CLS and SEP included; models that are compared have one in common."""
    masking: MaskingSpec = field(default_factory=MaskingSpec)
    """15 % of the tokens, one by one, 80/10/10 unless said otherwise."""
    seed: bytes = SEED
    rows_per_document: int = 8
    """A document is cut from its beginning into rows that do not overlap; at most so many of them
    are asked about, so that one enormous document neither decides nor takes for ever."""

    def __post_init__(self) -> None:
        if self.window <= SPECIALS_PER_ROW:
            raise UserError(
                f"a window of {self.window} tokens",
                f"it is at least {SPECIALS_PER_ROW + 1}: CLS, SEP and a token to guess",
                "give a larger one",
            )
        if self.rows_per_document < 1:
            raise UserError(
                f"rows_per_document {self.rows_per_document}", "it is at least 1", "give 1 or more"
            )

    def rows(self, examples: Sequence[Example]) -> Iterator[tuple[int, int, Example]]:
        """(document, where the row begins in its tokens, row): the rows with text in them."""
        room = self.window - SPECIALS_PER_ROW
        for number, example in enumerate(examples):
            begins = range(0, len(example.tokens), room)[: self.rows_per_document]
            for begin in begins:
                tokens = example.tokens[begin : begin + room]
                yield number, begin, Example(f"{example.id}/{begin}", tokens)
