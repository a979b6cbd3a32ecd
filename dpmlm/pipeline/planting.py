"""Canaries for people with their own trainer: plan a set, insert it into a corpus, reveal it."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audits.files import (
    labels_beside,
    read_commitment,
    read_labels,
    read_set,
    refuse_absent,
    refuse_present,
)
from audits.planting.canaries import CanarySet, plan_canaries
from audits.planting.canary import Arm
from audits.planting.families import (
    ALPHABET,
    LENGTH,
    TOKEN_FAMILIES,
    GroupRequest,
    TokenPools,
    check_tokenizer,
    draw_texts,
    draw_tokens,
    refuse_alike,
    split_group,
    vocabulary_digest,
    word_tokens,
)
from audits.planting.insertion import documents
from audits.planting.secret_random import SecretRandom
from dpmlm.artifacts import (
    Identity,
    IntegrityError,
    SealedFolder,
    atomic_write,
    canonical_json,
    load_identity,
    load_recipient,
)
from dpmlm.corpus import Dropped, read_corpus
from dpmlm.errors import UserError
from dpmlm.pipeline.data import read_public
from dpmlm.pipeline.planted import refuse_taken
from dpmlm.tokens import load_tokenizer

SHARE = 3
"""Of the whole words of a vocabulary one in so many is for secrets, and one for beginnings."""


def plan_set(
    tokenizer: Path,
    out: Path,
    labels: Path | None,
    commitment: Path,
    *,
    count: int,
    copies: int,
    groups: Sequence[str],
    public: Path | None,
    text: str,
    window: int,
    to: Sequence[Path],
) -> list[Path]:
    """Draw a set that can be inserted as text; returns what was written.

    `out` and `labels` (beside it by default) are files that their owner alone can read; with `to`
    both are in `out`, a folder sealed to these public keys. `commitment` is the public file of
    counts and commitment. Raises UserError where a file
    is there already, a group is malformed, or the vocabulary or the public text do not suffice.
    """
    coins = labels or labels_beside(out)
    if to and labels:
        raise UserError(
            f"--labels {labels} with --to",
            "secrets and labels are sealed in one folder, a file each",
            "leave --labels out",
        )
    written = [out, commitment] if to else [out, coins, commitment]
    if len({path.resolve() for path in written}) < len(written):
        raise UserError(
            f"--out {out}, --labels {coins} and --commitment {commitment}",
            "scores may see secrets but no label, and what is secret cannot be public",
            "name different files",
        )
    for path in written:
        refuse_present(path, "output")
    requests = [parse_group(spec) for spec in groups]
    refuse_alike(requests)
    recipients = [load_recipient(key) for key in to]
    loaded = load_tokenizer(str(tokenizer))
    texts = [] if public is None else [d.text for d in read_public(public, text)]
    canaries = _draw(loaded, requests, count, copies, texts, window - 2)
    check_tokenizer(canaries, loaded)
    if recipients:
        folder = SealedFolder.create(out, recipients, role="canaries")
        canaries.write(folder)
        folder.finish({"stage": "canaries"})
    else:
        for path, part in ((out, canaries), (coins, canaries.opened)):
            with atomic_write(path, mode=0o600) as file:
                file.write(canonical_json(part.to_json()))
    with atomic_write(commitment) as file:
        file.write(canonical_json(canaries.public()))
    return written


def parse_group(spec: str) -> GroupRequest:
    """FAMILY:COUNT[:COPIES[:ARM]]. Raises UserError."""
    family, *rest = spec.split(":")
    try:
        numbers = [int(number) for number in rest[:2]]
        arm: Any = rest[2] if len(rest) == 3 else "exempt"
        if not numbers or len(rest) > 3:
            raise ValueError
    except ValueError:
        raise UserError(
            f"--group {spec}", "a group is FAMILY:COUNT[:COPIES[:ARM]]", "e.g. --group phone:100:4"
        ) from None
    return GroupRequest(family, numbers[0], numbers[1] if numbers[1:] else 1, arm)


def _draw(
    tokenizer: Any,
    requests: Sequence[GroupRequest],
    count: int,
    copies: int,
    public: Sequence[str],
    room: int,
) -> CanarySet:
    pools = _pools(tokenizer, public, room)
    draw = SecretRandom(os.urandom(32))
    groups = [
        draw_tokens(request, number, pools, tokenizer, draw)
        if request.family in TOKEN_FAMILIES
        else split_group(draw_texts(request, number, draw), tokenizer, room=room)
        for number, request in enumerate(requests, start=1)
    ]
    planned = plan_canaries(
        count=count,
        token_ids=pools.rare,
        prefix_ids=pools.common,
        length=LENGTH,
        alphabet=ALPHABET,
        copies=copies,
        groups=groups,
        vocabulary=vocabulary_digest(tokenizer),
    )
    spelled = pools.spelled or {}

    def words(tokens: Sequence[int]) -> str:
        return " ".join(spelled[token] for token in tokens)

    written = tuple(
        replace(canary, text=(f" {words(canary.prefix)}", words(canary.secret)))
        for canary in planned.canaries
    )
    return replace(planned, canaries=written)


def _pools(tokenizer: Any, public: Sequence[str], room: int) -> TokenPools:
    """Whole words of the vocabulary, the rarest in public text first; later ids before earlier."""
    spelled = word_tokens(tokenizer)
    if len(spelled) < SHARE * ALPHABET:
        raise UserError(
            f"a vocabulary of {len(tokenizer)} tokens, {len(spelled)} of them whole words",
            f"secrets are {LENGTH} words out of {ALPHABET} each, from the rarest of {SHARE} parts: "
            f"{SHARE * ALPHABET - len(spelled)} words are missing",
            "use a larger vocabulary",
        )
    counts: Counter[int] = Counter()
    for text in public:
        counts.update(tokenizer(text, add_special_tokens=False)["input_ids"])
    order = sorted(spelled, key=lambda token: (counts[token], -token))
    part = len(order) // SHARE
    return TokenPools(
        rare=order[:part],
        common=order[-part:],
        words=order,
        public=public,
        spelled=spelled,
        room=room,
    )


def insert(
    canaries: Path,
    source: Path,
    target: Path,
    *,
    labels: Path | None,
    arm: Arm,
    text: str,
    id: str | None,
    person: str | None,
    identity: Path | None,
) -> Path:
    """Write the JSON lines of `source` with the included canaries of one arm among them.

    Lines stay as they are, in their order; each canary document stands at a place drawn at random.
    Where a field holds ids (`id`, if the rows have one) or persons, a canary's is `canary/ID/COPY`.
    The file is for its owner alone. Raises UserError for an existing target, a source that is no
    corpus of JSON lines or an arm that no canary of the set has.
    """
    refuse_present(target, "output")
    if source.suffix != ".jsonl":
        raise UserError(f"corpus {source}", "canaries go into JSON lines", "convert it to .jsonl")
    identities = [load_identity(identity)] if identity else []
    whole = _labelled(canaries, labels, identities)
    groups = [group for group in whole.every_group if group.arm == arm and group.canaries]
    if not groups:
        raise UserError(
            f"--arm {arm} for {canaries}",
            "no group of the set has that arm, so the corpus would stay as it is",
            "draw one with `dpmlm audit canaries plan --group FAMILY:COUNT:COPIES:ARM`",
        )
    if id is None and _have_ids(source):
        id = "id"  # a reader of these rows may drop what has none
    for item in read_corpus(source, text=text, id=id, person=person):
        refuse_taken(item.document if isinstance(item, Dropped) else item)
    lines = [line for line in source.read_bytes().split(b"\n") if line.strip()]
    places: dict[int, list[bytes]] = defaultdict(list)
    draw = SecretRandom(os.urandom(32))
    for planted in documents(groups, whole.opened, whole.nonce):
        names = {field: planted.name for field in (id, person) if field is not None}
        row = json.dumps({**names, text: planted.text}, ensure_ascii=False).encode()
        places[draw.randrange(len(lines) + 1)].append(row)
    with atomic_write(target, mode=0o600) as file:
        for place in range(len(lines) + 1):
            for row in (*places[place], *lines[place : place + 1]):
                file.write(row + b"\n")
    return target


def _have_ids(source: Path) -> bool:
    """Whether the first row has a field id; what cannot be read is told by the reader."""
    with open(source, "rb") as file:
        try:
            return "id" in json.loads(next((line for line in file if line.strip()), b"{}"))
        except (ValueError, TypeError, RecursionError):
            return False


def _labelled(canaries: Path, labels: Path | None, identities: Sequence[Identity]) -> CanarySet:
    coins = labels or labels_beside(canaries)
    whole = read_set(canaries, identities, "CANARIES")
    refuse_absent(coins)
    return whole.with_labels(read_labels(coins, identities))


@dataclass(frozen=True)
class Revealed:
    """Who was included, of a set that opened its commitment."""

    canaries: CanarySet

    def to_json(self) -> dict[str, Any]:
        """Commitment, and of each canary id, group and coin."""
        rows = [
            {"id": canary.id, "group": group.name, "included": included}
            for group in self.canaries.every_group
            for canary, included in zip(
                group.canaries, self.canaries.opened.of(group.canaries), strict=True
            )
        ]
        return {"commitment": self.canaries.commitment, "labels": rows}

    def text(self) -> str:
        """A line each."""
        rows = (
            f"{row['id']:<12}{row['group']:<28}{'in' if row['included'] else 'out'}"
            for row in self.to_json()["labels"]
        )
        return "\n".join([f"opens {self.canaries.commitment}", *rows])


def reveal(
    canaries: Path, commitment: Path, *, labels: Path | None, identity: Path | None
) -> Revealed:
    """Check a set and its labels against their public commitment and open them.

    Raises IntegrityError where they are others, or a secret or label was changed; UserError where
    the commitment is no public file.
    """
    identities = [load_identity(identity)] if identity else []
    bound = read_commitment(commitment)
    whole = _labelled(canaries, labels, identities)
    if whole.commitment != bound:
        raise IntegrityError(
            f"canaries with commitment {whole.commitment}",
            f"{commitment} is a commitment to {bound}",
            "pass the set that was drawn with it",
        )
    return Revealed(whole)
