"""The data stages: corpus, scrub, dedup, tokens."""

import hashlib
import heapq
import hmac
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmlm.artifacts import SealedFolder
from dpmlm.config import RunConfig, claim_fields
from dpmlm.corpus import (
    Document,
    Dropped,
    count_shards,
    read_corpus,
    read_shard,
    read_shards,
    shard_name,
    stage_document,
    write_shard,
    write_shards,
)
from dpmlm.errors import UserError
from dpmlm.pipeline.accounts import open_ledger
from dpmlm.pipeline.ancestor import continued_vocabulary, open_continued, read_continued
from dpmlm.pipeline.context import Run, data_order
from dpmlm.pipeline.duplicates import build_dedup, dedup_settings, sketching
from dpmlm.pipeline.planted import planted_documents, planted_ids, plants, refuse_taken
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.quarantine import left_out
from dpmlm.pipeline.roundtrip import refuse_damaging
from dpmlm.pipeline.secrets import key_check
from dpmlm.pipeline.stages import BEGUN, ShardWork, Stage, do_shard, shard_codes
from dpmlm.pipeline.tombstones import Tombstones, tombstones_of
from dpmlm.pipeline.vocabulary import private_tokenizer
from dpmlm.scrub import Scrubbed, Scrubber, load_policy
from dpmlm.scrub.scrubber import cores
from dpmlm.tokens import TokenStore, load_tokenizer, tokenizer_digest, train_subwords

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from dpmlm.scrub.mentions import Mentions


PERSONS = "persons"
"""Sealed file of the corpus stage: under which key its documents name persons, and the tombstones
that they were read with; written before the first shard."""


def read_public(path: Path, text: str) -> Iterator[Document]:
    """Documents of a declared public corpus; empty ones are passed over."""
    for item in read_corpus(path, text=text):
        if isinstance(item, Document):
            yield item


def sample_public(path: Path, text: str, count: int) -> list[Document]:
    """At most `count` documents from all over a public corpus, the same ones every time."""

    def place(document: Document) -> bytes:
        return hashlib.sha256(document.id.encode()).digest()

    return heapq.nsmallest(count, read_public(path, text), key=place)


