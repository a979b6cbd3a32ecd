"""How much of what had to be found was found: recall against gold spans, as TAB measures it.

A gold span counts as found when every one of its characters is replaced (Pilan et al. 2022,
"The Text Anonymization Benchmark"). Direct and quasi identifiers are counted apart; spans marked
NO_MASK need not be found. Intervals are Clopper and Pearson's, 95 %.

Precision is counted by characters: of those that were replaced and are no blanks, the share that
lies in a gold span of any kind, NO_MASK included. It has no interval, as the characters of one
word are right or wrong together.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scipy.stats import beta

from dpmlm.errors import UserError
from dpmlm.scrub.scrubber import Scrubbed, Scrubber

NO_MASK = "NO_MASK"
IDENTIFIERS = ("DIRECT", "QUASI", NO_MASK)
"""What a gold span may be: it points to one person alone, or beside others, or need not go."""


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval."""

    hits: int
    """How many were found."""
    total: int
    """Of how many, at least 0."""

    @property
    def value(self) -> float | None:
        """The share, 0 to 1; None of nothing."""
        return self.hits / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson 95 % bounds; (0, 1) of nothing."""
        return clopper_pearson(self.hits, self.total)

    def to_json(self) -> dict[str, Any]:
        """Counts, share and bounds."""
        low, high = self.interval
        return {"found": self.hits, "of": self.total, "rate": self.value, "low": low, "high": high}


@dataclass(frozen=True)
class Miss:
    """A gold span that stayed, all of it or a part."""

    row: int
    """Its document, counted from 0."""
    start: int
    end: int
    kind: str
    """Gold type, and DIRECT or QUASI where the gold has it."""


@dataclass(frozen=True)
class RecallReport:
    """Recall and precision of one policy on one gold set."""

    policy: str
    """Name of the policy."""
    documents: int
    """Gold documents."""
    recall: Rate
    """Of all gold spans that had to be found."""
    by_type: Mapping[str, Rate]
    """The same by gold type."""
    by_identifier: Mapping[str, Rate]
    """The same by DIRECT and QUASI, where the gold has them."""
    by_type_and_identifier: Mapping[str, Rate]
    """The same by "TYPE/IDENTIFIER", where the gold has them."""
    precision: Rate
    """Replaced characters, blanks left out, that lie in a gold span of any kind."""
    misses: tuple[Miss, ...] = ()
    """Every span that had to be found and was not; private, as its text is."""

    def worst(self, most: int) -> list[Miss]:
        """Direct identifiers first, then those of the types that are found least."""

        def badness(miss: Miss) -> tuple[bool, float, int, int]:
            rate = self.by_type[miss.kind.partition("/")[0]].value or 0.0
            return (not miss.kind.endswith("/DIRECT"), rate, miss.row, miss.start)

        return sorted(self.misses, key=badness)[:most]

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every rate and its bounds, and nothing of any text."""

        def rates(of: Mapping[str, Rate]) -> dict[str, Any]:
            return {name: of[name].to_json() for name in sorted(of)}

        return {
            "schema": "dpmlm.scrub.recall/2",
            "policy": self.policy,
            "documents": self.documents,
            "recall": self.recall.to_json(),
            "precision": {
                "right": self.precision.hits,
                "characters": self.precision.total,
                "rate": self.precision.value,
            },
            "by_type": rates(self.by_type),
            "by_identifier": rates(self.by_identifier),
            "by_type_and_identifier": rates(self.by_type_and_identifier),
        }


