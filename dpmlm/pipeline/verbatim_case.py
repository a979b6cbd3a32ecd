"""The spans that verbatim extraction is tried on: where they stand, and who else holds the text."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
from scipy.stats import binom

from audits.text.spans import Span, VerbatimCase
from dpmlm.corpus import read_shards
from dpmlm.dedup import REPORT_THRESHOLD
from dpmlm.dedup.bands import UNLIKELY, band_keys, bands_for
from dpmlm.dedup.shingles import jaccard, shingle_set
from dpmlm.dedup.signatures import PERMUTATIONS, signatures
from dpmlm.masking import counter_rng
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.planted import people_of
from dpmlm.tokens import TokenStore

SPAN = 10
"""Tokens of a verbatim span, and the least context on either side."""
_TOGETHER = 500  # documents whose signatures are made at once


def verbatim_case(run: Run) -> VerbatimCase | None:
    """One span of a training unit each, and as many of held-out units; None if none is wanted.

    Empty where no document is long enough: whether one is, is private, so the public evidence
    must not depend on it.
    """
    audit = run.config.audit
    if not audit.verbatim_spans:
        return None
    store = TokenStore.open(run.folder("tokens"))
    train, twins = (
        drawn_spans(run, store, split, audit.verbatim_spans) for split in ("train", "validation")
    )
    counts = surviving_duplicates(
        lambda: read_shards(run.source("tokens")), {store.id(number) for number, _ in train}
    )
    return VerbatimCase(
        train=[replace(span, duplicates=counts[store.id(number)]) for number, span in train],
        twins=[span for _, span in twins],
        grid=audit.verbatim_grid,
        seed=int(counter_rng(run.secrets.mask_seed, "verbatim", "gibbs").integers(2**62)),
    )


def drawn_spans(run: Run, store: TokenStore, split: str, wanted: int) -> list[tuple[int, Span]]:
    """At most one span a unit, with its document's number, from places that the run's seed picks.

    A span stands in a window with as many tokens or more on either side.
    """
    rng = counter_rng(run.secrets.mask_seed, "verbatim", split)
    units = people_of(run, store, split)
    spans: list[tuple[int, Span]] = []
    content = run.config.tokens.window - 2
    for index in rng.permutation(len(units)):
        unit = units[int(index)]
        documents = [
            number
            for number in store.documents_of(unit)
            if min(len(store.tokens(number)), content) >= 3 * SPAN
        ]
        if not documents:
            continue
        number = documents[int(rng.integers(len(documents)))]
        tokens = store.tokens(number)
        begin = int(rng.integers(max(1, len(tokens) - content + 1)))
        window = tuple(int(token) for token in tokens[begin : begin + content])
        start = int(rng.integers(SPAN, len(window) - 2 * SPAN + 1))
        end = start + SPAN
        spans.append((number, Span(window[:start], window[start:end], window[end:], unit)))
        if len(spans) == wanted:
            break
    return spans


Documents = Callable[[], Iterator[dict[str, Any]]]
"""Starts a pass over stage documents (id, text, unit, split)."""


def surviving_duplicates(documents: Documents, wanted: Collection[str]) -> dict[str, int]:
    """Of some training documents, by id: how many other training units hold the same or nearly so.

    Near is a proven Jaccard similarity of word 5-shingles from `REPORT_THRESHOLD` on; pairs are
    found by the signatures and bands that deduplication uses, and missed as rarely. Two passes;
    memory is that of the wanted texts, and of a few hundred others at a time.
    """
    held = {one["id"]: one for one in documents() if one["id"] in wanted}
    ids, texts = list(held), [one["text"] for one in held.values()]
    values = signatures(texts)
    bands, rows = bands_for(REPORT_THRESHOLD)
    keys = band_keys(values, rows, range(bands))
    least = int(binom.ppf(UNLIKELY, PERMUTATIONS, REPORT_THRESHOLD))
    shingles = cache(lambda mine: shingle_set(texts[mine]))
    units: list[set[str]] = [set() for _ in ids]

    def alike(mine: int, text: str) -> bool:
        if text == texts[mine]:
            return True
        return jaccard(shingles(mine), shingle_set(text)) >= REPORT_THRESHOLD

    trained = (one for one in documents() if one["split"] == "train")
    while some := list(islice(trained, _TOGETHER)):
        theirs = signatures([one["text"] for one in some])
        their_keys = band_keys(theirs, rows, range(bands))
        for mine, name in enumerate(ids):
            likely = np.flatnonzero((their_keys == keys[mine]).any(axis=1))
            agree = (theirs[likely] == values[mine]).sum(axis=1) >= least
            for other in (some[place] for place in likely[agree].tolist()):
                new = other["unit"] not in units[mine] | {held[name]["unit"]}
                if new and alike(mine, other["text"]):
                    units[mine].add(other["unit"])
    return {name: len(found) for name, found in zip(ids, units)}
