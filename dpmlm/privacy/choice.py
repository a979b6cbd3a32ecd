"""`noisy_best`: the best of several candidates by scores of private text, with a known epsilon.

The exponential mechanism (McSherry and Talwar 2007, theorem 6) by Gumbel noise: candidate i comes
out with probability proportional to exp(epsilon * score_i).

Formal guarantee: epsilon-DP for adding or removing one unit, if one unit adds between 0 and 1 to
each score. With it candidate i has probability p_i exp(epsilon u_i) / sum_j p_j exp(epsilon u_j),
all u in [0, 1], so that p_i changes by a factor between e^-epsilon and e^epsilon. (Scores that
could also fall would need half the epsilon.) The uniforms behind the noise have 52 bits: the ends
of the Gumbel distribution that they leave out weigh less than 2^-51 a candidate.
"""

from collections.abc import Sequence

import numpy as np

from dpmlm.privacy.stream import SecretStream

_LABEL = "choice"


def noisy_best(scores: Sequence[float], epsilon: float, stream: SecretStream) -> int:
    """Index of the candidate that comes out; `scores` are sums over units of numbers in [0, 1].

    Draws once from `stream`. ValueError without scores and for an epsilon not above 0.
    """
    if not scores or not 0 < epsilon < float("inf"):
        raise ValueError("a choice has candidates and a finite epsilon above 0")
    uniform = stream.uniforms(len(scores), _LABEL, 0)
    noisy = epsilon * np.asarray(scores, dtype=np.float64) - np.log(-np.log(uniform))
    return int(np.argmax(noisy))
