"""Dates within a stretch of text: moved by whole weeks, or cut down to their year.

A shift is a multiple of seven days, so that a weekday beside a date stays right. What has the shape
of no date here is not guessed at.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

_NAMES = (
    "January February March April May June July August September October November December"
).split()
_MONTH = "(?P<name>" + "|".join(f"{n[:3]}(?:{n[3:]})?" for n in _NAMES) + r"|Sept)\b\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:1[6-9]|20)\d\d|'?\d\d)"
_SHAPES = tuple(
    re.compile(rf"(?<![\w.]){shape}(?!\w)", re.IGNORECASE | re.ASCII)
    for shape in (
        r"(?P<year>(?:1[6-9]|20)\d\d)(?P<sep>[-/.])(?P<month>\d{1,2})(?P=sep)(?P<day>\d{1,2})",
        r"(?P<first>\d{1,2})(?P<sep>[-/.])(?P<second>\d{1,2})(?P=sep)(?P<year>(?:1[6-9]|20)?\d\d)",
        rf"{_DAY}(?:[ \-]+(?:of[ ]+)?)?{_MONTH}(?:[ ,\-]+{_YEAR})?",
        rf"{_MONTH}[ ]+{_DAY}(?:[ ,]+{_YEAR})?",
        rf"{_MONTH}[ ,\-]+(?P<year>(?:1[6-9]|20)\d\d)",
        r"(?P<year>(?:1[6-9]|20)\d\d)",
    )
)
_CLOCK = re.compile(
    r"\b\d{1,2}:\d\d(?::\d\d)?\b(?: ?[ap]\.?m\b\.?)?|\b\d{1,2}(?:[:.]\d\d)? ?[ap]\.?m\b\.?",
    re.IGNORECASE,
)
_BESIDE = frozenset(
    """
    monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thur thurs fri sat
    sun the of on at in from to between and until till through by before after since around about
    circa early late mid morning evening afternoon night noon midnight clock utc gmt year years day
    month week weekend dated
    """.split()
)
"""Words that may stand beside a date and tell no other one."""
_COMMON_YEAR = 2001
"""Stands for a year that is not told: it has no 29 February."""


@dataclass(frozen=True)
class _Found:
    match: re.Match[str]
    day: date
    parts: dict[str, str]
    """Groups that were written: day, month or name, year."""


def shifted(text: str, weeks: int) -> str | None:
    """`text` with each date in it moved; None if there is none that is understood, or one stays
    as it is: a year without a month is often the same some weeks away."""
    return _rewritten(text, lambda found: _written(found, found.day + timedelta(weeks=weeks)))


def years(text: str) -> str | None:
    """The years of the dates in `text`; None if it tells none."""
    told = [str(found.day.year) for found in _all(text) if "year" in found.parts]
    return "-".join(dict.fromkeys(told)) or None


def _rewritten(text: str, write: Callable[[_Found], str]) -> str | None:
    kept, fresh, last = [], [], 0
    for found in _all(text):
        kept.append(text[last : found.match.start()])
        fresh.append(write(found))
        if fresh[-1] == found.match[0]:
            return None
        last = found.match.end()
    # Any other word or number that is left over may be part of a date that was not understood.
    left = _CLOCK.sub("", " ".join([*kept, text[last:]])).lower()
    if not fresh or not set(re.findall(r"[^\W_]+", left)) <= _BESIDE:
        return None
    return "".join(piece for pair in zip(kept, fresh) for piece in pair) + text[last:]


def _all(text: str) -> list[_Found]:
    """Dates in order of place; of two that overlap the one of the earlier shape."""
    taken: list[_Found] = []
    for shape in _SHAPES:
        for match in shape.finditer(text):
            if any(f.match.start() < match.end() and match.start() < f.match.end() for f in taken):
                continue
            found = _understood(match)
            if found is not None:
                taken.append(found)
    return sorted(taken, key=lambda found: found.match.start())


def _understood(match: re.Match[str]) -> _Found | None:
    parts = {name: value for name, value in match.groupdict().items() if value}
    first, second = parts.pop("first", None), parts.pop("second", None)
    if first and second:
        day_first = int(first) > 12 or (parts["sep"] == "." and int(second) <= 12)
        parts["day"], parts["month"] = (first, second) if day_first else (second, first)
        parts["order"] = "day" if day_first else "month"
    name = parts.get("name")
    month = int(parts["month"]) if "month" in parts else _month(name) if name else 7
    try:
        day = date(_year(parts.get("year")), month, int(parts.get("day", 15)))
    except ValueError:
        return None
    return _Found(match, day, parts)


def _month(name: str) -> int:
    return 1 + next(i for i, full in enumerate(_NAMES) if full.lower().startswith(name[:3].lower()))


def _year(written: str | None) -> int:
    if written is None:
        return _COMMON_YEAR
    digits = written.lstrip("'")
    if len(digits) == 4:
        return int(digits)
    return int(digits) + (1900 if int(digits) > 30 else 2000)


def _written(found: _Found, moved: date) -> str:
    """The moved date in the spelling of the found one."""
    text, parts, at = found.match[0], found.parts, found.match.start()
    spans = {}
    for group in found.match.groupdict():
        if found.match[group] is not None:
            spans[group] = (found.match.start(group) - at, found.match.end(group) - at)
    day_group = month_group = None
    if "order" in parts:
        day_group, month_group = (
            ("first", "second") if parts["order"] == "day" else ("second", "first")
        )
    fresh = {
        day_group or "day": _padded(moved.day, parts.get("day", ""), among_numbers="sep" in parts),
        month_group or "month": _padded(moved.month, parts.get("month", ""), among_numbers=True),
        "name": _named(moved.month, parts.get("name", "")),
        "year": _year_like(moved.year, parts.get("year", "")),
    }
    for group, (start, end) in sorted(spans.items(), key=lambda item: -item[1][0]):
        if group in fresh:
            text = text[:start] + fresh[group] + text[end:]
    return re.sub(r"(\d)(?:st|nd|rd|th)\b", lambda m: m[1] + _ending(moved.day), text)


def _padded(value: int, like: str, *, among_numbers: bool) -> str:
    two = like.startswith("0") or (among_numbers and len(like) == 2)
    return f"{value:02d}" if two else str(value)


def _named(month: int, like: str) -> str:
    full = _NAMES[month - 1]
    name = full if len(like) > 4 or like.lower() in ("may", "june", "july") else full[:3]
    return name.upper() if like.isupper() else name.lower() if like.islower() else name


def _year_like(year: int, like: str) -> str:
    return like[: len(like) - 2] + f"{year % 100:02d}" if len(like) < 4 else str(year)


def _ending(day: int) -> str:
    if day in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
