"""How readily tokens are masked, by how often public text has them."""

import numpy as np

from dpmlm.errors import UserError

HEAVIEST = 8.0
"""Weights lie between 1 / 8 and 8: no token is masked always or never."""


def frequency_weights(counts: np.ndarray, power: float) -> np.ndarray:
    """Weights for `TokenTable.weights`, float64 [V]: rare tokens are masked more readily.

    weight = ((middle + 1) / (count + 1)) ** power, between 1/8 and 8; half of the running text is
    of tokens that are more frequent than the middle. Power 0 weighs all alike, 0.5 is that of the
    subsampling of Mikolov et al. 2013 (arXiv 1310.4546, equation 5). `counts` [V] must be of public
    text: of private text they would be a release of their own.

    Raises UserError for counts that are negative, not finite, or all 0, and a power outside 0 to 1.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or not np.isfinite(counts).all() or (counts < 0).any() or not counts.any():
        raise UserError(
            "counts of public tokens",
            "there is one for each token of the vocabulary, 0 or above and not all of them 0",
            "name public text that has words in it",
        )
    if not 0 <= power <= 1:
        raise UserError(f"a power of {power}", "it lies between 0 and 1", "0.5 is usual")
    order = np.sort(counts)
    middle = order[np.searchsorted(np.cumsum(order), order.sum() / 2)]
    weights: np.ndarray = ((middle + 1) / (counts + 1)) ** power
    return np.clip(weights, 1 / HEAVIEST, HEAVIEST)
