"""Buffers that a forward pass must leave alone: what they take in is neither clipped nor noised."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dpmlm.errors import UserError


@contextmanager
def unchanged_buffers(model: nn.Module) -> Iterator[None]:
    """Puts back the buffers that a training-mode forward pass changed, and refuses the model.

    Raises UserError naming the buffer. In evaluation mode statistics are not taken, and nothing is
    looked at.
    """
    kept = {}
    if any(module.training for module in model.modules()):
        kept = {n: b.clone() for n, b in model.named_buffers() if b.is_floating_point()}
    changed: list[str] = []
    try:
        yield
    finally:
        found = dict(model.named_buffers())
        changed += [name for name, before in kept.items() if not torch.equal(found[name], before)]
        for name in changed:
            found[name].copy_(kept[name])
    if changed:
        raise UserError(
            f"buffer {changed[0]}",
            "the forward pass writes figures of the batch into it, without clipping and noise",
            "call model.eval()",
        )
