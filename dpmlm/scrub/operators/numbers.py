"""Numbers in the place of numbers: same length, same separators, and the checksum of their kind.

Digits stand for digits and letters for letters of the same case. What a number keeps of the
original names its kind: the country of an IBAN and of a telephone number, a card's first digit.
"""

import re
import string

from dpmlm.scrub.operators.keyed import Keyed

_FICTION = "555"
"""Exchange of North American numbers that belong to nobody, with 0100 to 0199 behind it."""
_LETTER = re.compile(r"[^\W\d_]")
_NETWORKS = ("192.0.2", "198.51.100", "203.0.113")
"""For documentation (RFC 5737)."""


def like(original: str, keyed: Keyed) -> str:
    """Every digit and ASCII letter by another of its class; the rest stays."""
    return "".join(_like(character, keyed) for character in original)


def like_digits(original: str, keyed: Keyed) -> str:
    """Every digit by another one; what is no digit stays."""
    return re.sub(r"\d", lambda match: _like(match[0], keyed), original)


def _like(character: str, keyed: Keyed) -> str:
    for alphabet in (string.digits, string.ascii_lowercase, string.ascii_uppercase):
        if character in alphabet:
            return keyed.other(alphabet, character)
    if character.isalpha():
        return keyed.one_of(string.ascii_uppercase)
    return keyed.one_of(string.digits) if character.isnumeric() else character


def luhn_digit(digits: str) -> str:
    """Check digit of `digits` (ISO/IEC 7812-1 annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 - place % 2)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def card(original: str, keyed: Keyed) -> str:
    """A card number of the same first digit; it checks if and only if the original does."""
    digits = _digits(original)
    if len(digits) < 2 or _LETTER.search(original):
        return like(original, keyed)
    middle = "".join(keyed.one_of(string.digits) for _ in digits[1:-1])
    check = luhn_digit(digits[:1] + middle)
    if luhn_digit(digits[:-1]) != digits[-1]:
        check = keyed.other(string.digits, check)
    return _into(original, digits[:1] + middle + check)


def iban(original: str, keyed: Keyed) -> str:
    """An account number of the same country with check digits by ISO 7064, MOD 97-10."""
    plain = re.sub(r"[^0-9A-Za-z]", "", original)
    if not re.match(r"[A-Za-z]{2}[0-9]{2}[0-9A-Za-z]", plain):
        return like(original, keyed)
    country, account = plain[:2], like(plain[4:], keyed)
    return _into(original, country + iban_check(country, account) + account, r"[0-9A-Za-z]")


def iban_check(country: str, account: str) -> str:
    """Two check digits of an IBAN."""
    value = "".join(str(int(c, 36)) for c in (account + country).upper()) + "00"
    return f"{98 - int(value) % 97:02d}"


def social_security(original: str, keyed: Keyed) -> str:
    """Nine digits as they are given out: area 001 to 899 but 666, no part all zeros."""
    areas = [f"{area:03d}" for area in range(1, 900) if area != 666]
    digits = _digits(original)
    if len(digits) != 9 or _LETTER.search(original):
        return like(original, keyed)
    area = keyed.other(areas, digits[:3])
    group, serial = 1 + keyed.below(99), 1 + keyed.below(9999)
    return _into(original, f"{area}{group:02d}{serial:04d}")


def phone(original: str, keyed: Keyed) -> str:
    """A number of the same form; a North American one belongs to nobody."""
    digits = _digits(original)
    if _LETTER.search(original):  # letters that are dialled, or an extension
        return like(original, keyed)
    national = digits[-10:]
    if len(digits) == 10 or (len(digits) == 11 and digits[0] == "1"):
        area = f"{2 + keyed.below(8)}{keyed.below(10)}{1 + keyed.below(9)}"
        fresh = f"{area}{_FICTION}01{keyed.below(100):02d}"
        return _into(original, digits[: -len(national)] + fresh)
    head = re.match(r"\s*\+\d{1,3}(?=\D)", original)
    kept = len(_digits(head[0])) if head else 0
    return _into(original, digits[:kept] + like(digits[kept:], keyed))


def address(original: str, keyed: Keyed) -> str:
    """An IP address of a network that documentation may use (RFC 5737, RFC 3849)."""
    if ":" in original:
        return f"2001:db8::{keyed.below(1 << 16):x}:{keyed.below(1 << 16):x}"
    return f"{keyed.one_of(_NETWORKS)}.{1 + keyed.below(254)}"


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def _into(original: str, plain: str, places: str = "[0-9]") -> str:
    """`plain` with the separators of `original`."""
    fresh = iter(plain)
    return re.sub(places, lambda match: next(fresh, match[0]), original)
