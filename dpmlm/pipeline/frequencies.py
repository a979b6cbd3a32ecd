"""Token counts of declared public text, and the masking weights that follow from them."""

import filecmp
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dpmlm.config import RunConfig
from dpmlm.config.masking import MaskingWeightsConfig
from dpmlm.errors import UserError
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
    """Digest of the public text that masking is weighted by; nothing without.

    Raises UserError where that text is the corpus, a copy of it or of a file in it: its counts
    would be a release of their own. Nothing of the comparison is kept.
    """
    public = config.masking.weights
    if public is None:
        return {}
    refuse_copy("masking.weights.corpus", public.corpus, config.corpus.path)
    return {"masking_weights": public_digest(public.corpus)}


def refuse_copy(field: str, public: Path, corpus: Path) -> None:
    """Raise UserError where `public`, which `field` names, holds a file of the private corpus.

    Nothing of the comparison is kept.
    """
    if _same_text(public, corpus):
        raise UserError(
            f"{field} {public.name}",
            "it is the private corpus, or a copy of a file of it, which may decide nothing "
            "uncharged",
            "name public text, or leave that section out",
        )


def _same_text(public: Path, corpus: Path) -> bool:
    """Whether a file of the one has the content of a file of the other, whatever its name; empty
    files apart."""
    if public.resolve() == corpus.resolve():
        return True
    sizes: dict[int, list[Path]] = {}
    for file in _files(corpus):
        sizes.setdefault(file.stat().st_size, []).append(file)
    for file in _files(public):
        alike = sizes.get(size, []) if (size := file.stat().st_size) else []
        if any(filecmp.cmp(file, other, shallow=False) for other in alike):
            return True
    return False


def _files(path: Path) -> list[Path]:
    return [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
