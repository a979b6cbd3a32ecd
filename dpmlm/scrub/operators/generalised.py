"""Less exact words for what was found: a date becomes its year, an age over 89 "90+", a post code
three digits (45 CFR 164.514(b)(2)(i)(B) and (C))."""

import re

from dpmlm.scrub.operators import dates

FEW_PEOPLE = frozenset(
    "036 059 063 102 203 556 692 790 821 823 830 831 878 879 884 890 893".split()
)
"""Areas of three digits with 20,000 people or fewer (2000 census, guidance of the US HHS)."""
_OLDEST = 89
_IN_WORDS = re.compile(r"ninet|hundred", re.IGNORECASE)


def generalised(entity: str, original: str) -> str | None:
    """`original` with less in it; None where there is no rule for it."""
    if entity == "DATE_TIME":
        return dates.years(original)
    if entity == "AGE":
        told = re.search(r"\d", original) and not _IN_WORDS.search(original)
        return re.sub(r"\d+", _age, original) if told else None
    if entity == "ZIP_CODE" and re.match(r"\d{5}", original):
        area = original[:3]
        return ("000" if area in FEW_PEOPLE else area) + "**"
    return None


def _age(match: re.Match[str]) -> str:
    return match[0] if int(match[0]) <= _OLDEST else f"{_OLDEST + 1}+"


GENERALISED = frozenset({"DATE_TIME", "AGE", "ZIP_CODE"})
"""Entities that have a rule."""
