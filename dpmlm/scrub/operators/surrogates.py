"""Something of the same kind in the place of what was found: "hiding in plain sight".

What scrubbing missed then does not stand out beside what it replaced. A surrogate is chosen by the
key from the words that were found, so that a person has one name in all documents and on all
machines, and it goes with the key. Names suit everybody: a list of names that are first and last
names of women and men alike, and none begins with the letter of the one it replaces. Telephone
numbers of North America, domains and networks are those set aside for examples.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence

from dpmlm.scrub.names import BEHIND, HONORIFICS, PARTICLES
from dpmlm.scrub.operators import dates, numbers
from dpmlm.scrub.operators.keyed import Keyed
from dpmlm.scrub.view import without_invisible

NAMES = tuple(
    """
    Adair Ainsley Alexis Arden Ashton Aspen Aubrey Avery Bailey Blair Blake Brett Briar Brook
    Cameron Carey Casey Cassidy Chandler Corey Dale Dallas Dana Darcy Devon Drew Eden Ellery
    Ellis Ember Emerson Emery Finley Flynn Frankie Gale Gray Greer Guthrie Harley Harlow Harper
    Haven Hayden Hollis Indigo Ivory Jaden Jamie Jesse Jody Jordan Jules Keegan Kelly Kendall
    Kerry Kieran Lane Lee Leslie Logan London Marley Merritt Micah Monroe Morgan Murphy Nico
    Noel Nolan Oakley Ollie Orion Palmer Parker Payton Perry Phoenix Quincy Quinn Quillan Reagan
    Reese Remy Riley River Robin Rory Rowan Sage Sawyer Scout Shannon Shay Shiloh Sidney Sloane
    Spencer Stacy Sutton Tatum Taylor Teagan Terry Toby Tracy Umber Unity Vale Vesper Wesley
    Winter Wren Yael Yardley Yates Zephyr Zion
    """.split()
)
"""Names that tell nothing of their bearer."""
_TOWNS = tuple(
    """
    Ald Ash Beck Bran Cold Crom Dun Dray East Elm Fal Fern Glen Grim Hart Hal Ing Isle Kel Kings
    Lang Loch Mar Mill New Nor Old Oak Pem Pen Ravens Red Sal Stan Thorn Tor Upper Usk Vern Wend
    Wood Yarn
    """.split()
)
_ENDINGS = tuple(
    """
    borough bridge bury by combe dale field ford gate ham holt ley mere mouth port stead ton wick
    """.split()
)
_WEEKS = (*range(-52, -4), *range(5, 53))
"""By which dates are moved: into another month at least."""
_GENDERED = frozenset("mr mrs ms miss sir madam lord lady mister mistress".split())
_KINDS = frozenset(
    """
    association bank board borough bureau church clinic club co college commission committee
    company corp corporation council county court department division foundation fund gmbh group
    hospital inc institute laboratory laboratories limited llc ltd ministry museum office party
    plc police press prison research school services society state systems trust union united
    university of the for and avenue ave boulevard blvd close court ct crescent drive dr highway
    hwy lane ln parkway place pl road rd square sq street st terrace way apt suite unit box po
    city county island lake mount mountain north river south west east valley national
    international royal central general federal saint
    """.split()
)
"""Words that say what a place or an organisation is, and stay."""
_WORD = re.compile(r"[^\W\d_][^\s.,;:()<>\"@/&]*")
"""Up to a blank or a mark between words, so that accents written apart go with their letter."""


def surrogate(key: bytes, entity: str, original: str, *, person: str) -> str | None:
    """What stands for `original`; None where nothing plausible can be made that differs from it.

    `person` is whose text it is: their dates move together.
    """
    make = _MAKERS.get(entity)
    original = without_invisible(unicodedata.normalize("NFC", original))
    if entity == "DATE_TIME":
        weeks = Keyed(key, entity, person).one_of(_WEEKS)
        return dates.shifted(original, weeks)
    fresh = make(key, entity, original) if make else original
    return None if _folded(fresh) == _folded(original) else fresh


def _number(make: Callable[[str, Keyed], str]) -> Callable[[bytes, str, str], str]:
    def made(key: bytes, entity: str, original: str) -> str:
        plain = _in_ascii_digits(original)
        return make(plain, Keyed(key, entity, number_form(entity, plain)))

    return made


def number_form(entity: str, original: str) -> str:
    """What counts of a number: no case, no separators, no 1 before a North American one."""
    plain = re.sub(r"[\W_]", "", _folded(original))
    national = re.fullmatch(r"1([2-9]\d{9})", plain) if entity == "PHONE_NUMBER" else None
    return national[1] if national else plain


def _person(key: bytes, entity: str, original: str) -> str:
    words = [_folded(word) for word in _WORD.findall(original)]
    places = iter(range(len(words)))

    def fresh(match: re.Match[str]) -> str:
        stays = _stays(words, next(places), match[0])
        return match[0] if stays else _name(key, match[0])

    named = _WORD.sub(fresh, original)
    return numbers.like_digits(named, Keyed(key, entity, _folded(original)))


def _stays(words: Sequence[str], place: int, written: str) -> bool:
    """Whether a word is no part of a name: a title before it, a degree behind it, a particle in
    small letters within it. "Judge" is a title in "Judge Roe" and a name in "Mike Judge"."""
    word = words[place]
    if word in _GENDERED:
        return False
    if place == len(words) - 1:
        return place > 0 and word in BEHIND
    if word in PARTICLES:
        return written.islower() and place > 0
    return word in HONORIFICS and all(before in HONORIFICS for before in words[:place])


def _name(key: bytes, word: str) -> str:
    """Another name in the same case; titles lose their sex."""
    stem, ending = (word[:-2], word[-2:]) if word[-2:] in ("'s", "’s") else (word, "")
    plain = _folded(stem)
    if plain in _GENDERED:
        return _cased("Mx", stem) + ending
    keyed = Keyed(key, "PERSON", plain)
    if len(plain) == 1:
        return _cased(keyed.other("ABCDEFGHJKLMNOPRSTVW", plain.upper()), stem) + ending
    first = unicodedata.normalize("NFKD", plain)[:1].upper()
    fitting = [name for name in NAMES if not name.startswith(first)]
    return _cased(keyed.one_of(fitting), stem) + ending


def _place(key: bytes, entity: str, original: str) -> str:
    """Made-up words for those that name; words of kind, digits aside, stay."""

    def word(match: re.Match[str]) -> str:
        plain = _folded(match[0])
        if plain in _KINDS:
            return match[0]
        keyed = Keyed(key, "PLACE", plain)
        towns = [town for town in _TOWNS if town[0].lower() != plain[:1]]
        return _cased(keyed.one_of(towns) + keyed.one_of(_ENDINGS), match[0])

    return numbers.like_digits(_WORD.sub(word, original), Keyed(key, entity, _folded(original)))


def _email(key: bytes, entity: str, original: str) -> str:
    local, _, domain = original.rpartition("@")
    named = re.sub(r"[^\W\d_]+", lambda match: _name(key, match[0]).lower(), local)
    named = numbers.like_digits(named, Keyed(key, entity, _folded(local)))
    return f"{named}@{_domain(key, domain)}"


def _url(key: bytes, entity: str, original: str) -> str:
    scheme, mark, rest = original.rpartition("://")
    if not re.fullmatch(r"(?:[a-z][a-z0-9+.\-]*)?", scheme, re.IGNORECASE):
        return original  # something stands before it, and would stay
    host, slash, path = rest.partition("/")
    token = f"{Keyed(key, entity, _folded(path)).below(1 << 24):06x}" if path else ""
    return f"{scheme}{mark}{_domain(key, host)}{slash}{token}"


def _domain(key: bytes, host: str) -> str:
    """A name below one that is set aside for examples (RFC 2606)."""
    keyed = Keyed(key, "DOMAIN", _folded(host))
    return f"{keyed.one_of(NAMES).lower()}.example.{keyed.one_of(('com', 'net', 'org'))}"


def _cased(fresh: str, like: str) -> str:
    if like.isupper() and (len(like) > 1 or len(fresh) == 1):
        return fresh.upper()
    return fresh.lower() if like.islower() else fresh


def _in_ascii_digits(text: str) -> str:
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


NUMBERS = frozenset(
    """
    PHONE_NUMBER CREDIT_CARD IBAN_CODE US_SSN ID ACCOUNT_NUMBER MEDICAL_RECORD_NUMBER ZIP_CODE
    VEHICLE_ID US_PASSPORT US_DRIVER_LICENSE US_BANK_NUMBER MEDICAL_LICENSE MAC_ADDRESS UUID
    """.split()
)
"""Entities whose separators do not count."""
_CHECKED: dict[str, Callable[[str, Keyed], str]] = {
    "PHONE_NUMBER": numbers.phone,
    "CREDIT_CARD": numbers.card,
    "IBAN_CODE": numbers.iban,
    "US_SSN": numbers.social_security,
}
"""Numbers with a rule of their own; of the others every digit and letter is another one."""
_MAKERS: dict[str, Callable[[bytes, str, str], str]] = {
    "PERSON": _person,
    "LOCATION": _place,
    "ORGANIZATION": _place,
    "ADDRESS": _place,
    "EMAIL_ADDRESS": _email,
    "URL": _url,
    "IP_ADDRESS": _number(numbers.address),
    **{entity: _number(_CHECKED.get(entity, numbers.like)) for entity in sorted(NUMBERS)},
}
SURROGATES = frozenset({*_MAKERS, "DATE_TIME"})
"""Entities that have one."""
