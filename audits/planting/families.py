"""Families of canaries: how exploratory groups are drawn, split into tokens, and drawn again.

Three families are products of token alphabets, so that a secret's rank is counted exactly:
`rare_tokens`, `random_words` and `rare_suffix` (rare tokens after a few words of public text). The
others are structured identifiers (`identifiers.py`), drawn as text and split by the model's own
tokenizer; a scorer ranks them among others of their kind (`Case.alternatives`).

Secrets come from a `SecretRandom`: nothing here depends on the private corpus.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, get_args

from audits.planting.canaries import SMALLEST_SPACE_BITS, CanarySet, product_canary
from audits.planting.canary import Arm, Canary, CanaryGroup
from audits.planting.identifiers import IDENTIFIERS
from audits.planting.secret_random import SecretRandom, distinct
from dpmlm.artifacts import IntegrityError, UserError, digest

TOKEN_FAMILIES = ("rare_tokens", "random_words", "rare_suffix")
FAMILIES = (*TOKEN_FAMILIES, *IDENTIFIERS)
LENGTH, ALPHABET = 6, 64
"""Six tokens of 64 choices each: 2^36 possible secrets."""
PREFIX_LENGTH = 6
"""Tokens before a secret, where they are drawn one by one."""
SNIPPET_WORDS = 8
"""Words of public text before a rare suffix."""
WORDS = (
    "river stone market lantern winter garden window letter harbour kitchen village engine morning "
    "shadow ladder forest mirror blanket pocket thunder saddle candle orchard bridge copper meadow "
    "barrel feather hammer island jacket kettle lemon marble needle oyster paper quarry ribbon "
    "silver table umbrella velvet wagon yellow anchor basket corner dinner evening finger glass "
    "hollow iron jungle kernel leather mountain northern open plain quiet round summer tower"
).split()
"""Plain words around structured secrets: 64, so that three of them name a canary."""


@dataclass(frozen=True)
class GroupRequest:
    """One exploratory group, as it is asked for."""

    family: str
    """One of FAMILIES."""
    count: int
    """Canaries, each included by a fair coin; 1 or more."""
    copies: int = 1
    """Units an included canary occupies; 1 or more."""
    arm: Arm = "exempt"
    """exempt, or pipeline for documents that are scrubbed and deduplicated."""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise UserError(
                f"a canary family {self.family!r}",
                f"families are {', '.join(FAMILIES)}",
                "name one of them",
            )
        if self.count < 1 or self.copies < 1 or self.arm not in get_args(Arm):
            raise UserError(
                f"a group of {self.count} canaries in {self.copies} copies, arm {self.arm!r}",
                "count and copies are at least 1, the arm is exempt or pipeline",
                "change the group",
            )
        if self.arm == "pipeline" and self.family in TOKEN_FAMILIES:
            raise UserError(
                f"family {self.family} with arm pipeline",
                "its secrets are tokens, and documents are text before there is a tokenizer",
                f"use {', '.join(IDENTIFIERS)}, or arm exempt",
            )

    @property
    def name(self) -> str:
        """`family/copies/arm`, as `CanaryGroup.name`."""
        return f"{self.family}/{self.copies}/{self.arm}"


@dataclass(frozen=True)
class TokenPools:
    """What the token families draw from: public facts of a vocabulary and public text."""

    rare: Sequence[int]
    """Tokens that public text hardly holds."""
    common: Sequence[int]
    """Tokens that it holds often: prefixes are made of them."""
    words: Sequence[int] = ()
    """Tokens that are whole words."""
    public: Sequence[str] = ()
    """Public texts; a rare suffix follows words of theirs."""
    spelled: Mapping[int, str] | None = None
    """Word of each token, where canaries must be texts too; None where rows of tokens do."""
    room: int = 62
    """Content tokens that a row may have."""


class Row(NamedTuple):
    """A row to be scored, without special tokens."""

    tokens: tuple[int, ...]
    span: tuple[int, int]
    """Start and end (excluded) of the secret in `tokens`."""


@dataclass(frozen=True)
class Case:
    """What a scorer needs of one exploratory group; secrets are in it, and no coin."""

    group: CanaryGroup
    """With its family, copies, arm and the size of its space."""
    rows: tuple[Row, ...]
    """Of each canary, in order."""
    alternatives: Callable[[int, int], list[Row]] = field(repr=False)
    """(place of a canary, how many) -> so many rows with other secrets of its space after the same
    prefix, drawn uniformly with replacement, its own left out; none was ever inserted on purpose.
    Texts may differ in their number of tokens."""


def case_of(
    group: CanaryGroup, tokenizer: Any | None = None, *, secret: bytes | None = None
) -> Case:
    """A group ready to be scored; the tokenizer is needed for structured secrets alone.

    `secret` fixes the alternatives; by default the operating system supplies it.
    """
    draw = SecretRandom(secret if secret is not None else os.urandom(32))

    def alternatives(place: int, count: int) -> list[Row]:
        canary = group.canaries[place]
        if group.exact:
            return [_other_product(canary, draw) for _ in range(count)]
        others = [_other_text(canary, group.family, draw) for _ in range(count)]
        split = split_texts(others, tokenizer, family=group.family)
        before = canary.prefix
        return [Row(before + own, (len(before), len(before) + len(own))) for _, own in split]

    return Case(
        group,
        tuple(Row(canary.tokens, canary.secret_span) for canary in group.canaries),
        alternatives,
    )


def _other_product(canary: Canary, draw: SecretRandom) -> Row:
    other = canary.secret
    while other == canary.secret:
        other = tuple(draw.choice(alphabet) for alphabet in canary.alphabets)
    return Row(canary.prefix + other, canary.secret_span)


def _other_text(canary: Canary, family: str, draw: SecretRandom) -> tuple[str, str]:
    before, own = canary.text or ("", "")
    other = own
    while other == own:
        other = IDENTIFIERS[family].draw(draw)
    return before, other


def draw_texts(request: GroupRequest, number: int, draw: SecretRandom) -> CanaryGroup:
    """A structured group whose texts no tokenizer has split yet: its canaries have no tokens.

    `number` is its place among the groups, from 1, and part of its canaries' ids.
    """
    kind = IDENTIFIERS[request.family]
    # Three of 64 words in order name 249,984 canaries: more than a quarter is never asked for.
    names = distinct(lambda: tuple(draw.sample(WORDS, 3)))
    if request.count > 60_000:
        raise UserError(
            f"{request.count} canaries in group {request.name}",
            "no two begin alike, and 60,000 beginnings can be drawn by chance",
            "ask for fewer",
        )
    canaries = [
        Canary(
            id=f"g{number:02d}-{place:05d}",
            prefix=(),
            secret=(),
            alphabets=(),
            copies=request.copies,
            text=(f"The {' '.join(names())} {kind.lead}", kind.draw(draw)),
        )
        for place in range(request.count)
    ]
    return CanaryGroup(request.family, request.arm, request.copies, tuple(canaries))


def split_group(group: CanaryGroup, tokenizer: Any, *, room: int) -> CanaryGroup:
    """The group with the tokens into which `tokenizer` splits its texts. Raises UserError.

    Of what stands before a secret the last tokens are kept, as many as fit a row of `room` content
    tokens beside it.
    """
    texts = [canary.text or ("", "") for canary in group.canaries]
    split = split_texts(texts, tokenizer, family=group.family)
    canaries = tuple(
        replace(canary, prefix=prefix[max(0, len(prefix) + len(secret) - room) :], secret=secret)
        for canary, (prefix, secret) in zip(group.canaries, split, strict=True)
    )
    return replace(group, canaries=canaries)


def split_texts(
    texts: Sequence[tuple[str, str]], tokenizer: Any, *, family: str
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Tokens before a secret and tokens of it, for each (before, secret), a blank between them.

    Raises UserError where the tokenizer has no token for a part of it, or one token that holds
    both some of what stands before and some of the secret.
    """
    found = []
    encoded = tokenizer(
        [f"{before} {secret}" for before, secret in texts],
        add_special_tokens=False,
        return_offsets_mapping=True,
    )
    for (before, _), ids, offsets in zip(
        texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        edge = len(before)
        if any(start < edge < end for start, end in offsets):
            raise _unsplittable(family, "one of its tokens spans the beginning of a secret")
        first = next((at for at, (start, _) in enumerate(offsets) if start >= edge), len(ids))
        prefix, secret = tuple(ids[:first]), tuple(ids[first:])
        if tokenizer.unk_token_id in ids or not prefix or not secret:
            raise _unsplittable(family, "it has no token for a part of a canary")
        found.append((prefix, secret))
    return found


def _unsplittable(family: str, why: str) -> UserError:
    return UserError(
        f"a tokenizer for canaries of family {family}",
        f"{why}, so the secret cannot be scored",
        "leave the family out, or use a tokenizer that spells every character",
    )


def draw_tokens(
    request: GroupRequest, number: int, pools: TokenPools, tokenizer: Any, draw: SecretRandom
) -> CanaryGroup:
    """A group of a token family, with its tokens. Raises UserError where the pools do not suffice.

    `number` is its place among the groups, from 1, and part of its canaries' ids.
    """
    source = pools.words if request.family == "random_words" else pools.rare
    tokens = sorted(set(source))
    if len(tokens) < ALPHABET:
        raise UserError(
            f"{len(tokens)} tokens for canaries of family {request.family}",
            f"a secret takes each of {LENGTH} tokens from {ALPHABET}, for a space of at least "
            f"2^{SMALLEST_SPACE_BITS}: {ALPHABET - len(tokens)} are missing",
            "use a larger vocabulary, or leave the family out",
        )
    prefix = _prefixes(request, pools, tokenizer, draw)
    canaries = []
    for place in range(request.count):
        before, text = prefix()
        name = f"g{number:02d}-{place:05d}"
        drawn = product_canary(draw, name, before, tokens, LENGTH, ALPHABET, request.copies)
        if pools.spelled is not None:
            own = " ".join(pools.spelled[token] for token in drawn.secret)
            drawn = replace(drawn, text=(text, own))
        canaries.append(drawn)
    return CanaryGroup(request.family, request.arm, request.copies, tuple(canaries))


def _prefixes(
    request: GroupRequest, pools: TokenPools, tokenizer: Any, draw: SecretRandom
) -> Callable[[], tuple[tuple[int, ...], str]]:
    """Draws (tokens before a secret, their text), no two alike."""
    if request.family == "rare_suffix":
        snippets = _snippets(request, pools, tokenizer)
        chosen = iter(draw.sample(snippets, request.count))
        return lambda: next(chosen)
    common = sorted(set(pools.words if request.family == "random_words" else pools.common))
    if len(common) < 4 * PREFIX_LENGTH:
        raise UserError(
            f"{len(common)} tokens for the beginnings of canaries of family {request.family}",
            f"{4 * PREFIX_LENGTH} or more are needed, or they repeat",
            "use a larger vocabulary",
        )
    fresh = distinct(lambda: tuple(draw.sample(common, PREFIX_LENGTH)))

    def drawn() -> tuple[tuple[int, ...], str]:
        tokens = fresh()
        spelled = pools.spelled or {}
        return tokens, "".join(f" {spelled[token]}" for token in tokens if token in spelled)

    return drawn


def _snippets(
    request: GroupRequest, pools: TokenPools, tokenizer: Any
) -> list[tuple[tuple[int, ...], str]]:
    """Different beginnings out of public text: the next words of each text, over and over."""
    found: dict[tuple[int, ...], str] = {}
    enough = 4 * request.count
    for text in pools.public:
        words = text.split()
        for start in range(0, len(words) - SNIPPET_WORDS + 1, SNIPPET_WORDS):
            snippet = " " + " ".join(words[start : start + SNIPPET_WORDS])
            ids = tuple(tokenizer(snippet, add_special_tokens=False)["input_ids"])
            if len(ids) + LENGTH <= pools.room and tokenizer.unk_token_id not in ids:
                found.setdefault(ids, snippet)
        if len(found) >= enough:
            break
    if len(found) < request.count:
        raise UserError(
            f"public text for {request.count} canaries of family rare_suffix",
            f"it holds {len(found)} beginnings of {SNIPPET_WORDS} words that differ and fit a row",
            "name more public text (audit.control.corpus, or --public)",
        )
    return list(found.items())


def word_tokens(tokenizer: Any) -> dict[int, str]:
    """Tokens that are whole words of letters, each with the word, wherever in a line it stands.

    Such a word after a blank becomes this one token again, whatever surrounds it.
    """
    special = set(tokenizer.all_special_ids)
    spelled: dict[int, str] = {}
    for token in sorted(tokenizer.get_vocab().values()):
        word = tokenizer.decode([token]).strip()
        if token not in special and len(word) > 1 and word.isalpha():
            spelled[token] = word
    if not spelled:
        return {}
    pairs = tokenizer([f" {word} {word}" for word in spelled.values()], add_special_tokens=False)
    return {
        token: word
        for (token, word), ids in zip(spelled.items(), pairs["input_ids"], strict=True)
        if ids == [token, token]
    }


def vocabulary_digest(tokenizer: Any) -> str:
    """`sha256:` digest of which token has which id."""
    return digest({str(token): int(at) for token, at in tokenizer.get_vocab().items()})


def tokens_checked(canaries: CanarySet) -> bool:
    """Whether `check_tokenizer` would notice that gating canaries are of another vocabulary."""
    return canaries.vocabulary is not None or all(one.text for one in canaries.canaries)


def check_tokenizer(canaries: CanarySet, tokenizer: Any) -> None:
    """Refuse a tokenizer under which the planned tokens are not what was inserted.

    Raises IntegrityError where the vocabulary is another one than the set was drawn for, or a text
    of the set is split otherwise than it was planned.
    """
    if canaries.vocabulary not in (None, vocabulary_digest(tokenizer)):
        raise IntegrityError(
            "a tokenizer with another vocabulary than the canaries were drawn for",
            "token ids mean something else in it",
            "pass the model with the tokenizer that `plan` was given",
        )
    for group in canaries.every_group:
        written = [canary for canary in group.canaries if canary.text is not None]
        if not written:
            continue
        try:
            found = split_texts(
                [canary.text or ("", "") for canary in written], tokenizer, family=group.family
            )
        except UserError as error:
            raise _split_otherwise(group) from error
        if any(
            secret != canary.secret or prefix[-len(canary.prefix) :] != canary.prefix
            for canary, (prefix, secret) in zip(written, found, strict=True)
        ):
            raise _split_otherwise(group)


def _split_otherwise(group: CanaryGroup) -> IntegrityError:
    return IntegrityError(
        f"a tokenizer that splits canaries of family {group.family} otherwise than planned",
        "what was trained on is not what would be scored",
        "pass the model with the tokenizer that `plan` was given",
    )


def refuse_alike(requests: Iterable[GroupRequest]) -> None:
    """Raise UserError where two groups could be taken for one."""
    seen: set[str] = set()
    for request in requests:
        if request.name in seen:
            raise UserError(
                f"two groups {request.name}",
                "groups differ in family, copies or arm, as they are never pooled",
                "make one larger group of them",
            )
        seen.add(request.name)
