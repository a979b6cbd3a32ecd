"""The recognizers: all that Presidio has for English, two of them mended, and a few of our own.

The mended ones need no network for public suffixes and give URLs whole host names. Our own find
what Presidio has no recognizer for or is too strict about, and what a small name finder misses:
record and account numbers by their caption, phone numbers by caption or shape, addresses of any
network, names by their title, by the header line they stand in or as a signature.
"""

import inspect
import re
from collections.abc import Sequence
from typing import Any

import presidio_analyzer.predefined_recognizers as predefined
import tldextract
from presidio_analyzer import (
    EntityRecognizer,
    LocalRecognizer,
    Pattern,
    PatternRecognizer,
)

# The list that tldextract ships: by default it would fetch one and keep it in the home folder.
_SUFFIXES = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())

_FIND_CASE = int(re.MULTILINE)
_ANY_CASE = int(re.MULTILINE | re.IGNORECASE)


class OfflineEmailRecognizer(predefined.EmailRecognizer):
    """Presidio's, with a list of public suffixes that needs no network and no cache."""

    def validate_result(self, pattern_text: str) -> bool:
        """Whether the domain has a public suffix."""
        return bool(_SUFFIXES(pattern_text).fqdn)


class WholeUrlRecognizer(predefined.UrlRecognizer):
    """Presidio's, with whole host names.

    Its patterns also stop inside a word ("alt.at" of "alt.atheism", "x.com" of "x.community"): such
    a match is widened to the whole host name if that ends in a public suffix, and dropped if not.
    """

    _REST = re.compile(r"\w[\w.\-]*(?:/[^\s()<>\"']*)?")

    def whole(self, text: str, start: int, end: int) -> int:
        """Where the whole address ends; `start` where there is none."""
        rest = self._REST.match(text, end)
        if rest is None:
            return end
        return rest.end() if _SUFFIXES(text[start : rest.end()]).suffix else start


_MENDED = {"EmailRecognizer": OfflineEmailRecognizer, "UrlRecognizer": WholeUrlRecognizer}


def presidio_recognizers(countries: Sequence[str] | None = None) -> list[EntityRecognizer]:
    """One of each of Presidio's generic and national recognizers for English, by name.

    `countries` keeps the national ones of these two-letter codes; the generic ones always stay.
    """
    kept: list[EntityRecognizer] = []
    for name, kind in sorted(inspect.getmembers(predefined, inspect.isclass)):
        if not {"generic", "country_specific"} & set(kind.__module__.split(".")):
            continue
        recognizer: Any = _MENDED.get(name, kind)()
        if recognizer.supported_language != "en":
            continue
        country = getattr(kind, "COUNTRY_CODE", None)
        if countries is None or country is None or country.lower() in countries:
            recognizer.name = name
            kept.append(recognizer)
    return kept


_NAME = r"[A-Z][\w’'\-]+"
_FULL_NAME = rf"(?:{_NAME}|[A-Z]\.)(?:[ \t]+(?:{_NAME}|[A-Z]\.?|v[ao]n|de[rn]?|di|la)){{0,3}}"
_TITLE = r"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Madam|Judge|Nurse|Rev|Capt|Sgt|Lt|Col)"
_STREET = (
    r"(?:street|st|road|rd|avenue|ave|lane|ln|drive|dr|boulevard|blvd|court|ct|place|pl|square|sq"
    r"|terrace|way|close|crescent|parkway|pkwy|highway|hwy)"
)
_DOT = r"(?:[ ]?(?:\.|\(dot\)|\[dot\]|<dot>|_dot_)[ ]?|[ ]dot[ ])"
_SPELT_HOST = rf"[\w\-]{{1,40}}(?:{_DOT}[\w\-]{{2,40}}){{1,5}}"
_CLOSING = (
    r"(?:(?:(?:best|kind|warm)[ ]?)?(?:regards|wishes)|sincerely|yours[ ]\w+|cheers|thanks"
    r"|respectfully)"
)
_CALLED = (
    r"(?:tele)?(?:phone|fax)|tel|ph|facsimile|voice|mobile|cell|pager|modem|bbs|call|dial|hotline"
    r"|ring|work|home|office"
)
_NUMBER = r"(?:no|nr|num|number|id|#)"
_OLD = r"(?:9\d|1[0-2]\d)"


