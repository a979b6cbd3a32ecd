"""Layer rules, one file a layer family; importing this package registers them."""

from dpmlm.clipping.layers import embedding, layer_norm, linear, tied
from dpmlm.clipping.layers.registry import LAYER_CHECKS, LAYER_RULES, register_layer_rule
from dpmlm.clipping.layers.replay import replay_terms, tensors_of
from dpmlm.clipping.layers.term import DirectTerm, Term, merge_terms, squared_norms

__all__ = [
    "LAYER_CHECKS",
    "LAYER_RULES",
    "DirectTerm",
    "Term",
    "embedding",
    "layer_norm",
    "linear",
    "merge_terms",
    "register_layer_rule",
    "replay_terms",
    "squared_norms",
    "tensors_of",
    "tied",
]
