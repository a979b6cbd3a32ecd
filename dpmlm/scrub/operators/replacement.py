"""What stands in the place of something found: the operators of a policy.

A pseudonym is HMAC-SHA-256 (RFC 2104) under a secret key of the normal form of the text, with
the entity in the input, so that a person and a place of one spelling have unlike tokens. Whoever
holds the key can tell whether a guessed name is behind a token; nobody else can, and destroying
the key ends that. 48 bits of it are written: among a million names a pair that shares a token has a
chance of about one in six hundred.
"""

import hashlib
import hmac
import re
import unicodedata

from dpmlm.scrub.names import BEHIND, PARTICLES, TITLES
from dpmlm.scrub.operators.generalised import generalised
from dpmlm.scrub.operators.surrogates import surrogate
from dpmlm.scrub.policy import KEYED, Operator

REDACTED = "█"
_DIGITS = 12
_DOMAIN = b"dpmlm/scrub/pseudonym/1"


def replacement(
    operator: Operator, entity: str, original: str, key: bytes | None, *, person: str = ""
) -> str:
    """The text that replaces `original`.

    `key` is needed for `pseudonym` and `surrogate`; `person`, whose text it is, moves dates. Where
    a surrogate or something more general cannot be made, a placeholder stands.
    """
    fresh: str | None = None
    if operator == "redact":
        fresh = REDACTED
    elif operator == "keep":
        fresh = original
    elif operator == "generalise":
        fresh = generalised(entity, original)
    elif operator in KEYED:
        assert key is not None
        if operator == "pseudonym":
            fresh = f"{entity}_{pseudonym(key, entity, original)}"
        else:
            fresh = surrogate(key, entity, original, person=person)
    return f"<{entity}>" if fresh is None else fresh


def pseudonym(key: bytes, entity: str, original: str) -> str:
    """Twelve hex digits for the normal form of `original`."""
    message = b"\0".join((_DOMAIN, entity.encode(), normal_form(entity, original).encode()))
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:_DIGITS]


def normal_form(entity: str, original: str) -> str:
    """Case and blanks do not count; of a person, nor do titles before the name, degrees behind it,
    particles within it, and the order of "Last, First"."""
    text = unicodedata.normalize("NFKC", original).casefold()
    if entity != "PERSON":
        return " ".join(text.split())
    parts = [words for part in text.split(",") if (words := _without_titles(_words(part)))]
    if len(parts) == 2:
        parts.reverse()
    name = _without_titles([word for part in parts for word in part])
    inner = [word for word in name[1:-1] if word not in PARTICLES]
    return " ".join([*name[:1], *inner, *name[1:][-1:]]) or " ".join(text.split())


def _words(text: str) -> list[str]:
    words = [re.sub(r"^\W+|(?:['’]s)?\W*$", "", word) for word in text.split()]
    return [word for word in words if word]


def _without_titles(words: list[str]) -> list[str]:
    """ "Judge Roe" is Roe, and "Mike Judge" is Mike Judge; of titles alone the last one stays, of
    degrees alone nothing."""
    while len(words) > 1 and words[0] in TITLES:
        words = words[1:]
    while words and words[-1] in BEHIND:
        words = words[:-1]
    return words
