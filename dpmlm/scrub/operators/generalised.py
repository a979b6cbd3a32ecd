"""Less exact words for what was found: a date becomes its year, an age over 89 "90+", a post code
three digits (45 CFR 164.514(b)(2)(i)(B) and (C))."""

import re

from dpmlm.scrub.operators import dates

FEW_PEOPLE = frozenset(
    "036 059 063 102 203 556 692 790 821 823 830 831 878 879 884 890 893".split()
)
"""Areas of three digits with 20,000 people or fewer (2000 census, guidance of the US HHS)."""
_OLDEST = 89
_AGE = re.compile(r"\d{1,3}")
_BESIDE = frozenset(
    "age aged at the of and or to year years yr yrs y o yo old m f male female".split()
)
"""Words that may stand beside an age: any other one would stay with it, a name for instance."""


def generalised(entity: str, original: str) -> str | None:
    """`original` with less in it; None where there is no rule for it."""
    if entity == "DATE_TIME":
        return dates.years(original)
    if entity == "AGE":
        beside = re.findall(r"[^\W\d_]+", original.lower())
        told = _AGE.search(original) and _BESIDE.issuperset(beside)
        return _AGE.sub(_age, original) if told else None
    if entity == "ZIP_CODE" and re.match(r"\d{5}", original):
        area = original[:3]
        return ("000" if area in FEW_PEOPLE else area) + "**"
    return None


def _age(match: re.Match[str]) -> str:
    return match[0] if int(match[0]) <= _OLDEST else f"{_OLDEST + 1}+"


GENERALISED = frozenset({"DATE_TIME", "AGE", "ZIP_CODE"})
"""Entities that have a rule."""
