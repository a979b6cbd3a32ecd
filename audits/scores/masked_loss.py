"""Mean cross-entropy of texts under random masks, the same masks for every model.

A target and the reference that calibrates it are compared on one text; on masks of their own the
difference would be mostly noise of the masks. So masks are drawn here once, from a seed and the
text alone, and every model answers on them (Mireshghallah et al. 2022, arXiv 2203.03929).
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from audits.models import LoadedModel
from audits.scores.scoring import Progress, check_fits, logits_at, rows_at_once
from dpmlm.artifacts import UserError


def masked_losses(
    models: Sequence[LoadedModel],
    token_rows: Sequence[Sequence[int]],
    *,
    masks: int = 20,
    ratio: float = 0.15,
    seed: int,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> np.ndarray:
    """Mean cross-entropy of each row under each model over `masks` masks; float64 [models, N].

    `token_rows` are token ids without special ones; every masked token becomes the mask token.
    Nats a masked token. A model whose answer on a row is not finite has NaN or inf there: the
    caller says so, it is no loss. Raises UserError on models of different vocabularies, rows
    with nothing to mask, rows or ids beyond a model.
    """
    _check_models(models)
    for model in models:
        check_fits(model, token_rows)
    special = sorted(set(models[0].tokenizer.all_special_ids))
    rows = [np.asarray(row, dtype=np.int64) for row in token_rows]
    places = [draw_masks(row, special, masks=masks, ratio=ratio, seed=seed) for row in rows]
    # Rows of like length share a batch, so that little of it is padding.
    order = np.repeat(sorted(range(len(rows)), key=lambda i: len(rows[i])), masks)
    totals = np.zeros((len(models), len(rows)), dtype=np.float64)
    end = len(order)
    while end > 0:
        # From the longest down: the last row of a batch is its widest.
        widest = order[end - 1]
        size = rows_at_once(models[0], len(rows[widest]) + 2, places[widest].shape[1], batch_size)
        start = max(0, end - size)
        chosen = [(rows[i], places[i][at % masks]) for at, i in enumerate(order[start:end], start)]
        for number, model in enumerate(models):
            np.add.at(totals[number], order[start:end], _losses(model, chosen))
        end = start
        if progress is not None:
            progress(len(chosen) * len(models))
    return totals / np.array([taken.size for taken in places])


def draw_masks(
    tokens: np.ndarray, special: Sequence[int], *, masks: int, ratio: float, seed: int
) -> np.ndarray:
    """`masks` sets of K places in a row, each uniform among its sets of K; int64 [masks, K].

    K is `ratio` of the tokens that are not `special`, rounded, at least one. A function of the
    seed and the row alone: whatever else is scored, and in whatever order, a row keeps its masks.
    """
    places = np.flatnonzero(~np.isin(tokens, special))
    if masks < 1 or not 0 < ratio <= 1:
        raise UserError(
            f"{masks} masks of ratio {ratio}",
            "a loss takes at least one mask, of a ratio in (0, 1]",
            "ask for 20 masks of 0.15",
        )
    if not len(places):
        raise UserError(
            "a row with 0 tokens to mask",
            "a row has at least one token that is not a special one",
            "drop rows without text",
        )
    content = f"dpmlm masks {int(seed)}:".encode() + tokens.astype("<i8").tobytes()
    key = np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), dtype="<u8")
    draws = np.random.Generator(np.random.Philox(key=key)).random((masks, len(places)))
    count = max(1, int(ratio * len(places) + 0.5))
    return np.sort(places[np.argsort(draws, axis=1)[:, :count]], axis=1)


def _losses(model: LoadedModel, chosen: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Summed cross-entropy at the masked places of each (tokens, places); float64 [n]."""
    width = max(len(places) for _, places in chosen)
    positions, labels = (np.zeros((len(chosen), width), dtype=np.int64) for _ in range(2))
    weights = np.zeros((len(chosen), width))
    masked = []
    for index, (tokens, places) in enumerate(chosen):
        row = np.concatenate([[model.ids.cls], tokens, [model.ids.sep]])
        row[places + 1] = model.ids.mask
        masked.append(row.tolist())
        positions[index, : len(places)] = places + 1
        labels[index, : len(places)] = tokens[places]
        weights[index, : len(places)] = 1
    logits = logits_at(model, masked, positions)
    truth = torch.as_tensor(labels, device=model.device).flatten()
    losses = functional.cross_entropy(logits.flatten(0, 1), truth, reduction="none")
    # Selected, not multiplied: an unused slot may be infinite.
    return np.where(weights > 0, losses.cpu().double().numpy().reshape(weights.shape), 0).sum(1)


def _check_models(models: Sequence[LoadedModel]) -> None:
    """Token ids mean the same to all of them: special ones, and the vocabulary."""
    alike = sum(
        model.tokenizer is models[0].tokenizer
        or (
            model.ids == models[0].ids
            and model.tokenizer.get_vocab() == models[0].tokenizer.get_vocab()
        )
        for model in models
    )
    if not models or alike < len(models):
        raise UserError(
            f"{len(models)} models, {alike} of which share the first one's vocabulary",
            "models are compared on the same masked rows, so at least one, all of one tokenizer",
            "compare a model with one that was trained with its tokenizer",
        )
