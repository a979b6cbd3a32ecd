"""decode(encode(text)): what a tokenizer gives back of a text, and what is lost on the way.

A normaliser changes text on purpose: lower case, accents, white space, control characters. What it
explains is told apart from damage: unknown tokens, and characters that are gone though every token
is known. The vocabulary itself is the text that every tokenizer has: each piece, behind another
one where it only continues words.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from dpmlm.errors import UserError
from dpmlm.masking import TokenTable
from dpmlm.masking.pieces import text_of_pieces
from dpmlm.tokens.encoder import Encoder, encodable
from dpmlm.tokens.tokenizer import fast_backend

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

DAMAGED = 0.01
"""Largest share of pieces or texts that may lose something: greedy splitting can lead a few rare
pieces into a dead end, while a wrong normaliser or decoder spoils most."""
_SPACE_MARK = "\u2581"
_BATCH = 1024
_WORD = re.compile("[a-z]+")


@dataclass(frozen=True)
class RoundTrip:
    """How many texts came back, and how."""

    exact: int = 0
    """Character by character."""
    normalised: int = 0
    """But for what the normaliser changes, and white space."""
    unknown: int = 0
    """With unknown tokens."""
    lost: int = 0
    """With other characters, though every token is known."""

    unknown_share: float = 0.0
    """Of tokens, 0..1."""

    @property
    def texts(self) -> int:
        """All of them."""
        return self.exact + self.normalised + self.unknown + self.lost

    @property
    def damaged_share(self) -> float:
        """Of texts with unknown tokens or lost characters, 0..1."""
        return (self.unknown + self.lost) / max(1, self.texts)

    @property
    def lost_share(self) -> float:
        """Of texts that lose characters though every token is known, 0..1."""
        return self.lost / max(1, self.texts)

    def __str__(self) -> str:
        return (
            f"{self.exact} exact, {self.normalised} but for case, accents and spaces, "
            f"{self.unknown} with unknown tokens, {self.lost} with lost characters"
        )


def round_trip(tokenizer: "PreTrainedTokenizerBase", texts: Iterable[str]) -> RoundTrip:
    """Encode each text as documents are encoded, decode it, and compare.

    The clean-up of a WordPiece decoder is left out: it makes "don't" of "do not".
    """
    encoder, backend = Encoder(tokenizer), _without_clean_up(tokenizer)
    stream = map(encodable, texts)
    found: Counter[str] = Counter()
    tokens = unknown = 0
    while part := list(islice(stream, _BATCH)):
        rows = [row.tolist() for row in encoder.encode(part)]
        backs = backend.decode_batch(rows, skip_special_tokens=False)
        for text, row, back in zip(part, rows, backs, strict=True):
            tokens += len(row)
            if encoder.unknown_id is not None and encoder.unknown_id in row:
                unknown += row.count(encoder.unknown_id)
                found["unknown"] += 1
            elif back == text:
                found["exact"] += 1
            else:
                same = _folded(backend, back) == _folded(backend, text)
                found["normalised" if same else "lost"] += 1
    return RoundTrip(**found, unknown_share=unknown / max(1, tokens))


def pieces_of(tokenizer: "PreTrainedTokenizerBase") -> Iterator[str]:
    """Text of each ordinary entry of the vocabulary, as its piece spells it, whatever a decoder
    makes of it; an entry that continues words stands behind one that begins them. Entries of white
    space alone are passed over."""
    table = TokenTable.of(tokenizer)
    state = json.loads(fast_backend(tokenizer).to_str())
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    ordinary = {piece: i for piece, i in vocabulary.items() if not table.special[i]}
    texts = sorted(text_of_pieces(state, ordinary).items())
    starts = [text.strip() for i, text in texts if not table.continuation[i]]
    lead = next((text for text in starts if _WORD.fullmatch(text)), "")
    for i, text in texts:
        if text.strip():
            yield lead + text if table.continuation[i] else text


def refuse_damaging(tokenizer: "PreTrainedTokenizerBase", given: str) -> RoundTrip:
    """Take every entry of the vocabulary there and back; raises UserError, naming `given`, where
    more than `DAMAGED` of them lose something."""
    found = round_trip(tokenizer, pieces_of(tokenizer))
    if found.damaged_share > DAMAGED:
        raise UserError(
            given,
            f"of its own {found.texts} entries, encoded and decoded, {found.unknown} come back as "
            f"unknown and {found.lost} as other characters",
            "check normalizer, pre_tokenizer and decoder of its tokenizer.json; they have to be "
            "those that the vocabulary was made with",
        )
    return found


def _without_clean_up(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    from tokenizers import Tokenizer

    state: dict[str, Any] = json.loads(fast_backend(tokenizer).to_str())
    if (state.get("decoder") or {}).get("type") == "WordPiece":
        state["decoder"]["cleanup"] = False
    return Tokenizer.from_str(json.dumps(state))


def _folded(backend: "Tokenizer", text: str) -> str:
    """The text as the normaliser sees it, without white space or what stands for it."""
    normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
    return "".join(normal.replace(_SPACE_MARK, " ").split())
