"""`clip_and_sum`: the step of DP-SGD that bounds what one unit can do."""

from torch import nn

from dpmlm.clipping.grad_sample_module import FLOAT32_TAU, MaskedLMGradSampleModule
from dpmlm.clipping.result import ClipResult
from dpmlm.clipping.scale import Scales
from dpmlm.masking import MaskedBatch


def clip_and_sum(
    model: nn.Module,
    batch: MaskedBatch,
    max_grad_norm: float,
    *,
    tau: float = FLOAT32_TAU,
    scales: Scales | None = None,
) -> ClipResult:
    """Adds the sum of clipped per-unit gradients of `batch` to `p.grad`.

    The loss of a row is sum_k w[k] * CE(logits[k], label[k]) / max(sum_k w[k], 1), of a unit the
    mean over its rows. With g_u the gradient of unit u over all trainable parameters, `p.grad`
    receives sum_u c_u g_u, c_u = min(1, max_grad_norm / ((1 + tau) ||g_u||)): no mean, no noise.
    Calls accumulate, so micro-batches of one logical batch need nothing but further calls; all
    rows of a unit must be in one call. Every trainable parameter has a `p.grad` afterwards, also
    where no unit reached it and for an empty batch. Frozen parameters are left out exactly.
    With `scales` all this holds for scaled gradients: see `dpmlm/clipping/scale.py`.

    **Formal guarantee.** In exact arithmetic adding or removing one unit moves the sum by at most
    max_grad_norm / (1 + tau) in L2 norm; tau covers the relative error of a float32 norm. A unit
    whose loss or norm is not finite contributes exactly zero.

    On a CPU the memory of gradients formed for single units is kept for the next call, until the
    model is gone or an enclosing `own_scratch(model)` ends; it holds figures of single units.

    Dropout follows `model.train()` and `model.eval()`. `math.inf` as `max_grad_norm` means no
    clipping. `model` may be a `MaskedLMGradSampleModule` (its own tau then holds).

    Raises UserError for a model that cannot be done exactly (naming module and reason), for a
    `max_grad_norm` of 0 or below, and for contradicting shapes.

    Book-keeping: Bu et al. 2023 (arXiv 2210.00038); ghost norms: Li et al. 2022
    (arXiv 2110.05679); shared embeddings: arXiv 2405.18194.
    """
    if not isinstance(model, MaskedLMGradSampleModule):
        model = MaskedLMGradSampleModule(model, tau=tau)
    return model.clip_and_sum(batch, max_grad_norm, scales)
