"""Dates written in words and sums of money, by pattern.

Several dates joined by commas or "and" are one finding, as they are one answer to "when".
"""

import re

from presidio_analyzer import LocalRecognizer, Pattern, PatternRecognizer

_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?"
)
_DATE = rf"\d{{1,2}}(?:st|nd|rd|th)?\s{_MONTH}(?:,?\s\d{{4}}\b)?"
_YEAR = r"(?:1[89]|20)\d\d\b"
_AND = r"(?:,?\s(?:and|to|until|or)\s(?:on\s)?|,\s(?:on\s)?|\s?[–-]\s?)"
_COUNT = (
    r"(?:\d{1,3}|an?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen"
    r"|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty)"
)
_SPAN = rf"{_COUNT}(?:\sand\sa\shalf)?\s(?:year|month|week|day)s?"
_CODES = "EUR|USD|GBP|CHF|SEK|NOK|DKK|PLN|TRL|TRY|DEM|ATS|FRF|ITL|CZK|HUF|RUB|JPY|CAD|AUD"
_UNITS = (
    r"(?:euros?|dollars?|pounds?(?:\ssterling)?|zlotys?|liras?|schillings?|marks?|francs?"
    r"|kron(?:a|e|er|or)|rou?bles?|yen)"
)
_AMOUNT = r"\d[\d,.]*(?<=\d)(?:\s(?:thousand|million|billion))?"


def written_recognizers() -> list[LocalRecognizer]:
    """Recognizers for written dates, weekdays and sums."""
    dates = [
        (rf"\b{_DATE}(?:{_AND}(?:{_DATE}|\d{{1,2}}\b))*", 0.8),
        (rf"\b{_MONTH}\s\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?\s\d{{4}}\b)?", 0.6),
        (rf"\b{_MONTH},?\s\d{{4}}\b(?:{_AND}{_MONTH},?\s\d{{4}}\b)*", 0.7),
        (rf"\b{_YEAR}(?:{_AND}{_YEAR})+", 0.6),
        (rf"\b{_MONTH}{_AND}{_MONTH},?\s\d{{4}}\b", 0.7),
        (rf"\b{_SPAN}(?:(?:,|\sand)\s{_SPAN})*[’']s?(?=\simprisonment)", 0.6),
        (r"\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?\b", 0.6),
    ]
    sums = [
        (rf"(?:\b(?:{_CODES})\s?|[€$£]\s?){_AMOUNT}", 0.8),
        (
            rf"\b{_AMOUNT}\s(?:(?:[A-Z][a-z.]{{1,12}}\s)?{_UNITS}\b|(?:{_CODES})\b)"
            rf"(?:\s\((?:{_CODES})\))?",
            0.8,
        ),
        (rf"\b{_AMOUNT}(?:\s?%|\sper\s?cent\b)", 0.6),
    ]
    return [
        _by_pattern("DATE_TIME", "WrittenDateRecognizer", int(re.IGNORECASE), dates),
        _by_pattern("QUANTITY", "SumRecognizer", 0, sums),
    ]


def _by_pattern(
    entity: str, name: str, flags: int, patterns: list[tuple[str, float]]
) -> LocalRecognizer:
    return PatternRecognizer(
        supported_entity=entity,
        name=name,
        global_regex_flags=flags,
        patterns=[Pattern(f"{name} {i}", p, score) for i, (p, score) in enumerate(patterns)],
    )
