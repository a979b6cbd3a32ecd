"""The last four digits of a structured secret: a part of it that can be enumerated.

A whole phone or card number has too many values for a tree of prefixes. Given all but its last
four digits, these are still uniform, so their exposure in that sub-space is as good a measure:
10,000 tails of a phone number, the 1,000 of a card number whose check digit is right.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from audits.exposures.prefix_tree import Tokens
from audits.planting.canaries import Canary
from audits.planting.identifiers import luhn_digit

DIGITS = 4
"""Digits of a tail: 13.3 bits of a phone number, beyond the ceiling of 12.98 at epsilon 8."""
FAMILIES = ("phone", "card")
"""Kinds of secrets that end in digits."""
_STRIDE = 37  # 271 tails, with every digit at every place


class Tail(NamedTuple):
    """One canary's tail, ready for `exposure_among`."""

    before: Tokens
    """The row up to the tail, the rest of the secret included."""
    own: Tokens
    """Tokens of the tail."""
    candidates: list[Tokens]
    """Tokens of every tail that the rest of the secret leaves open, the own one included."""


def tails_of(family: str, canaries: Sequence[Canary], tokenizer: Any) -> list[Tail] | None:
    """The tail of each canary; None where the family or the tokenizer does not allow it.

    The tokens of all tails are found once, after the first canary's beginning, and those of every
    `_STRIDE`th after the last's: a tokenizer that splits one otherwise for what stands before it
    allows none.
    """
    if family not in FAMILIES or not canaries:
        return None
    texts = [f"{number:0{DIGITS}d}" for number in range(10**DIGITS)]
    some = [_split(canary, texts[::_STRIDE], tokenizer) for canary in (canaries[0], canaries[-1])]
    known = _split(canaries[0], texts, tokenizer) if some[0] and some[0] == some[1] else None
    if known is None or len(set(known.values())) < len(known):
        return None
    found = []
    for canary in canaries:
        text = _secret(canary)
        own = known[text[-DIGITS:]]
        if canary.secret[-len(own) :] != own or len(own) >= len(canary.secret):
            return None
        open_ = [known[tail] for tail in texts if _possible(family, text[:-DIGITS], tail)]
        found.append(Tail(canary.tokens[: -len(own)], own, open_))
    return found


def _split(canary: Canary, tails: Sequence[str], tokenizer: Any) -> dict[str, Tokens] | None:
    """Tokens of each tail after the beginning of a canary; None where one begins before it."""
    before = (canary.text or ("", ""))[0]
    head = f"{before} {_secret(canary)[:-DIGITS]}"
    edge = len(head.rstrip())  # a blank may belong to the first token of a tail
    encoded = tokenizer(
        [head + tail for tail in tails], add_special_tokens=False, return_offsets_mapping=True
    )
    found = {}
    for tail, ids, offsets in zip(tails, encoded["input_ids"], encoded["offset_mapping"]):
        first = next((at for at, (start, _) in enumerate(offsets) if start >= edge), 0)
        if first == 0 or offsets[first - 1][1] > edge:
            return None
        found[tail] = tuple(ids[first:])
    return found


def _secret(canary: Canary) -> str:
    return (canary.text or ("", ""))[1]


def _possible(family: str, rest: str, tail: str) -> bool:
    if family != "card":
        return True
    digits = rest.replace(" ", "") + tail
    return luhn_digit(digits[:-1]) == digits[-1]
