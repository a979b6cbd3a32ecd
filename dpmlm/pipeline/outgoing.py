"""What leaves with a bundle in clear, looked through before it is signed.

The public files are written by templates that hold nothing of the private text. What a person puts
into a run file, a policy or a waiver reaches them too: a run's name, an intended use, a reason. So
every file is searched for identifiers of a certain form, for persons and pseudonyms of the corpus,
and for passages of the private text. A find refuses the release: a bundle with the verdict FAIL
would hold it as well. The message names the file and the kind, never what was found.
"""

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dpmlm.corpus import Dropped, read_corpus, read_shards
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run

PASSAGE = 8
"""Words in a row of a private document that no public file may hold."""
ENTITIES = ("EMAIL_ADDRESS", "PHONE_NUMBER", "US_SSN", "CREDIT_CARD", "IBAN_CODE")
"""Identifiers whose form alone says what they are; names are found by the corpus' own."""
_LONGEST_NAME = 6
_SEALED = (".sealed",)
_TAGS = re.compile(r"<style.*?</style>|<script.*?</script>|<svg.*?</svg>|<[^>]*>", re.S | re.I)
_OURS = re.compile(
    r"\b[0-9a-f]{16,}\b|\b\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+[\d:]+)?|\b\d+(?:\.\d+)+(?:e[-+]?\d+)?\b"
)
"""Digests, times, fractions and versions, which are written by this program."""
_WORD = re.compile(r"[^\W\d_]+")
_TOKEN = re.compile(r"\w+")
_PSEUDONYM = re.compile(r"\b[0-9a-f]{32}\b")


def refuse_leaks(run: Run, bundle: Path) -> None:
    """Search every file in clear of a bundle that is to be signed. Raises UserError at a find."""
    texts = {
        path.relative_to(bundle).as_posix(): list(_texts(path))
        for path in sorted(bundle.rglob("*"))
        if path.is_file() and not path.name.endswith(_SEALED)
    }
    for name, parts in texts.items():
        for part in parts:
            for kind in identifiers(part):
                raise _leak(name, f"an identifier of kind {kind}")
    public = {name: Words(parts) for name, parts in texts.items()}
    # All files are asked at once, and only at a find which of them it is.
    everywhere = Words(part for parts in texts.values() for part in parts)
    for document in read_shards(run.folder("corpus")):
        # A planted canary is nobody's.
        if "source" in document and _holds_document(everywhere, document):
            raise _document_leak(public, document)
    for document in read_shards(run.source("tokens")):
        if _holds_document(everywhere, document):
            raise _document_leak(public, document)
    for person in _persons(run):
        if everywhere.hold_name(person):
            name = next(name for name, words in public.items() if words.hold_name(person))
            raise _leak(name, "a person as the corpus names them")


def identifiers(text: str) -> Iterator[str]:
    """Kinds of identifiers in a text that this program did not write itself."""
    plain = _OURS.sub(" ", text)
    for found in _patterns().find(plain):
        said = plain[found.start : found.end]
        # A bare row of digits may count anything; people write numbers in groups.
        if found.entity != "PHONE_NUMBER" or re.search(r"\d[-. ()]+\d", said):
            yield found.entity


class Words:
    """The words of one public file, to look up private ones in."""

    def __init__(self, parts: Iterable[str]) -> None:
        self._passages: set[tuple[str, ...]] = set()
        self._names: set[tuple[str, ...]] = set()
        self._pseudonyms: set[str] = set()
        for part in parts:
            self._passages.update(passages(part))
            tokens = _TOKEN.findall(part.casefold())
            for size in range(1, _LONGEST_NAME + 1):
                self._names.update(zip(*(tokens[i:] for i in range(size)), strict=False))
            self._pseudonyms.update(_PSEUDONYM.findall(part))

    def hold_passage(self, text: str) -> bool:
        """Whether a passage of a private text stands here."""
        return bool(self._passages) and any(one in self._passages for one in passages(text))

    def hold_name(self, name: str) -> bool:
        """Whether a person's name stands here: one of two words or more, or with a digit, as a
        single word may be any word."""
        tokens = tuple(_TOKEN.findall(name.casefold()))
        telling = len(tokens) > 1 or any(letter.isdigit() for letter in name)
        return telling and len(name) > 4 and tokens in self._names

    def hold_pseudonym(self, pseudonym: str | None) -> bool:
        """Whether a keyed hash of the corpus stands here."""
        return pseudonym in self._pseudonyms


def passages(text: str) -> Iterator[tuple[str, ...]]:
    """Every `PASSAGE` words in a row, of which half are different ones."""
    words = _WORD.findall(text.casefold())
    for one in zip(*(words[i:] for i in range(PASSAGE)), strict=False):
        if len(set(one)) > PASSAGE // 2:
            yield one


def _holds_document(words: Words, document: Mapping[str, Any]) -> bool:
    pseudonyms = (document.get("unit"), document.get("person"))
    return words.hold_passage(document["text"]) or any(map(words.hold_pseudonym, pseudonyms))


def _document_leak(public: Mapping[str, Words], document: Mapping[str, Any]) -> UserError:
    name = next(name for name, words in public.items() if _holds_document(words, document))
    if public[name].hold_passage(document["text"]):
        return _leak(name, f"{PASSAGE} words in a row of a private document")
    return _leak(name, "a pseudonym of the corpus")


def _persons(run: Run) -> Iterator[str]:
    """As the corpus file names them, while it is there: stages hold pseudonyms alone."""
    corpus = run.config.corpus
    if corpus.person is None or not corpus.path.exists():
        return
    for item in read_corpus(corpus.path, text=corpus.text, id=corpus.id, person=corpus.person):
        person = (item.document if isinstance(item, Dropped) else item).person
        if person is not None:
            yield person


def _texts(path: Path) -> Iterator[str]:
    """What a file says: strings of JSON, the words of a page, else its lines."""
    data = path.read_text(errors="replace")
    if path.suffix == ".json":
        yield from _strings(json.loads(data))
    elif path.suffix == ".html":
        yield html.unescape(_TAGS.sub(" ", data))
    else:
        yield data


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


@cache
def _patterns() -> Any:
    from dpmlm.scrub.patterns.search import Patterns, can_scan
    from dpmlm.scrub.recognizers.registry import presidio_recognizers

    chosen = [
        one
        for one in presidio_recognizers()
        if set(one.supported_entities) <= set(ENTITIES) and can_scan(one)
    ]
    return Patterns(chosen, lambda entity: 0.4)


def _leak(file: str, kind: str) -> UserError:
    return UserError(
        f"{file} of the bundle that was to be signed",
        f"it holds {kind}, and everybody may read it",
        "take it out of what the run file names (name, intended_use, model, policy, waivers) and "
        "run again; nothing was signed, and a former bundle is as it was",
    )