def clopper_pearson(hits: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact binomial bounds (Clopper and Pearson 1934) from quantiles of the beta distribution."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, total - hits + 1))
    high = 1.0 if hits == total else float(beta.ppf(1 - tail, hits + 1, total - hits))
    return low, high


def measure_recall(
    scrubber: Scrubber,
    gold: Iterable[Mapping[str, Any]],
    *,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> RecallReport:
    """Scrub the gold texts and compare.

    A row is {"id", "text", "spans": [{"start", "end", "type", "identifier"?}]}, offsets in
    characters. `progress` is called with documents done and documents in all. Raises UserError for
    a row of another kind (`broken_rule`).
    """
    rows = list(_checked(gold))
    tally = _Tally()
    texts = [row["text"] for row in rows]
    results = scrubber.scrub_many(texts, processes=processes)
    for done, (row, scrubbed) in enumerate(zip(rows, results, strict=True), start=1):
        tally.add(done - 1, row, scrubbed)
        if progress is not None:
            progress(done, len(rows))
    return tally.report(scrubber.policy.name, len(rows))


class _Tally:
    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._misses: list[Miss] = []

    def _count(self, group: str, name: str, hit: bool) -> None:
        counts = self._counts.setdefault((group, name), [0, 0])
        counts[0] += hit
        counts[1] += 1

    def add(self, number: int, row: Mapping[str, Any], scrubbed: Scrubbed) -> None:
        replaced = [(d.start, d.end) for d in scrubbed.decisions if d.operator != "keep"]
        covered = bytearray(len(row["text"]))
        for start, end in replaced:
            covered[start:end] = b"\1" * (end - start)
        for span in row["spans"]:
            identifier = span.get("identifier")
            if identifier == NO_MASK:
                continue
            hit = all(covered[span["start"] : span["end"]])
            if not hit:
                kind = f"{span['type']}/{identifier}" if identifier else span["type"]
                self._misses.append(Miss(number, span["start"], span["end"], kind))
            self._count("all", "", hit)
            self._count("type", span["type"], hit)
            if identifier:
                self._count("identifier", identifier, hit)
                self._count("both", f"{span['type']}/{identifier}", hit)
        self._characters(row["text"], covered, row["spans"])

    def _characters(
        self, text: str, covered: bytearray, spans: Iterable[Mapping[str, Any]]
    ) -> None:
        gold = bytearray(len(text))
        for span in spans:
            gold[span["start"] : span["end"]] = b"\1" * (span["end"] - span["start"])
        for letter, replaced, right in zip(text, covered, gold, strict=True):
            if replaced and not letter.isspace():
                self._count("precision", "", bool(right))

    def report(self, policy: str, documents: int) -> RecallReport:
        def rates(group: str) -> dict[str, Rate]:
            return {name: Rate(*c) for (kind, name), c in self._counts.items() if kind == group}

        return RecallReport(
            policy=policy,
            documents=documents,
            recall=rates("all").get("", Rate(0, 0)),
            by_type=rates("type"),
            by_identifier=rates("identifier"),
            by_type_and_identifier=rates("both"),
            precision=rates("precision").get("", Rate(0, 0)),
            misses=tuple(self._misses),
        )


def broken_rule(row: Any) -> str | None:
    """The rule that a gold row breaks, in words that hold nothing of it; None if it is sound."""
    if not isinstance(row, Mapping):
        return 'a gold row is {"id", "text", "spans": [{"start", "end", "type"}]}'
    text, spans = row.get("text"), row.get("spans")
    if not isinstance(text, str) or not _encodable(text):
        return "the text of a gold row is a string without lone surrogates"
    if spans is None and "spans" in row:
        return (
            "the spans of a gold row are null until somebody has read it: "
            "write them, or [] where there are none"
        )
    if not isinstance(row.get("prefilled"), bool | None):
        return "prefilled of a gold row is true or false, where it is given"
    if not isinstance(spans, list | tuple) or not all(isinstance(s, Mapping) for s in spans):
        return "the spans of a gold row are a list of objects"
    for span in spans:
        start, end, identifier = span.get("start"), span.get("end"), span.get("identifier")
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
            return "a span of a gold row has start and end inside its text, and is not empty"
        if not isinstance(span.get("type"), str) or not span["type"]:
            return "a span of a gold row has a type, a string"
        if identifier is not None and identifier not in IDENTIFIERS:
            return "the identifier of a span of a gold row is DIRECT, QUASI or NO_MASK"
    return None


def _encodable(text: str) -> bool:
    """JSON can spell half a surrogate pair, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked(gold: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for number, row in enumerate(gold, 1):
        rule = broken_rule(row)
        if rule is not None:
            raise UserError(f"gold row {number}", rule, "mend the row")
        yield row
