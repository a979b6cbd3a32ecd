"""What a frozen encoder makes of text, and a linear classifier on top of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from dpmlm.clipping import evaluating
from dpmlm.errors import UserError
from dpmlm.evaluation.measurement import ROWS, Report
from dpmlm.masking import TokenTable
from dpmlm.masking.spec import SPECIALS_PER_ROW

PENALTY = 1.0
"""Half of the squared weights is added to the summed log-loss: the usual default, the same for
every model and never tuned."""
STEPS = 100


@torch.no_grad()
def features_of(
    model: Any,
    rows: Sequence[np.ndarray],
    table: TokenTable,
    report: Report = lambda done, total: None,
) -> list[np.ndarray]:
    """Last hidden layer at the content tokens of each row, float32 [N, H]; weights are not moved.

    Rows are token ids without CLS and SEP, each short enough for the model. Raises UserError for a
    model whose encoder gives no last hidden layer of its input's length.
    """
    found: list[np.ndarray] = [np.zeros(0)] * len(rows)
    order = sorted(range(len(rows)), key=lambda number: -len(rows[number]))
    device = next(model.parameters()).device
    with evaluating(model):
        for begin in range(0, len(order), ROWS):
            part = order[begin : begin + ROWS]
            longest = max(len(rows[number]) for number in part) + SPECIALS_PER_ROW
            ids = np.full((len(part), longest), table.pad_id, dtype=np.int64)
            shown = np.zeros((len(part), longest), dtype=np.int64)
            for b, number in enumerate(part):
                end = len(rows[number]) + 1
                ids[b, 0], ids[b, 1:end], ids[b, end] = table.cls_id, rows[number], table.sep_id
                shown[b, : end + 1] = 1
            hidden = _last_hidden(
                model, torch.from_numpy(ids).to(device), torch.from_numpy(shown).to(device)
            )
            for b, number in enumerate(part):
                found[number] = hidden[b, 1 : len(rows[number]) + 1].float().cpu().numpy()
            report(begin + len(part), len(order))
    return found


class Linear:
    """Multinomial logistic regression on standardised features."""

    def __init__(self, features: np.ndarray, classes: np.ndarray, count: int) -> None:
        """Fit to features float [N, H] and classes int [N] in 0..count-1, by L-BFGS from zero."""
        self._middle = features.mean(axis=0)
        self._spread = features.std(axis=0) + 1e-6
        x = self._standardised(features)
        wanted = np.eye(count)[classes]

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(x.shape[1], count)
            scores = x @ weights
            scores -= scores.max(axis=1, keepdims=True)
            log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
            inner = weights[:-1]
            value = (-(wanted * log_p).sum() + PENALTY / 2 * (inner**2).sum()) / len(x)
            slope = x.T @ (np.exp(log_p) - wanted) / len(x)
            slope[:-1] += PENALTY * inner / len(x)
            return float(value), slope.ravel()

        start = np.zeros(x.shape[1] * count)
        fitted = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
        self._weights = fitted.x.reshape(x.shape[1], count)

    def scores(self, features: np.ndarray) -> np.ndarray:
        """float64 [N, count], the larger the likelier."""
        scores: np.ndarray = self._standardised(features) @ self._weights
        return scores

    def _standardised(self, features: np.ndarray) -> np.ndarray:
        scaled = (features.astype(np.float64) - self._middle) / self._spread
        return np.hstack([scaled, np.ones((len(scaled), 1))])


def _last_hidden(model: Any, ids: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    encoder: nn.Module = model.base_model
    try:
        hidden = encoder(input_ids=ids, attention_mask=shown).last_hidden_state
    except (AttributeError, TypeError, ValueError):
        hidden = None
    if hidden is None or hidden.shape[:2] != ids.shape or not bool(torch.isfinite(hidden).all()):
        raise UserError(
            f"a probe of a {type(model).__name__}",
            "its encoder gives no finite hidden state for each token",
            "leave --probe out for this model",
        )
    return hidden
