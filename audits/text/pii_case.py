"""Identifiers in training text and in text of people held out, and who else they could be.

What an attacker is asked (`PiiSentence`), the lists to choose from, and the controls that need no
model: another identifier of the type in place of the true one, and how often each is mentioned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dpmlm.artifacts import UserError

Mentions = Mapping[str, Mapping[tuple[int, ...], int]]
"""Type to identifier, as token ids, to the number of documents that mention it."""

CANDIDATES = 20
"""Identifiers to choose from in the inferable game, the true one among them."""
TOP = 10
"""Guesses a sentence in the reconstructable game, beside the first alone."""


@dataclass(frozen=True)
class PiiSentence:
    """An identifier in its context."""

    left: tuple[int, ...] = field(repr=False)
    """Token ids before it."""
    secret: tuple[int, ...] = field(repr=False)
    """Its own, at least one."""
    right: tuple[int, ...] = field(repr=False)
    """Token ids after it."""
    kind: str
    """Type, such as PERSON."""
    unit: str = field(repr=False)
    """Whose text it is; one sentence a unit."""


@dataclass(frozen=True)
class PiiCase:
    """Identifiers in training text, and in text of people whom the model never saw."""

    train: Sequence[PiiSentence] = field(repr=False)
    """Sentences of training units."""
    held_out: Sequence[PiiSentence] = field(repr=False)
    """Sentences of held-out units, with identifiers that no training text mentions."""
    mentions: Mentions = field(repr=False)
    """Identifiers of the training text, those of `train` among them."""
    unseen: Mentions = field(repr=False)
    """Identifiers of held-out text that no training text mentions."""


def candidates(
    sentences: Sequence[PiiSentence], case: PiiCase, seed: int
) -> list[list[tuple[int, ...]]]:
    """For each sentence the true identifier, then others of its type: first one of the training
    text, which takes the true one's place in the swapped control. Alone where there is none."""
    result = []
    for number, sentence in enumerate(sentences):
        rng = np.random.default_rng([seed, number])
        trained = _others(case, sentence)
        if not trained:
            result.append([sentence.secret])
            continue
        swapped = trained.pop(_by_mentions(trained, sentence, case, rng))
        unseen = {*case.unseen.get(sentence.kind, ())} - {sentence.secret}
        rest = sorted([*trained, *unseen])
        picked = rng.choice(len(rest), min(CANDIDATES - 2, len(rest)), replace=False)
        result.append([sentence.secret, swapped, *(rest[i] for i in picked)])
    return result


def prior(
    sentences: Sequence[PiiSentence],
    options: Sequence[Sequence[tuple[int, ...]]],
    case: PiiCase,
    seed: int,
) -> list[np.ndarray]:
    """How often each candidate is mentioned elsewhere, ties broken by chance."""
    rng = np.random.default_rng(seed)
    result = []
    for sentence, own in zip(sentences, options):
        counts = np.array([float(_count(case, sentence.kind, one)) for one in own])
        counts[0] -= 1  # its own document
        result.append(counts + rng.random(len(own)))
    return result


def _count(case: PiiCase, kind: str, secret: tuple[int, ...]) -> int:
    return sum(found.get(kind, {}).get(secret, 0) for found in (case.mentions, case.unseen))


def another(sentence: PiiSentence, case: PiiCase, seed: int, number: int) -> tuple[int, ...] | None:
    """Another identifier of the type from the training text, as long as the true one, or it could
    not be said in its place; None if there is none."""
    rng = np.random.default_rng([seed, number])
    alike = [one for one in _others(case, sentence) if len(one) == len(sentence.secret)]
    return alike[_by_mentions(alike, sentence, case, rng)] if alike else None


def _others(case: PiiCase, sentence: PiiSentence) -> list[tuple[int, ...]]:
    """Identifiers of the sentence's type in training text, without its own."""
    return sorted({*case.mentions.get(sentence.kind, ())} - {sentence.secret})


def _by_mentions(
    secrets: Sequence[tuple[int, ...]],
    sentence: PiiSentence,
    case: PiiCase,
    rng: np.random.Generator,
) -> int:
    """A place in `secrets`, the likelier the more documents mention it, as sentences are drawn."""
    counts = np.array([case.mentions[sentence.kind][one] for one in secrets], dtype=np.float64)
    return int(rng.choice(len(secrets), p=counts / counts.sum()))


def commonest(sentence: PiiSentence, case: PiiCase) -> list[tuple[int, ...]]:
    """The ten identifiers of the type that other documents mention most."""
    found = dict(case.mentions.get(sentence.kind, {}))
    found[sentence.secret] = found.get(sentence.secret, 0) - 1
    best = sorted((-count, secret) for secret, count in found.items() if count > 0)
    return [secret for _, secret in best[:TOP]]


def rows(
    sentences: Sequence[PiiSentence],
) -> tuple[list[tuple[int, ...]], list[tuple[int, int]]]:
    rows = [s.left + s.secret + s.right for s in sentences]
    return rows, [(len(s.left), len(s.left) + len(s.secret)) for s in sentences]


def check_case(case: PiiCase) -> None:
    for sentences, known in ((case.train, case.mentions), (case.held_out, case.unseen)):
        units = [sentence.unit for sentence in sentences]
        strangers = [s for s in sentences if s.secret not in known.get(s.kind, ())]
        if len(set(units)) != len(units) or strangers or not all(s.secret for s in sentences):
            raise UserError(
                "a case of PII games with two sentences of a unit, or an identifier left out of "
                "the mentions",
                "sentences of one unit are not independent, and candidates come from the mentions",
                "take one sentence a unit, and count its identifier",
            )
    for kind, secrets in case.unseen.items():
        if {*secrets} & {*case.mentions.get(kind, ())}:
            raise UserError(
                "an identifier that is both unseen and mentioned in training",
                "the control is of people whom the model never saw",
                "leave out of `unseen` what training text mentions",
            )
