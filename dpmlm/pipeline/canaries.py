"""Canaries: planned and committed before training, inserted as units of their own.

They enter after scrubbing and deduplication (the exempt arm): the audits ask whether training
hides them. Secrets and coins come from the operating system and are independent of the corpus.
"""

from collections import Counter
from typing import Any

import numpy as np

from audits.canaries import CanarySet, plan_canaries
from dpmlm.artifacts import SealedFolder
from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.masking import MaskingSpec, TokenTable
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.data import public_digest, read_public
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.stages import Stage
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
LENGTH, ALPHABET = 6, 64
"""Six tokens of 64 choices each: 2^36 possible secrets."""


def masking_spec(config: RunConfig) -> MaskingSpec:
    """The run's masking as the masking package states it."""
    masking = config.masking
    return MaskingSpec(
        strategy=masking.strategy,
        ratio=masking.ratio,
        mask_fraction=masking.mask_fraction,
        random_fraction=masking.random_fraction,
    )


def canary_units(canaries: CanarySet) -> CanaryUnits:
    """The included canaries as units that can be drawn, each as often as its copies."""
    rows = [
        (f"canary/{canary.id}/{copy}", canary.prefix, canary.secret)
        for canary in canaries.canaries
        if canary.included
        for copy in range(canary.copies)
    ]
    return CanaryUnits(rows)


def _public_counts(run: Run, tokenizer: Any, table: TokenTable) -> np.ndarray:
    """How often each token occurs in the declared public text; all zero without any."""
    counts = np.zeros(table.vocab_size, dtype=np.int64)
    control = run.config.audit.control
    if control is None:
        return counts
    seen: Counter[int] = Counter()
    for document in read_public(control.corpus, control.text):
        seen.update(tokenizer(document.text, add_special_tokens=False)["input_ids"])
    for token, count in seen.items():
        counts[token] = count
    return counts


def refuse_unfit(config: RunConfig, entries: int) -> None:
    """Raise UserError where canaries cannot be drawn, hidden or judged under this run file.

    `entries` is the size of the vocabulary, or the most that it can be.
    """
    count, window = config.audit.canaries, config.tokens.window
    if not count:
        return
    if count < FEWEST:
        raise UserError(
            f"audit.canaries {count}",
            "the gating test guesses at least one canary in and one out",
            f"set it to {FEWEST} or more (a thousand show something), or to 0",
        )
    slots = masking_spec(config).masked_slots(window)
    if slots < LENGTH:
        raise UserError(
            f"tokens.window {window} at masking.ratio {config.masking.ratio}",
            f"a row has {slots} masked slots and a canary's secret needs {LENGTH}",
            "make the window or the ratio larger, or set audit.canaries to 0",
        )
    if entries // SHARE < ALPHABET:
        raise UserError(
            f"a vocabulary of {entries} tokens",
            f"a canary's secret takes each token from {ALPHABET}, drawn from the rarest third",
            "use a larger vocabulary (tokens.train.unused or tokens.private.unused adds to it), or "
            "set audit.canaries to 0",
        )


def _canaries(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    audit = run.config.audit
    tokenizer = load_sealed_tokenizer(run.folder("tokens"))
    table = TokenTable.of(tokenizer)
    counts = _public_counts(run, tokenizer, table)
    # A stable order of public facts: by count, then by token id.
    order = [int(t) for t in np.argsort(counts, kind="stable") if not table.special[t]]
    planned = plan_canaries(
        count=audit.canaries,
        token_ids=order[: min(CANDIDATES, len(order) // SHARE)],
        prefix_ids=order[-min(PREFIXES, len(order) // SHARE) :],
        length=LENGTH,
        alphabet=ALPHABET,
        copies=audit.copies,
    )
    planned.write(folder)
    report(audit.canaries, audit.canaries)
    return {"counts": planned.public()}


def _settings(run: Run) -> dict[str, Any]:
    audit = run.config.audit
    return {
        "canaries": audit.canaries,
        "copies": audit.copies,
        "control": public_digest(audit.control.corpus) if audit.control else None,
    }


CANARIES = Stage("canaries", ("tokens",), _settings, _canaries)
