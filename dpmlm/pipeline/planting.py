"""Canaries for people with their own trainer: plan a set, insert it into a corpus, reveal it."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audits.files import read_json, read_set, refuse_present
from audits.planting.canaries import Arm, CanarySet, plan_canaries
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

    `out` is a file that its owner alone can read, or with `to` a folder sealed to these public
    keys; `commitment` is the public file of counts and commitment. Raises UserError where a file
    is there already, a group is malformed, or the vocabulary or the public text do not suffice.
    """
    if out.absolute() == commitment.absolute():
        raise UserError(
            f"--commitment {commitment}",
            "it is the file that the canaries go to, and what is secret cannot be public",
            "name two files",
        )
    for path in (out, commitment):
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
        with atomic_write(out, mode=0o600) as file:
            file.write(canonical_json(canaries.to_json()))
    with atomic_write(commitment) as file:
        file.write(canonical_json(canaries.public()))
    return [out, commitment]


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
    gating = plan_canaries(
        count=count,
        token_ids=pools.rare,
        prefix_ids=pools.common,
        length=LENGTH,
        alphabet=ALPHABET,
        copies=copies,
    )
    spelled = pools.spelled or {}

    def words(tokens: Sequence[int]) -> str:
        return " ".join(spelled[token] for token in tokens)

    written = tuple(
        replace(canary, text=(f" {words(canary.prefix)}", words(canary.secret)))
        for canary in gating.canaries
    )
    groups = tuple(
        draw_tokens(request, number, pools, tokenizer, draw)
        if request.family in TOKEN_FAMILIES
        else split_group(draw_texts(request, number, draw), tokenizer, room=room)
        for number, request in enumerate(requests, start=1)
    )
    digest = vocabulary_digest(tokenizer)
    return replace(gating, canaries=written, groups=groups, vocabulary=digest)


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
    arm: Arm,
    text: str,
    id: str | None,
    person: str | None,
    identity: Path | None,
) -> Path:
    """Write the JSON lines of `source` with the included canaries of one arm among them.

    Lines stay as they are, in their order; each canary document stands at a place drawn at random.
    Where a field holds ids or persons, a canary's is `canary/ID/COPY`. The file is for its owner
    alone. Raises UserError for an existing target or a source that is no corpus of JSON lines.
    """
    refuse_present(target, "output")
    if source.suffix != ".jsonl":
        raise UserError(f"corpus {source}", "canaries go into JSON lines", "convert it to .jsonl")
    identities = [load_identity(identity)] if identity else []
    whole = read_set(canaries, identities, "CANARIES")
    for item in read_corpus(source, text=text, id=id, person=person):
        refuse_taken(item.document if isinstance(item, Dropped) else item)
    lines = [line for line in source.read_bytes().split(b"\n") if line.strip()]
    places: dict[int, list[bytes]] = defaultdict(list)
    draw = SecretRandom(os.urandom(32))
    groups = [group for group in whole.every_group if group.arm == arm]
    for planted in documents(groups, whole.nonce):
        names = {field: planted.name for field in (id, person) if field is not None}
        row = json.dumps({**names, text: planted.text}, ensure_ascii=False).encode()
        places[draw.randrange(len(lines) + 1)].append(row)
    with atomic_write(target, mode=0o600) as file:
        for place in range(len(lines) + 1):
            for row in (*places[place], *lines[place : place + 1]):
                file.write(row + b"\n")
    return target


@dataclass(frozen=True)
class Labels:
    """The coins of a set that opened its commitment."""

    canaries: CanarySet

    def to_json(self) -> dict[str, Any]:
        """Commitment, and of each canary id, group and coin."""
        rows = [
            {"id": canary.id, "group": group.name, "included": canary.included}
            for group in self.canaries.every_group
            for canary in group.canaries
        ]
        return {"commitment": self.canaries.commitment, "labels": rows}

    def text(self) -> str:
        """A line each."""
        rows = (
            f"{row['id']:<12}{row['group']:<28}{'in' if row['included'] else 'out'}"
            for row in self.to_json()["labels"]
        )
        return "\n".join([f"opens {self.canaries.commitment}", *rows])


def reveal(canaries: Path, commitment: Path, *, identity: Path | None) -> Labels:
    """Check a set against its public commitment and open its labels.

    Raises IntegrityError where it is another set, or a secret, coin or label was changed.
    """
    identities = [load_identity(identity)] if identity else []
    public = read_json(commitment, "--commitment")
    bound = public.get("commitment") if isinstance(public, dict) else None
    if not isinstance(bound, str):
        raise UserError(
            f"--commitment {commitment}",
            "it is the public file that `dpmlm audit canaries plan` wrote",
            "pass that file",
        )
    whole = read_set(canaries, identities, "CANARIES")
    if whole.commitment != bound:
        raise IntegrityError(
            f"canaries with commitment {whole.commitment}",
            f"{commitment} is a commitment to {bound}",
            "pass the set that was drawn with it",
        )
    return Labels(whole)
