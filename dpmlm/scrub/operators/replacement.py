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
from dpmlm.scrub.operators.surrogates import NUMBERS, number_form, surrogate
from dpmlm.scrub.policy import KEYED, Operator
from dpmlm.scrub.view import without_invisible

REDACTED = "█"
KEEPS_SOME: frozenset[Operator] = frozenset({"generalise", "surrogate"})
"""Operators that leave a part of what was found as it was, such as separators and years."""
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
    normal = normal_form(entity, original).encode("utf-8", "surrogatepass")
    message = b"\0".join((_DOMAIN, entity.encode(), normal))
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:_DIGITS]


def normal_form(entity: str, original: str) -> str:
    """Case, blanks and invisible signs do not count; of a number, nor do separators and the 1 of a
    North American one; of a person, nor do titles before the name, degrees behind it, particles
    within it, and the order of "Last, First"."""
    text = without_invisible(unicodedata.normalize("NFKC", original)).casefold()
    if entity != "PERSON":
        number = number_form(entity, text) if entity in NUMBERS else ""
        return number or " ".join(text.split())
    parts = [words for part in text.split(",") if (words := _without_titles(_words(part)))]
    if len(parts) == 2:
        parts.reverse()
    name = _without_titles([word for part in parts for word in part])
    inner = [word for word in name[1:-1] if word not in PARTICLES]
    return " ".join([*name[:1], *inner, *name[1:][-1:]]) or " ".join(text.split())


def _words(text: str) -> list[str]:
    """Words without marks around them; initials written together ("j.r.") are words of their own,
    and a title or degree is one without its dots ("ph.d.")."""
    bare = [re.sub(r"^\W+|(?:['’]s)?\W*$", "", word) for word in text.split()]
    words: list[str] = []
    for word in bare:
        undotted = word.replace(".", "")
        titled = undotted in TITLES and word != "j.r"
        words += [undotted] if titled else [part for part in word.split(".") if part]
    return words


def _without_titles(words: list[str]) -> list[str]:
    """ "Judge Roe" is Roe, and "Mike Judge" is Mike Judge; of titles alone the last one stays, of
    degrees alone nothing."""
    while len(words) > 1 and words[0] in TITLES:
        words = words[1:]
    while words and words[-1] in BEHIND:
        words = words[:-1]
    return words
