"""`Example`: what one row is made from."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Example:
    """A document, or a canary, before a window of it is drawn."""

    id: str
    """Stable name: masks depend on it, so it must not depend on order or on other documents."""
    tokens: np.ndarray
    """Integer [N] content token ids, without CLS and SEP; N may be 0 or far above the window."""
    secret_span: tuple[int, int] | None = None
    """Canaries: [start, end) in `tokens`; exactly these are masked, all by the mask token."""
    names: np.ndarray | None = None
    """uint8 [N], for strategy entity: 1 where the name of a person, a place or an organisation
    begins, 2 inside of it, 0 elsewhere. None: no names are known."""
