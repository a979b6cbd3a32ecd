"""Canary extraction: can the model be made to say what was planted, token for token?

Secrets are random, so that chance is known exactly. Extraction of real text is `verbatim`.
"""

from collections.abc import Sequence

import numpy as np

from audits.planting.canary import Canary

GUESSES = 2
"""Guesses a canary: the left-to-right decode, and the best tokens with all masked jointly."""


def extracted(
    canaries: Sequence[Canary], logprobs_NLA: np.ndarray, decoded_NL: np.ndarray
) -> np.ndarray:
    """Whether either of the two guesses is the whole secret; bool [N].

    The guesses are fixed beforehand: `decoded_NL` (token ids, left to right) and the arg-max of
    the joint scores `logprobs_NLA` inside the alphabets.
    """
    secrets = np.array([canary.secret for canary in canaries], dtype=np.int64)
    alphabets = np.array([canary.alphabets for canary in canaries], dtype=np.int64)
    joint = np.take_along_axis(alphabets, logprobs_NLA.argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
    return np.asarray(
        (decoded_NL == secrets).all(axis=1) | (joint == secrets).all(axis=1), dtype=bool
    )


def baseline_rate(canaries: Sequence[Canary]) -> float:
    """Chance of extracting a canary that was never inserted: guesses over |R|, at most 1."""
    return min(1.0, GUESSES * 2.0 ** -min(canary.space_bits for canary in canaries))
