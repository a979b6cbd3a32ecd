"""Scrubbing texts: find, decide, replace; in one process or in several.

A text's result depends on that text, the policy and the key alone, never on its neighbours: no
text shares a batch with another. So the result
is the same for any number of processes, and scrubbing keeps a privacy claim on the source corpus.
"""

import functools
import itertools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Self

from dpmlm.errors import UserError
from dpmlm.scrub.engine import Analyzer, check_pipeline, check_token_classifier
from dpmlm.scrub.findings import Finding, resolve
from dpmlm.scrub.names import propagate
from dpmlm.scrub.operators.replacement import KEEPS_SOME, replacement
from dpmlm.scrub.policy import Operator, ScrubPolicy
from dpmlm.scrub.view import View

_CHUNK = 32


def cores() -> int:
    """Cores that this process may use: as many workers as it pays to start."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(allowed(0)) if allowed else os.cpu_count() or 1


_LEAST_KEY = 16
_Text = tuple[str, str | None]
"""A text and whose it is."""


@dataclass(frozen=True)
class Decision:
    """One replaced stretch. It holds no text, so a log of decisions gives nothing away."""

    start: int
    """First character in the original text."""
    end: int
    """One past the last."""
    entity: str
    """Presidio's name of the entity."""
    recognizer: str
    """Who found it."""
    score: float
    """How sure it was, 0 to 1."""
    operator: Operator
    """What was done."""


@dataclass(frozen=True)
class Scrubbed:
    """A scrubbed text and why it looks so."""

    text: str
    """The text after replacement."""
    decisions: tuple[Decision, ...]
    """What was replaced, in order; offsets are those of the original."""


def replay(
    text: str, decisions: Iterable[Decision], key: bytes | None, *, person: str | None = None
) -> str:
    """The scrubbed text that a log of decisions makes of the original, without any model.

    `decisions` are in order and do not overlap, as a scrubber leaves them; `key` and `person` are
    those that it was given.
    """
    pieces, last = [], 0
    for made in decisions:
        original = text[made.start : made.end]
        pieces.append(text[last : made.start])
        pieces.append(replacement(made.operator, made.entity, original, key, person=person or text))
        last = made.end
    return "".join([*pieces, text[last:]])


@functools.lru_cache(maxsize=2)
def _shipped_analyzer(policy: str) -> Analyzer:
    """Kept, as it takes seconds: a run scrubs, measures recall and prepares attacks with it."""
    return Analyzer(ScrubPolicy.model_validate_json(policy))


class Scrubber:
    """Scrubs texts under one policy.

    The model is loaded on first use (seconds) and workers stay until `close()`, so make one
    scrubber and keep it. It is a context manager.
    """

    def __init__(self, policy: ScrubPolicy, *, pseudonym_key: bytes | None = None) -> None:
        """Raises UserError when the policy makes pseudonyms and there is no key of 16 bytes, or
        when it names a spaCy pipeline or a token classifier that is not there."""
        check_pipeline(policy.engine.spacy)
        check_token_classifier(policy.engine.token_classifier)
        if policy.needs_key and (pseudonym_key is None or len(pseudonym_key) < _LEAST_KEY):
            given = "no key" if pseudonym_key is None else f"a key of {len(pseudonym_key)} bytes"
            raise UserError(
                f"scrub policy {policy.name}: {given}",
                f"its pseudonyms need a secret key of at least {_LEAST_KEY} bytes",
                "make one with `dpmlm keys new` and name it as keys.scrub in the run file",
            )
        self.policy = policy
        self._key = pseudonym_key
        self._pool: ProcessPoolExecutor | None = None
        self._pool_size = 0

    @functools.cached_property
    def _analyzer(self) -> Analyzer:
        engine = self.policy.engine
        if engine.spacy or engine.token_classifier or engine.remote:
            return Analyzer(self.policy)  # what it loads may be another the next time
        return _shipped_analyzer(self.policy.model_dump_json())

    @property
    def entities(self) -> list[str]:
        """Everything that can be found under the policy."""
        return self._analyzer.entities

    def scrub(self, text: str, person: str | None = None) -> Scrubbed:
        """Scrub one text; dates of all texts of `person` move together, without one those of this
        text alone."""
        kept = resolve(self._above_threshold(self._find(text)))
        decisions = tuple(self._decision(finding) for finding in kept)
        return Scrubbed(replay(text, decisions, self._key, person=person), decisions)

    def scrub_many(
        self,
        texts: Iterable[str],
        *,
        persons: Iterable[str | None] = itertools.repeat(None),
        processes: int = 1,
    ) -> Iterator[Scrubbed]:
        """Scrub texts in order, reading them, and whose they are, as they are needed.

        `processes` above 1 starts that many workers, each of which loads the model once. A
        handful of texts is done here: workers take longer to start than such texts to scrub.
        """
        chunks = _chunks(zip(texts, persons))
        first = list(itertools.islice(chunks, 2))
        if processes < 2 or (len(first) < 2 and self._pool is None):
            for chunk in itertools.chain(first, chunks):
                yield from itertools.starmap(self.scrub, chunk)
            return
        pool = self._workers(processes)
        waiting: deque[Future[list[Scrubbed]]] = deque()
        try:
            for chunk in itertools.chain(first, chunks):
                waiting.append(pool.submit(_scrub_chunk, chunk))
                if len(waiting) > 3 * processes:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """End the workers, if any run."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _workers(self, processes: int) -> ProcessPoolExecutor:
        if self._pool is None or self._pool_size != processes:
            self.close()
            self._pool_size = processes
            self._pool = ProcessPoolExecutor(
                processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(self.policy, self._key),
            )
        return self._pool

    def _find(self, text: str) -> list[Finding]:
        view = View(text)
        found = self._analyzer.find(view.text)
        if self.policy.engine.propagate_names:
            found += propagate(view.text, found)
        return [_trim(view, f) for f in found if not view.text[f.start : f.end].isspace()]

    def _decision(self, finding: Finding) -> Decision:
        operator = self.policy.rule_for(finding.entity).operator
        if finding.mixed and operator in KEEPS_SOME:
            operator = "placeholder"
        return Decision(
            start=finding.start,
            end=finding.end,
            entity=finding.entity,
            recognizer=finding.recognizer,
            score=finding.score,
            operator=operator,
        )

    def _above_threshold(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        for finding in findings:
            rule = self.policy.rule_for(finding.entity)
            if rule.operator != "keep" and finding.score >= rule.threshold:
                yield finding


def _trim(view: View, finding: Finding) -> Finding:
    """In the original, without the blanks and line ends at its ends, which are no part of it."""
    value = view.text[finding.start : finding.end]
    start = finding.start + len(value) - len(value.lstrip())
    start, end = view.place(start, start + len(value.strip()))
    return Finding(start, end, finding.entity, finding.recognizer, finding.score)


def _chunks(texts: Iterable[_Text]) -> Iterator[list[_Text]]:
    iterator = iter(texts)
    while chunk := list(itertools.islice(iterator, _CHUNK)):
        yield chunk


_worker: Scrubber | None = None


def _start_worker(policy: ScrubPolicy, key: bytes | None) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends its workers
    _worker = Scrubber(policy, pseudonym_key=key)


def _scrub_chunk(texts: list[_Text]) -> list[Scrubbed]:
    assert _worker is not None
    return list(itertools.starmap(_worker.scrub, texts))
