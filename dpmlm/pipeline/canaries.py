"""Canaries: planned and committed before training, inserted as units of their own.

Those of the exempt arm enter after scrubbing and deduplication: the audits ask whether training
hides them. Those of the pipeline arm are documents already (`planted.py`): here they are split into
tokens, join the set that is committed to, and are looked for in the training tokens. Secrets and
coins come from the operating system and are independent of the corpus.
"""

import os
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np

from audits.planting.canaries import CanarySet, plan_canaries
from audits.planting.canary import CanaryGroup
from audits.planting.families import (
    ALPHABET,
    LENGTH,
    PREFIX_LENGTH,
    TOKEN_FAMILIES,
    TokenPools,
    draw_texts,
    draw_tokens,
    split_group,
    vocabulary_digest,
    word_tokens,
)
from audits.planting.labels import Labels
from audits.planting.secret_random import SecretRandom
from dpmlm.artifacts import SealedFolder
from dpmlm.config import RunConfig, claim_fields
from dpmlm.errors import UserError
from dpmlm.masking import MaskingSpec, TokenTable
from dpmlm.masking.spec import SPECIALS_PER_ROW
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.data import public_digest, sample_public
from dpmlm.pipeline.frequencies import public_counts
from dpmlm.pipeline.planted import (
    planted_groups,
    planted_labels,
    plants,
    requests_of,
    survivors,
)
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.stages import Stage
from dpmlm.pipeline.whitebox import draw_gradient_canaries
from dpmlm.tokens import load_sealed_tokenizer
from dpmlm.training import CanaryUnits

CANDIDATES = 4000
"""Secrets are drawn from at most this many tokens, the rarest in public text."""
PREFIXES = 1000
"""Prefixes are drawn from at most this many tokens, the commonest in public text."""
SHARE = 3
"""Of the vocabulary, at most one in so many for secrets, and as many for prefixes."""
FEWEST = 2
"""Canaries, where there are any."""
SURVIVAL = "survival"
"""Sealed file of what became of the pipeline arm."""
REHEARSED = 256
"""Secrets of a kind that are split on trial."""


def masking_spec(config: RunConfig) -> MaskingSpec:
    """The run's masking as the masking package states it: fields of one name are one thing."""
    names = [field.name for field in fields(MaskingSpec)]
    return MaskingSpec(**{name: getattr(config.masking, name) for name in names})


def canary_units(canaries: CanarySet) -> CanaryUnits:
    """The included canaries of the exempt arm as units, each as often as its copies."""
    rows = [
        (f"canary/{canary.id}/{copy}", canary.prefix, canary.secret)
        for group in canaries.every_group
        if group.arm == "exempt"
        for canary in canaries.opened.included(group.canaries)
        for copy in range(canary.copies)
    ]
    return CanaryUnits(rows)


def labelled_canaries(run: Run) -> CanarySet:
    """The run's canaries with their labels: for whoever plants them, not for whoever scores."""
    folder = run.folder("canaries")
    return CanarySet.read(folder).with_labels(Labels.read(folder))


def _public_counts(run: Run, tokenizer: Any, table: TokenTable) -> np.ndarray:
    """How often each token occurs in the declared public text; all zero without any."""
    control = run.config.audit.control
    if control is None:
        return np.zeros(table.vocab_size, dtype=np.int64)
    return public_counts(control.corpus, control.text, tokenizer, table.vocab_size)


def refuse_unfit(config: RunConfig, entries: int, tokenizer: Any | None = None) -> None:
    """Raise UserError where canaries cannot be drawn, hidden or judged under this run file.

    `entries` is the size of the vocabulary, or the most that it can be; `tokenizer` is there where
    the vocabulary is a given one.
    """
    audit, window = config.audit, config.tokens.window
    if audit.most_units > config.privacy.units:
        raise UserError(
            f"privacy.units {config.privacy.units}",
            f"it counts canaries too, and these may be up to {audit.most_units} units",
            "declare the most units that corpus and canaries can have, or plant fewer canaries",
        )
    families = {request.family for request in requests_of(config)}
    tokens = bool(audit.canaries) or bool(families & set(TOKEN_FAMILIES))
    if audit.canaries and audit.canaries < FEWEST:
        raise UserError(
            f"audit.canaries {audit.canaries}",
            "the gating test guesses at least one canary in and one out",
            f"set it to {FEWEST} or more (a thousand show something), or to 0",
        )
    needed = SPECIALS_PER_ROW + PREFIX_LENGTH + LENGTH
    if tokens and window < needed:
        raise UserError(
            f"tokens.window {window}",
            f"a canary is {PREFIX_LENGTH} tokens before a secret of {LENGTH}, and a row has "
            f"{SPECIALS_PER_ROW} special ones: {needed} in all",
            "make the window larger, or set audit.canaries to 0",
        )
    slots = masking_spec(config).masked_slots(window)
    if tokens and slots < LENGTH:
        raise UserError(
            f"tokens.window {window} at masking.ratio {config.masking.ratio}",
            f"a row has {slots} masked slots and a canary's secret needs {LENGTH}",
            "make the window or the ratio larger, or set audit.canaries to 0",
        )
    if tokens and entries // SHARE < ALPHABET:
        raise UserError(
            f"a vocabulary of {entries} tokens",
            f"a canary's secret takes each token from {ALPHABET}, drawn from the rarest third",
            "use a larger vocabulary (tokens.train.unused or tokens.private.unused adds to it), or "
            "set audit.canaries to 0",
        )
    if tokenizer is not None:
        _rehearse(config, tokenizer)