def _own(
    entity: str, name: str, flags: int, patterns: Sequence[tuple[str, float]], *context: str
) -> LocalRecognizer:
    return PatternRecognizer(
        supported_entity=entity,
        name=name,
        patterns=[
            Pattern(f"{name} {i}", regex, score) for i, (regex, score) in enumerate(patterns)
        ],
        context=list(context),
        global_regex_flags=flags,
    )


def own_recognizers() -> list[EntityRecognizer]:
    """Recognizers for captions, titles, headers, streets, ages and post codes."""
    return [
        _own(
            "PERSON",
            "TitledNameRecognizer",
            _FIND_CASE,
            [(rf"\b{_TITLE}\b\.?[ \t]+{_FULL_NAME}", 0.85), (r"\b[A-Z][a-z]+, M\.?D\.?\b", 0.6)],
        ),
        _own(
            "PERSON",
            "HeaderNameRecognizer",
            _FIND_CASE,
            [
                (rf"^From:[ \t]\K{_FULL_NAME}", 0.85),
                (rf"(?:Name|NAME|Patient|PATIENT|Signed): \K{_FULL_NAME}", 0.85),
                (rf"(?:Re: Mr|Sincerely,) \K{_FULL_NAME}", 0.85),
                (rf"[@\w]> \K{_FULL_NAME}(?= wr(?:ites|ote)\b)", 0.85),
                (rf"[@.]\w{{2,9}} \(\K{_FULL_NAME}(?=\))", 0.85),
                (rf'^From: "\K{_FULL_NAME}(?=")', 0.85),
                (rf"\b[Mm]y name is \K{_FULL_NAME}", 0.85),
            ],
        ),
        _own(
            "PERSON",
            "SignedNameRecognizer",
            _FIND_CASE,
            [
                (
                    rf"^--[ \-]*\n[ \t>]*\K{_FULL_NAME}(?=[ \t]*(?:$|[|,(<\t/]|[ ]{{2}}))",
                    0.7,
                ),
                (rf"^[ \t]*(?i:{_CLOSING})[,.!]?[ \t]*\n\s{{0,80}}\K{_FULL_NAME}(?=[ \t]*$)", 0.7),
                (
                    r"^(?:FROM|TO|CC|NAME|SENDER|PATIENT):[ \t]+\K"
                    r"[A-Z][A-Z'\-]+(?:[ \t]+[A-Z][A-Z'\-]*\.?){1,3}(?=[ \t]*(?:$|[<(]))",
                    0.7,
                ),
            ],
        ),
        _own(
            "EMAIL_ADDRESS",
            "AnyAddressRecognizer",
            _ANY_CASE,
            [
                # By way of hosts, as mail went over UUCP.
                (r"(?<![\w!])[.!]*[\w\-][\w.\-]{0,40}(?:![\w.%\-]{1,40}){2,8}", 0.5),
                (r"(?<![\w!])(?:\.{2,3}!?|!)[\w\-][\w.\-]{0,40}(?:![\w.%\-]{1,40}){1,8}", 0.5),
                # Hosts without a public suffix: local ones, and networks that are gone.
                (r"(?<![\w.+%!=\-])[a-z][\w.+%!=\-]*@[a-z][\w\-]*(?:\.[\w\-]+)*", 0.5),
                (r"\b[\w.+%\-]{1,40}(?:[ ]@[ ]?|@[ ])[\w\-]{1,40}(?:\.[\w\-]{2,40}){1,5}\b", 0.5),
                (
                    r"\b[\w.+\-]{1,40}[ ]?(?:\(at\)|\[at\]|<at>|\{at\}|_at_)[ ]?"
                    rf"{_SPELT_HOST}\b",
                    0.6,
                ),
                (r"\b[\w.+\-]{1,40}[ ]at[ ][\w\-]{1,40}(?:[ ]dot[ ][\w\-]{2,40}){1,5}\b", 0.6),
            ],
        ),
        _own(
            "PHONE_NUMBER",
            "PhoneShapeRecognizer",
            _ANY_CASE,
            [
                # Area codes that are no longer, or not yet, in the plan of their country.
                (
                    r"(?<![\w.\-])(?:\+?1[ .\-]?)?(?:\(\d{3}\)[ \-]{0,2}|\d{3}[ .\-/])\d{3}[ .\-]"
                    r"\d{4}(?:[ ]?(?:x|ext)[.:]?[ ]?\d{1,6})?(?![\w\-])",
                    0.5,
                ),
                (r"(?<!\w)\+[ ]?[1-9]\d{0,2}[ .()\-/](?:[ .()\-/]{0,2}\d){6,13}(?!\w)", 0.5),
                # Of local ones: bare, behind another number, and before "(h)" or "(fax)".
                (r"(?<![\w.\-/])\d{3}-\d{4}(?:[ ]?(?:x|ext)[.:]?[ ]?\d{1,6})?(?![\w\-])", 0.4),
                (
                    r"\d{3}-\d{4}(?:[ ]?\(\w{1,6}\))?[ ]{0,2}(?:/|,|;|&|or|and)[ ]{0,2}"
                    r"\K(?:\d{3}-)?\d{4}(?![\w\-])",
                    0.5,
                ),
                (
                    r"(?<![\w.\-])\d{3}-\d{4}"
                    r"(?=[ ]?\((?:w|h|o|work|home|office|voice|fax|day|eve)\))",
                    0.5,
                ),
                (r"(?<![\w\-])1-[89]\d\d-[A-Z\d][A-Z\d\-]{5,10}[A-Z\d](?![\w\-])", 0.5),
                (
                    rf"\b(?:{_CALLED})\b[ \t]*(?:\([a-z]+\)|numbers?|no|at|is)?[ \t.:#=\-]{{0,12}}"
                    r"\K\+?\(?\d(?:[ .()\-/]{0,3}\d){6,13}(?:[ ]?(?:x|ext)[.:]?[ ]?\d{1,6})?"
                    r"(?![\w\-])",
                    0.75,
                ),
            ],
            "phone",
            "telephone",
            "tel",
            "fax",
            "voice",
            "call",
            "work",
            "home",
            "office",
            "mobile",
            "cell",
            "pager",
            "bbs",
            "modem",
        ),
        _own(
            "MEDICAL_RECORD_NUMBER",
            "MedicalRecordRecognizer",
            _ANY_CASE,
            [
                (
                    rf"\b(?:MRN|(?:medical )?record|chart|patient|hospital|unit|case)[ \t]?"
                    rf"{_NUMBER}?[.:# \t]{{0,3}}[A-Z]{{0,4}}-?\d[\d\-/]{{3,13}}\b",
                    0.8,
                )
            ],
        ),
        _own(
            "ACCOUNT_NUMBER",
            "CaptionedNumberRecognizer",
            _ANY_CASE,
            [
                (
                    rf"\b(?:account|acct|a/c|policy|member|beneficiary|invoice|customer|certificate"
                    rf"|licen[cs]e|passport|serial|device|claim|reference|ref|file|application)"
                    rf"[ \t]?{_NUMBER}?s?[.:# \t]{{1,3}}[A-Z]{{0,4}}-?\d[\w\-/]{{3,18}}\b",
                    0.7,
                )
            ],
        ),
        _own(
            "VEHICLE_ID",
            "VinRecognizer",
            _FIND_CASE,
            [(r"\b(?=[A-Z0-9]*\d)(?=[A-Z0-9]*[A-Z])[A-HJ-NPR-Z0-9]{17}\b", 0.4)],
            "vin",
            "vehicle",
            "chassis",
            "car",
        ),
        _own(
            "ADDRESS",
            "StreetRecognizer",
            _FIND_CASE,
            [
                (
                    rf"\b\d{{1,5}}[A-Za-z]?[ \t]+(?:[NSEW]\.?[ \t]+)?(?:{_NAME}[ \t]+){{1,3}}"
                    rf"(?i:{_STREET})\b\.?(?:,?[ \t]+(?i:apt|suite|unit|#)\.?[ \t]*\w+)?",
                    0.75,
                ),
                (r"\b(?i:p\.?[ ]?o\.?[ ]?box)[ \t]+\d+", 0.75),
            ],
        ),
        _own(
            "ZIP_CODE",
            "ZipRecognizer",
            _FIND_CASE,
            [(r"(?<=\b[A-Z]{2}[ \t]{1,3})\d{5}(?:-\d{4})?\b", 0.7), (r"\b\d{5}-\d{4}\b", 0.6)],
        ),
        _own(
            "AGE",
            "OldAgeRecognizer",
            _ANY_CASE,
            [
                (
                    rf"\b{_OLD}[ \-]?(?:years?|yrs?|y\.?/?o)\b\.?(?:[ \-](?:old|of age)\b)?",
                    0.8,
                ),
                (rf"\bage[d:]?[ ]?(?:of[ ])?\K{_OLD}(?![\w%]|[.,]\d)", 0.8),
            ],
        ),
    ]
