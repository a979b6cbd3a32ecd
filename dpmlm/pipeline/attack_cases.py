"""What membership inference and the games about identifiers are played with: texts of a run.

Units are drawn by the run's own seed, in the same way from those that were trained on and from
those that a keyed hash held out. Sizes are bounded, so that the cost does not grow with the corpus.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from audits.text.membership import MembershipCase, Record
from audits.text.pii_case import Mentions, PiiCase, PiiSentence
from audits.text.pii_games import Tagger
from dpmlm.corpus import count_shards, read_shard, read_shards, shard_name
from dpmlm.masking import counter_rng
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.planted import people_of
from dpmlm.scrub import Scrubber, load_policy
from dpmlm.tokens import Encoder, TokenStore

RECORDS = 200
"""Records a side; at two a person of 100 persons or more, as many as hits at 1 % need."""
PER_UNIT = 2
"""Records of one unit."""
POPULATION = 100
"""Held-out records beyond those, for RMIA."""
ROW = 32
"""Tokens of a record at most: what a loss costs grows with them."""
LEAST_TOKENS = 8
"""Tokens below which a record has too little to mask."""
DOCUMENTS = 60
"""Documents a split in which identifiers are looked for, one a unit."""
CHARACTERS = 2000
"""Of a document, what is looked through for them."""
MENTIONS = 3
"""Identifiers that are taken from one document."""
CONTEXT = 20
"""Tokens on either side of an identifier, at most."""
POLICY = "default"
"""The scrub policy whose finder tags, whatever the run scrubs with: a run may scrub nothing."""

Text = Literal["training", "original"]
"""The text that the model read, or that before scrubbing."""
Located = Sequence[tuple[int, int, str]]
"""Start, end and type of identifiers in a text."""

_PLACEHOLDER = re.compile(r"<[A-Z_]+>|█")
_WORD = re.compile(r"\w+")


def membership_case(run: Run, records: int = RECORDS) -> MembershipCase:
    """Windows of training units and of held-out ones, `records` of each, drawn alike.

    Membership is random: `split_of` hashes the unit under a secret key. (Near-duplicates are
    removed within each split, so the larger one may lose more of them.) A run that holds nobody
    out gives a case without non-members, which `membership` says it cannot judge.
    """
    store = TokenStore.open(run.folder("tokens"))
    others = _records(run, store, "validation", records + POPULATION)
    # Records of a unit stand together, and stay on one side.
    cut = min(records, len(others))
    while 0 < cut < len(others) and others[cut].unit == others[cut - 1].unit:
        cut += 1
    return MembershipCase(
        members=_records(run, store, "train", records),
        non_members=others[:cut],
        population=others[cut:],
        randomised=True,
    )


def _records(run: Run, store: TokenStore, split: str, wanted: int) -> list[Record]:
    rng = counter_rng(run.secrets.mask_seed, "membership", split)
    special = np.array(sorted(set(store.tokenizer.all_special_ids)))
    longest = min(ROW, run.config.tokens.window - 2)
    units = people_of(run, store, split)
    found: list[Record] = []
    for index in rng.permutation(len(units)):
        unit = units[int(index)]
        documents = store.documents_of(unit)
        for place in rng.permutation(len(documents))[:PER_UNIT]:
            tokens = store.tokens(documents[int(place)])
            begin = int(rng.integers(max(1, len(tokens) - longest + 1)))
            row = np.asarray(tokens[begin : begin + longest])
            if len(found) < wanted and (~np.isin(row, special)).sum() >= LEAST_TOKENS:
                found.append(Record(tuple(int(token) for token in row), unit))
        if len(found) >= wanted:
            break
    return found


@contextmanager
def finding_identifiers() -> Iterator[Tagger]:
    """A tagger: the finder of the default policy, placeholders left out."""
    with Scrubber(load_policy(POLICY)) as scrubber:
        yield lambda text: [
            (found.start, found.end, found.entity)
            for found in scrubber.scrub(text).decisions
            if not _PLACEHOLDER.search(text[max(0, found.start - 1) : found.end + 1])
        ]


def pii_case(
    run: Run, tagger: Tagger, *, text: Text = "training", documents: int = DOCUMENTS
) -> PiiCase:
    """Identifiers of `documents` training units and of as many held-out ones, in their contexts.

    In the training text `tagger` finds what scrubbing missed, what its operators put in place, or
    everything, where a run scrubs nothing. In the original text they are what the run itself
    found there: whether the model says what was taken out. Who is unseen was looked up in all of
    the training units' text of that kind.
    """
    store = TokenStore.open(run.folder("tokens"))
    wanted = {
        unit for split in ("train", "validation") for unit in _drawn(run, store, split, documents)
    }
    encoder = Encoder(store.tokenizer)
    found: dict[str, list[_Mention]] = {"train": [], "validation": []}
    taken: set[str] = set()
    for document, located in _documents(run, text):
        if document["unit"] in wanted - taken:
            taken.add(document["unit"])
            beginning = document["text"][:CHARACTERS]
            spans = tagger(beginning) if located is None else located
            found[document["split"]] += _mentions(run, encoder, document, beginning, spans)
    everyone = [*found["train"], *found["validation"]]
    counts = _counts({mention.surface for mention in everyone}, _documents(run, text))
    trained = _by_kind([m for m in everyone if counts["train"][m.surface]], counts["train"])
    strangers = [
        mention
        for mention in found["validation"]
        if not counts["train"][mention.surface]
        and mention.sentence.secret not in trained.get(mention.sentence.kind, ())
    ]
    return PiiCase(
        # A run of words that is part of a longer one, or cut off, stands nowhere by itself.
        train=_one_each(m for m in found["train"] if counts["train"][m.surface]),
        held_out=_one_each(strangers),
        mentions=trained,
        unseen=_by_kind(strangers, counts["validation"]),
    )


@dataclass(frozen=True)
class _Mention:
    sentence: PiiSentence
    surface: str


def _drawn(run: Run, store: TokenStore, split: str, wanted: int) -> list[str]:
    """The units of a split in whose text identifiers are looked for."""
    units = people_of(run, store, split)
    order = counter_rng(run.secrets.mask_seed, "identifiers", split).permutation(len(units))
    return [units[int(index)] for index in order[:wanted]]


def _documents(run: Run, text: Text) -> Iterator[tuple[dict[str, Any], Located | None]]:
    """All documents of the text; with what the run found in them, where it is the original."""
    if text == "training":
        yield from ((document, None) for document in read_shards(run.source("tokens")))
        return
    source, scrubbed = run.source("scrub"), run.folder("scrub")
    for number in range(count_shards(source)):
        decisions = {
            one["id"]: [(span["start"], span["end"], span["entity"]) for span in one["spans"]]
            for one in scrubbed.read_json(shard_name("decisions", number))
        }
        for document in read_shard(source, number):
            yield document, decisions[document["id"]]


def _mentions(
    run: Run, encoder: Encoder, document: Mapping[str, Any], text: str, located: Located
) -> list[_Mention]:
    """A few of a document's identifiers in their contexts, in random order.

    With the longest candidate in its place a row still fits the window: an identifier and either
    side of it take a third of it at most.
    """
    longest = (run.config.tokens.window - 2) // 3
    context = min(CONTEXT, longest)
    tokens, places = encoder.located(text)
    order = counter_rng(run.secrets.mask_seed, "mentions", document["id"]).permutation(len(located))
    found: list[_Mention] = []
    for start, end, kind in (located[int(index)] for index in order):
        inside = [n for n, (first, last) in enumerate(places) if first < end and start < last]
        surface = " ".join(_WORD.findall(text[start:end].casefold()))
        if end > len(text) or not surface or not 0 < len(inside) <= longest:
            continue
        first, last = inside[0], inside[-1] + 1
        sentence = PiiSentence(
            left=tuple(tokens[max(0, first - context) : first]),
            secret=tuple(tokens[first:last]),
            right=tuple(tokens[last : last + context]),
            kind=kind,
            unit=document["unit"],
        )
        found.append(_Mention(sentence, surface))
        if len(found) == MENTIONS:
            break
    return found


def _counts(
    surfaces: Iterable[str], documents: Iterable[tuple[dict[str, Any], Any]]
) -> dict[str, Counter[str]]:
    """Documents of each split that hold each run of words."""
    by_word: dict[str, list[str]] = defaultdict(list)
    for surface in surfaces:
        by_word[surface.split()[0]].append(surface)
    counts: dict[str, Counter[str]] = {"train": Counter(), "validation": Counter()}
    for document, _ in documents:
        words = _WORD.findall(document["text"].casefold())
        text = f" {' '.join(words)} "
        for word in by_word.keys() & set(words):
            counts[document["split"]].update(s for s in by_word[word] if f" {s} " in text)
    return counts


def _by_kind(mentions: Iterable[_Mention], counts: Counter[str]) -> Mentions:
    result: dict[str, dict[tuple[int, ...], int]] = defaultdict(dict)
    for mention in mentions:
        result[mention.sentence.kind][mention.sentence.secret] = counts[mention.surface]
    return dict(result)


def _one_each(mentions: Iterable[_Mention]) -> list[PiiSentence]:
    """The first of each unit."""
    found: dict[str, PiiSentence] = {}
    for mention in mentions:
        found.setdefault(mention.sentence.unit, mention.sentence)
    return list(found.values())
