"""nn.LayerNorm: both gradients are small and are formed for every row."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from dpmlm.clipping.layers.registry import register_layer_rule
from dpmlm.clipping.layers.term import DirectTerm, Term


@register_layer_rule(nn.LayerNorm)
def layer_norm_terms(
    module: nn.Module, a: Tensor, g: Tensor
) -> Iterator[tuple[nn.Parameter, Term]]:
    """y = xhat * w + b: w has sum_t xhat * g, b has sum_t g."""
    layer = cast(nn.LayerNorm, module)
    shape = list(layer.normalized_shape)
    g = g.reshape(len(g), -1, *shape).float()
    if layer.weight is not None and layer.weight.requires_grad:
        xhat = torch.layer_norm(a.float(), shape, eps=layer.eps).reshape(g.shape)
        yield layer.weight, DirectTerm((xhat * g).sum(1))
    if layer.bias is not None and layer.bias.requires_grad:
        yield layer.bias, DirectTerm(g.sum(1))
