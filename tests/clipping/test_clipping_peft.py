"""Adapters of the library peft, as its users put them around a masked LM."""

import pytest
import torch
from microbatch import assert_same, awkward_batch, grads, micro_batch, tiny_model
from variants import rest_in_full

from dpmlm.clipping import FLOAT32_TAU, check_model, clip_and_sum
from dpmlm.errors import UserError

peft = pytest.importorskip("peft", reason="peft is not installed (it is in the dev extra)")

QV = ["query", "value"]
ADAPTERS = {
    "q and v": ("one pass", {"target_modules": QV}),
    "modules_to_save": ("one pass", {"target_modules": QV, "modules_to_save": ["transform"]}),
    "bias=all": ("one pass", {"target_modules": QV, "bias": "all"}),
    "embedding": ("row by row", {"target_modules": ["word_embeddings"]}),
    "DoRA": ("row by row", {"target_modules": QV, "use_dora": True}),
}


def adapted(family, settings):
    """LoRA around a small model; its zero factors are filled, else half its gradients are zero."""
    names = {"query": "q_lin", "value": "v_lin", "transform": "vocab_transform"}
    if family == "distilbert":
        settings = {
            key: [names.get(name, name) for name in value] if isinstance(value, list) else value
            for key, value in settings.items()
        }
    model = peft.get_peft_model(
        tiny_model(family), peft.LoraConfig(r=4, lora_alpha=8, **settings)
    ).eval()
    generator = torch.Generator().manual_seed(0)
    for name, param in model.named_parameters():
        if "lora_" in name:
            noise = torch.randn(param.shape, generator=generator)
            param.data += 0.2 * noise
    return model


@pytest.mark.parametrize("family", rest_in_full(["bert", "distilbert"], ["bert"]))
@pytest.mark.parametrize("kind", ADAPTERS)
def test_lora_is_exact(kind, family):
    path, settings = ADAPTERS[kind]
    model = adapted(family, settings)
    report = check_model(model, 61)
    assert (report.exact, report.path) == (True, path), report.reason
    assert report.trainable == model.get_nb_trainable_parameters()[0]
    assert report.unused == ()
    batch = awkward_batch(model.config.pad_token_id)
    truth = micro_batch(model, batch)
    bound = float(truth.norms.median())
    result = clip_and_sum(model, batch, bound)
    torch.testing.assert_close(result.norms.double(), truth.norms, rtol=1e-5, atol=0)
    assert_same(grads(model), truth.clipped(bound, FLOAT32_TAU))
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_a_prompt_outside_of_the_masked_lm_is_refused():
    """It goes in before the model, whose own parameters are all frozen."""
    settings = {"token_dim": 24, "num_layers": 2, "num_attention_heads": 2}
    config = peft.PromptTuningConfig(
        num_virtual_tokens=3, task_type=peft.TaskType.FEATURE_EXTRACTION, **settings
    )
    model = peft.get_peft_model(tiny_model("bert"), config)
    assert any(p.requires_grad for p in model.parameters())
    report = check_model(model)
    assert not report.exact
    assert "prompt" in report.reason
    with pytest.raises(UserError, match="prompt"):
        clip_and_sum(model, awkward_batch(0), 1.0)
    assert all(p.grad is None for p in model.parameters())
