"""Token counts of declared public text, and the masking weights that follow from them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dpmlm.config import RunConfig
from dpmlm.config.masking import MaskingWeightsConfig
from dpmlm.masking import TokenTable
from dpmlm.masking.weights import frequency_weights
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.data import public_digest, read_public
from dpmlm.tokens import load_sealed_tokenizer

WEIGHTS = "masking weights"
"""Key of a run's memo."""


def public_counts(path: Path, text: str, tokenizer: Any, size: int) -> np.ndarray:
    """How often each of `size` tokens occurs in public text, int64 [size]."""
    counts = np.zeros(size, dtype=np.int64)
    seen: Counter[int] = Counter()
    for document in read_public(path, text):
        seen.update(tokenizer(document.text, add_special_tokens=False)["input_ids"])
    for token, count in seen.items():
        counts[token] = count
    return counts


def weighted(run: Run, table: TokenTable) -> TokenTable:
    """The run's table with its masking weights, if it has any; counted once a run."""
    public = run.config.masking.weights
    if public is None:
        return table
    if WEIGHTS not in run.memo:
        tokenizer = load_sealed_tokenizer(run.folder("tokens"))
        run.memo[WEIGHTS] = weights_of(public, tokenizer, table.vocab_size)
    return replace(table, weights=run.memo[WEIGHTS])


def weights_of(public: MaskingWeightsConfig, tokenizer: Any, size: int) -> np.ndarray:
    """Of each of `size` tokens, float64 [size]."""
    counts = public_counts(public.corpus, public.text, tokenizer, size)
    return frequency_weights(counts, public.power)


def weights_binding(config: RunConfig) -> dict[str, str]:
    """Digest of the public text that masking is weighted by; nothing without."""
    public = config.masking.weights
    return {} if public is None else {"masking_weights": public_digest(public.corpus)}
