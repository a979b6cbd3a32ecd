"""A random model of a few thousand weights for every masked-LM type that transformers knows."""

import torch
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING as MAPPING

VOCABULARY = 120
KINDS = tuple(config.model_type for config in MAPPING)
"""Model types, as transformers names them."""

_TOKENS = {
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "decoder_start_token_id": 2,
}
_SIZES = {
    "max_position_embeddings": 64,
    "num_hidden_layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "n_layers": 2,
    "num_attention_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "n_heads": 4,
    "hidden_size": 32,
    "d_model": 32,
    "emb_dim": 32,
    "dim": 32,
    "embedding_size": 32,
    "intermediate_size": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "hidden_dim": 48,
}
_OWN = {
    "albert": {"embedding_size": 16},
    "convbert": {"conv_kernel_size": 3},
    "eurobert": {"num_key_value_heads": 2},
    "funnel": {"block_sizes": [1, 1], "d_head": 8, "d_inner": 48, "n_head": 4},
    "layoutlm": {"max_2d_position_embeddings": 32},
    "longformer": {"attention_window": 8},
    "luke": {"entity_vocab_size": 20, "entity_emb_size": 8},
    "mobilebert": {"intra_bottleneck_size": 16, "embedding_size": 16},
    "perceiver": {
        "d_latents": 32,
        "num_latents": 8,
        "num_self_attends_per_block": 2,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 4,
        "qk_channels": 32,
        "v_channels": 32,
    },
    "reformer": {"axial_pos_embds_dim": (16, 16), "axial_pos_shape": (8, 8), "is_decoder": False},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 24},
    "roc_bert": {
        "pronunciation_vocab_size": 10,
        "shape_vocab_size": 10,
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
    },
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}
_TEXT_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
_COMPOSED = {"modernvbert": "modernbert", "ultravbert": "ultrabert"}
"""Models of text and pictures, by the type of their text part."""


def small_model(kind: str, *, seed: int = 0, **settings) -> PreTrainedModel:
    """A model of the type with default arguments, weights large enough to matter, dropout off."""
    config_class = next(config for config in MAPPING if config.model_type == kind)
    model_class = MAPPING[config_class]
    torch.manual_seed(seed)
    model = model_class(_config(config_class, kind, settings))
    with torch.no_grad():
        for param in model.parameters():
            param.add_(0.05 * torch.randn_like(param))
    return model.eval()


def _config(config_class, kind, settings):
    if kind in _COMPOSED:
        text = {"model_type": _COMPOSED[kind], **_TOKENS, **{n: _SIZES[n] for n in _TEXT_SIZES}}
        picture = {n: _SIZES[n] for n in _TEXT_SIZES[:-1]} | {"image_size": 32, "patch_size": 16}
        picture["model_type"] = "siglip_vision_model"
        return config_class(
            text_config=text,
            vision_config=picture,
            pixel_shuffle_factor=2,
            image_token_id=VOCABULARY - 1,
            **settings,
        )
    known = config_class()
    fields = {name: value for name, value in {**_TOKENS, **_SIZES}.items() if hasattr(known, name)}
    if kind == "funnel":  # derives its layers from its blocks
        fields.pop("num_hidden_layers")
    return config_class(**{**fields, **_OWN.get(kind, {}), **settings})