def _corpus(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    dropped: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    forgotten = quarantined = 0
    units: dict[str, str] = {}
    persons, stones = _begin_persons(run, folder)
    kept_out = left_out(stones, run.config.corpus.path)
    planted = list(planted_documents(run))
    some_planted = plants(run.config)

    def kept() -> Iterator[dict[str, Any]]:
        nonlocal forgotten, quarantined
        for count, item in enumerate(_read(run), start=1):
            report(count, count)
            document = item.document if isinstance(item, Dropped) else item
            if stones.name(document.person):
                forgotten += 1
                continue
            if kept_out.holds(document.source, document.row):
                quarantined += 1
                continue
            if some_planted:
                refuse_taken(document)
            if isinstance(item, Dropped):
                reasons[item.reason] += 1
                dropped.append(item.as_dict())
                continue
            row = stage_document(
                item,
                unit=run.config.privacy.owner,
                validation=run.config.split.validation,
                key=run.secrets.unit_key,
            )
            units[row["unit"]] = row["split"]
            yield row
        yield from planted

    count = write_shards(folder, kept(), per_shard=run.config.corpus.per_shard)
    folder.write_json("dropped", dropped)
    if not any(split == "train" for split in units.values()):
        raise UserError(
            f"corpus {run.config.corpus.path}",
            "no unit is left for training after the split",
            "give it more text or lower split.validation",
        )
    splits = Counter(units.values())
    counts = {
        "documents": count - len(planted),
        **_said(run, {"documents": len(planted)}),
        "dropped": dict(reasons),
        **({"forgotten": forgotten} if stones else {}),
        **({"quarantined": quarantined} if stones.quarantines else {}),
        "units": len(units),
        "train_units": splits["train"],
        "validation_units": splits["validation"],
    }
    return {"counts": counts, **persons}


def _begin_persons(run: Run, folder: SealedFolder) -> tuple[dict[str, Any], Tombstones]:
    """How persons are recorded, for the manifest, and whose documents are kept out.

    Shards of an attempt that recorded none, or knew fewer tombstones, are written again.
    """
    stones = tombstones_of(open_ledger(run.config.ledger), run.secrets)
    mine = {"persons": key_check(run.secrets.unit_key), "tombstones": stones.record}
    begun = folder.read_json(PERSONS) if folder.has(PERSONS) else None
    if begun is not None:
        stones.refuse_shorter(begun["tombstones"], f"workspace {run.workspace.path}")
    if begun != mine:
        for name in folder.names("documents-"):
            folder.remove(name)
        folder.write_json(PERSONS, mine)
    return mine, stones


def _said(run: Run, counts: dict[str, Any]) -> dict[str, Any]:
    """Counts of planted canaries, beside those of the corpus, where the run plants any."""
    return {"canaries": counts} if plants(run.config) else {}


def _read(run: Run) -> Iterator[Document | Dropped]:
    corpus = run.config.corpus
    return read_corpus(corpus.path, text=corpus.text, id=corpus.id, person=corpus.person)


def _corpus_settings(run: Run) -> dict[str, Any]:
    config = run.config
    fields = claim_fields(config.corpus) | {"split": config.split.validation}
    return fields | {
        "unit": config.privacy.owner,
        "source": _keyed_digest(config.corpus.path, run.secrets.corpus_key),
    }


def _keyed_digest(path: Path, key: bytes) -> str:
    """Keyed, so that nobody can confirm a guess at the corpus from it."""
    if not path.exists():
        raise UserError(f"corpus {path}", "there is no such file or folder", "check corpus.path")
    state = hmac.new(key, digestmod="sha256")
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        state.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                state.update(block)
    return state.hexdigest()


def _scrub(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    source = run.source("scrub")
    shards, total = count_shards(source), (source.manifest or {})["counts"]["documents"]
    key = folder.read_json(BEGUN)["key"]
    found: Counter[str] = Counter()
    planted: Counter[str] = Counter()
    found_planted: Counter[str] = Counter()
    emptied, done = 0, 0
    with _scrubbing(run) as scrub_shard:
        for number in range(shards):
            do_shard(folder, number, scrub_shard, _after(done, total, report), key=key)
            counts = folder.read_json(shard_name("counts", number))
            found.update(counts["found"])
            emptied += counts["emptied"]
            done += counts["documents"]
            planted.update(counts["canaries"]["documents"])
            found_planted.update(counts["canaries"]["found"])
            report(done, total)
    dropped = {"emptied": emptied}
    apart = {"documents": planted["kept"], "emptied": planted["emptied"]}
    counts = {
        "documents": done - emptied,
        **_said(run, {**apart, "found": dict(found_planted)}),
        "found": dict(found),
        "dropped": dropped,
    }
    return {"counts": counts, "codes": shard_codes(folder)}


def _after(before: int, total: int, report: Report) -> Report:
    """Progress within one shard as progress of the stage."""
    return lambda done, _: report(before + done, total)


@contextmanager
def _scrubbing(run: Run) -> Iterator[ShardWork]:
    """What one of several workers does for the stage: scrub a shard with a model that stays."""
    source = run.source("scrub")
    processes = run.config.scrub.processes or cores()
    policy = load_policy(run.config.scrub.policy)
    # Dates of a person move together. Where documents are units they move with the text, or texts
    # that say the same would say something else each.
    of_persons = run.config.privacy.owner == "person"
    planted = planted_ids(run, "scrub")
    with Scrubber(policy, pseudonym_key=run.secrets.pseudonym_key) as scrubber:

        def scrub_shard(folder: SealedFolder, number: int, report: Report) -> None:
            documents = read_shard(source, number)
            results = scrubber.scrub_many(
                [document["text"] for document in documents],
                persons=[document["unit"] if of_persons else None for document in documents],
                processes=processes,
            )
            counted = _counted(results, report, len(documents))
            _write_scrubbed(folder, number, documents, counted, planted)

        yield scrub_shard


def _counted(results: Iterator[Scrubbed], report: Report, total: int) -> Iterator[Scrubbed]:
    for count, result in enumerate(results, start=1):
        yield result
        report(count, total)


def _write_scrubbed(
    folder: SealedFolder,
    number: int,
    documents: list[dict[str, Any]],
    results: Iterator[Scrubbed],
    planted: Container[str],
) -> None:
    kept: list[dict[str, Any]] = []
    decisions: list[dict[str, Any]] = []
    emptied: list[dict[str, Any]] = []
    found: Counter[str] = Counter()
    found_planted: Counter[str] = Counter()
    for document, scrubbed in zip(documents, results, strict=True):
        into = found_planted if document["id"] in planted else found
        into.update(decision.entity for decision in scrubbed.decisions)
        decisions.append({"id": document["id"], "spans": [asdict(d) for d in scrubbed.decisions]})
        target = kept if scrubbed.text.strip() else emptied
        count = len(scrubbed.decisions)
        target.append(document | {"text": scrubbed.text, "identifiers": count})
    write_shard(folder, number, kept)
    folder.write_json(shard_name("decisions", number), decisions)
    folder.write_json(shard_name("emptied", number), emptied)
    folder.write_json(
        shard_name("counts", number),
        _shard_counts(kept, emptied, found, found_planted, planted),
    )


def _shard_counts(
    kept: list[dict[str, Any]],
    emptied: list[dict[str, Any]],
    found: Counter[str],
    found_planted: Counter[str],
    planted: Container[str],
) -> dict[str, Any]:
    """Counts of one scrubbed shard; those of planted canaries apart."""
    apart = {
        name: sum(document["id"] in planted for document in documents)
        for name, documents in (("kept", kept), ("emptied", emptied))
    }
    return {
        "documents": len(kept) + len(emptied) - sum(apart.values()),
        "emptied": len(emptied) - apart["emptied"],
        "found": dict(found),
        "canaries": {"documents": apart, "found": dict(found_planted)},
    }


def _scrub_settings(run: Run) -> dict[str, Any]:
    policy = load_policy(run.config.scrub.policy)
    settings = claim_fields(run.config.scrub) | {"policy": policy.digest}
    if policy.needs_key:
        settings["pseudonyms"] = key_check(run.secrets.pseudonym_key)
    return settings


def _tokens(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    if run.config.tokens.private is not None:
        tokenizer = private_tokenizer(run, folder)
    elif run.config.model.continues is not None:
        _, tokenizer = open_continued(run.config, run.identity)
    else:
        tokenizer = public_tokenizer(run.config)
    refuse_damaging(tokenizer, f"the tokenizer of {named_vocabulary(run.config)}")
    planted = planted_ids(run, "tokens")
    reached = 0

    def documents() -> Iterator[dict[str, Any]]:
        nonlocal reached
        for document in read_shards(run.source("tokens")):
            reached += document["id"] in planted
            yield document

    names = names_finder(run.config.masking.strategy, run.config.scrub.policy)
    facts = TokenStore.build(folder, documents(), tokenizer, progress=report, names=names)
    # Tokens are of both: how many of the documents are canaries is said beside them.
    return {"counts": {**facts, **_said(run, {"documents_among_these": reached})}}


def public_tokenizer(config: RunConfig) -> "PreTrainedTokenizerFast":
    """The one that the run file names, or has trained on text that is declared public."""
    train = config.tokens.train
    if train is None:
        return load_tokenizer(str(config.tokens.vocabulary))
    public = read_public(train.corpus, train.text)
    return train_subwords(
        train.kind, (d.text for d in public), vocab_size=train.size, unused=train.unused
    )


def named_vocabulary(config: RunConfig) -> str:
    """The field that says where the vocabulary comes from, with what it names."""
    tokens = config.tokens
    if tokens.private is not None:
        return "tokens.private"
    if tokens.train is not None:
        return f"tokens.train {tokens.train.corpus}"
    if config.model.continues is not None:
        return f"model.continues {config.model.continues}"
    return f"tokens.vocabulary {tokens.vocabulary}"


def _tokens_settings(run: Run) -> dict[str, Any]:
    """Of the window nothing: it is drawn in training. Of masking, whether names are marked."""
    if run.config.masking.strategy == "entity":
        return _vocabulary_settings(run) | {"names": load_policy(run.config.scrub.policy).digest}
    return _vocabulary_settings(run)


def names_finder(strategy: str, policy: str) -> "Mentions | None":
    """What finds the names that masking strategy `entity` masks apart; None for the others."""
    if strategy != "entity":
        return None
    from dpmlm.scrub.mentions import Mentions

    return Mentions(load_policy(policy))


def _vocabulary_settings(run: Run) -> dict[str, Any]:
    tokens = run.config.tokens
    if tokens.private is not None:
        return claim_fields(tokens.private)
    if tokens.train is not None:
        return claim_fields(tokens.train) | {"source": public_digest(tokens.train.corpus)}
    if tokens.vocabulary is None:
        return {"continued": continued_vocabulary(read_continued(run.config))}
    return {"vocabulary": tokenizer_digest(load_tokenizer(str(tokens.vocabulary)))}


def public_digest(path: Path) -> str:
    """Digest of declared public text, a file or a folder: what it says, not where it lies."""
    return _keyed_digest(path, b"")


_CORPUS = Stage("corpus", (), _corpus_settings, _corpus)
_SCRUB = Stage("scrub", (), _scrub_settings, _scrub, shards=_scrubbing)
_DEDUP = Stage("dedup", (), dedup_settings, build_dedup, shards=sketching)
_TOKENS = Stage("tokens", (), _tokens_settings, _tokens)


def data_stages(config: RunConfig) -> tuple[Stage, ...]:
    """The stages that text passes through, each reading the one before it.

    The first of them reads canaries that are planted among the documents, where there are any.
    """
    stages = {stage.name: stage for stage in (_SCRUB, _DEDUP, _TOKENS)}
    order = data_order(config)
    following = (replace(stages[name], inputs=(before,)) for before, name in pairwise(order))
    planted = ("planted",) if plants(config) else ()
    return (replace(_CORPUS, inputs=planted), *following)
