"""One weight that is both the input embedding and the decoder of the head.

||G_emb + G_dec||^2 = ||G_emb||^2 + ||G_dec||^2 + 2 <G_emb, G_dec>, and the inner product needs
only the decoder's output gradient at the input ids (phantom clipping, arXiv 2405.18194).
"""

from torch import Tensor

from dpmlm.clipping.layers.embedding import LookupTerm
from dpmlm.clipping.layers.linear import OuterTerm
from dpmlm.clipping.layers.term import register_cross_rule
from dpmlm.clipping.units import UnitLayout


@register_cross_rule(OuterTerm, LookupTerm)
def decoder_embedding_product(
    decoder: OuterTerm, embedding: LookupTerm, layout: UnitLayout
) -> Tensor:
    """float32 [U]: sum_t sum_k g[k, ids[t]] * <e[t], a[k]>; e is zero on padding_idx."""
    a_UKH, g_UKV = decoder.grouped(layout)
    e_UTH, ids_UT = layout.group(embedding.e), layout.group(embedding.ids)
    picked_UKT = g_UKV.gather(2, ids_UT[:, None, :].expand(-1, a_UKH.shape[1], -1))
    return (picked_UKT * (a_UKH @ e_UTH.mT)).sum((1, 2))