def _rehearse(config: RunConfig, tokenizer: Any) -> None:
    """Draw some of each group and throw them away: what does not fit is told before all work."""
    draw = SecretRandom(os.urandom(32))
    pools = TokenPools(rare=(), common=(), words=list(word_tokens(tokenizer)))
    for number, request in enumerate(requests_of(config), start=1):
        some = replace(request, count=min(request.count, REHEARSED))
        if request.family == "random_words":
            draw_tokens(some, number, pools, tokenizer, draw)
        elif request.family not in TOKEN_FAMILIES:
            _split(config, draw_texts(some, number, draw), tokenizer)


def _split(config: RunConfig, texts: CanaryGroup, tokenizer: Any) -> CanaryGroup:
    """A group of texts with its tokens; UserError where a secret fits no row or no slots."""
    window = config.tokens.window
    group = split_group(texts, tokenizer, room=window - SPECIALS_PER_ROW)
    slots = masking_spec(config).masked_slots(window)
    longest = max(len(canary.secret) for canary in group.canaries)
    if not all(canary.prefix for canary in group.canaries):
        raise UserError(
            f"tokens.window {window}",
            f"a secret of group {group.name} has {longest} tokens, as the vocabulary splits it, "
            "and no room before it",
            "make the window larger, or leave the group out",
        )
    if group.arm == "exempt" and longest > slots:
        raise UserError(
            f"tokens.window {window} at masking.ratio {config.masking.ratio}",
            f"a row has {slots} masked slots and a secret of group {group.name} needs {longest}, "
            "as the vocabulary splits it",
            "make the window or the ratio larger, use arm pipeline, or leave the group out",
        )
    return group


def _canaries(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    audit = run.config.audit
    tokenizer = load_sealed_tokenizer(run.folder("tokens"))
    pools = _pools(run, tokenizer)
    tossed = planted_labels(run)
    planned = plan_canaries(
        count=audit.canaries,
        token_ids=pools.rare,
        prefix_ids=pools.common,
        length=LENGTH,
        alphabet=ALPHABET,
        copies=audit.copies,
        groups=tuple(_groups(run, pools, tokenizer)),
        vocabulary=vocabulary_digest(tokenizer),
        coins=None if tossed is None else tossed.coins,
    )
    planned.write(folder)
    if tossed is not None:
        folder.write_json(SURVIVAL, survivors(run, planned.groups, tossed))
    report(audit.canaries, audit.canaries)
    return {"counts": planned.public() | draw_gradient_canaries(audit.gradient_canaries, folder)}


def _pools(run: Run, tokenizer: Any) -> TokenPools:
    """Tokens by how often public text has them, and that text."""
    table = TokenTable.of(tokenizer)
    counts = _public_counts(run, tokenizer, table)
    # A stable order of public facts: by count, then by token id.
    order = [int(t) for t in np.argsort(counts, kind="stable") if not table.special[t]]
    return TokenPools(
        rare=order[: min(CANDIDATES, len(order) // SHARE)],
        common=order[-min(PREFIXES, len(order) // SHARE) :],
        words=list(word_tokens(tokenizer)),
        public=_sentences(run),
        room=run.config.tokens.window - SPECIALS_PER_ROW,
    )


def _sentences(run: Run) -> list[str]:
    """Public texts for the beginnings of rare suffixes: one a canary, from all over."""
    control = run.config.audit.control
    wanted = [g.count for g in run.config.audit.groups if g.family == "rare_suffix"]
    if control is None or not wanted:
        return []
    return [d.text for d in sample_public(control.corpus, control.text, max(wanted))]


def _groups(run: Run, pools: TokenPools, tokenizer: Any) -> Iterator[CanaryGroup]:
    """Every exploratory group with its tokens, in the order of the run file."""
    draw, planted = SecretRandom(os.urandom(32)), planted_groups(run)
    for number, request in enumerate(requests_of(run.config), start=1):
        if request.family in TOKEN_FAMILIES:
            yield draw_tokens(request, number, pools, tokenizer, draw)
            continue
        texts = planted[number] if number in planted else draw_texts(request, number, draw)
        yield _split(run.config, texts, tokenizer)


def read_survival(run: Run) -> list[dict[str, Any]]:
    """What became of each group of the pipeline arm, private; empty where nothing is planted."""
    folder = run.folder("canaries")
    found: list[dict[str, Any]] = folder.read_json(SURVIVAL) if folder.has(SURVIVAL) else []
    return found


def _settings(run: Run) -> dict[str, Any]:
    audit = run.config.audit
    gradients = {"gradient_canaries": audit.gradient_canaries} if audit.gradient_canaries else {}
    return gradients | {
        "canaries": audit.canaries,
        "copies": audit.copies,
        "groups": [claim_fields(group) for group in audit.groups],
        "control": public_digest(audit.control.corpus) if audit.control else None,
    }


_CANARIES = Stage("canaries", ("tokens",), _settings, _canaries)


def canaries_stage(config: RunConfig) -> Stage:
    """The stage of a run; it reads planted documents where there are any."""
    return replace(_CANARIES, inputs=("planted", "tokens")) if plants(config) else _CANARIES
