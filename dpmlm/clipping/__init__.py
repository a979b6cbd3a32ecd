"""Clipping: exact per-unit gradient norms of a masked LM and the clipped sum, in one pass.

Reading order: `clip` (what it does), `grad_sample_module` (how), `recorder` (the one backward
pass), `head` (masked positions and the loss), `layers/` (one rule a layer family), `structure`
and `families` (which models), `rowwise` (all others), `recompute` (less memory), `scale`
(gradients multiplied before they are clipped), `scratch`
(memory used again), `doctor` (is it exact here), `evaluate`.
"""

from dpmlm.clipping.clip import clip_and_sum
from dpmlm.clipping.doctor import ModelReport, check_model, padding_matters
from dpmlm.clipping.evaluate import (
    EvalResult,
    MaskedLMLoss,
    evaluate_batch,
    evaluating,
    masked_lm_loss,
)
from dpmlm.clipping.grad_sample_module import (
    FLOAT32_TAU,
    MaskedLMGradSampleModule,
    own_scratch,
)
from dpmlm.clipping.layers import register_layer_rule
from dpmlm.clipping.recompute import activation_checkpointing
from dpmlm.clipping.result import ClipResult
from dpmlm.clipping.scale import Scale, Scales, scales_from

__all__ = [
    "FLOAT32_TAU",
    "ClipResult",
    "EvalResult",
    "MaskedLMGradSampleModule",
    "MaskedLMLoss",
    "ModelReport",
    "Scale",
    "Scales",
    "activation_checkpointing",
    "check_model",
    "clip_and_sum",
    "evaluate_batch",
    "evaluating",
    "masked_lm_loss",
    "own_scratch",
    "padding_matters",
    "register_layer_rule",
    "scales_from",
]
