"""A masked language model and its tokenizer in a sealed folder; nothing in clear on the way.

Three files: `weights` (safetensors, each shared tensor once), `config` and `tokenizer` (JSON).
No pickle, no code: a model class is found by its configuration's type among those of transformers.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from dpmlm.artifacts.folder import SealedFolder
from dpmlm.artifacts.tensors import WEIGHTS, SealedTensors, write_tensors
from dpmlm.canonical import digest
from dpmlm.errors import IntegrityError, UserError

CONFIG = "config"
TOKENIZER = "tokenizer"
# Where the model came from may be a path of the training machine.
_LOCAL_FIELDS = ("_name_or_path",)
_TOKENIZER_SETTINGS = (
    "model_max_length",
    "padding_side",
    "truncation_side",
    "model_input_names",
    "clean_up_tokenization_spaces",
)


def save_model(
    folder: SealedFolder, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write model and tokenizer as files `weights`, `config` and `tokenizer` of `folder`.

    Raises UserError for a tokenizer without a fast backend.
    """
    stored = _stored_tensors(model)
    _float_dtype(stored)
    config = json.loads(model.config.to_json_string(use_diff=False))
    for field in _LOCAL_FIELDS:
        config.pop(field, None)
    folder.write_json(CONFIG, config)
    folder.write_json(TOKENIZER, _tokenizer_fields(tokenizer))
    write_tensors(folder, WEIGHTS, stored)


def load_model(folder: SealedFolder) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Model (in evaluation mode, tied weights tied) and tokenizer that `save_model` wrote.

    Raises UserError if the folder holds no model, or one that is no masked language model;
    IntegrityError if weights are missing, left over, or do not fit the configuration.
    """
    for name in (CONFIG, TOKENIZER, WEIGHTS):
        if not folder.has(name):
            raise UserError(
                f"{folder.path} has no {name} file", "it holds no model", "name a model's folder"
            )
    config = _read_config(folder)
    with folder.open(WEIGHTS) as reader:
        state = SealedTensors(reader).get_tensors()
    return _build(config, state, folder), _build_tokenizer(folder.read_json(TOKENIZER))


def model_digest(model: nn.Module) -> str:
    """`sha256:` digest over every parameter's name, type, shape and bytes, in order of name.

    A tensor under two names (tied weights) counts once, under the first.
    """
    whole = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        data = parameter.detach().cpu().contiguous()
        head = json.dumps([name, str(data.dtype), list(data.shape)])
        whole.update(hashlib.sha256(head.encode()).digest())
        content: Any = data.reshape(-1).view(torch.uint8).numpy()
        whole.update(hashlib.sha256(content).digest())
    return "sha256:" + whole.hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase | SealedFolder) -> str:
    """`sha256:` digest over all that a sealed model keeps of its tokenizer: of one that
    `save_model` would write, or of the one in a folder, whatever version of transformers reads it.

    Raises UserError for a tokenizer without a fast backend.
    """
    if isinstance(tokenizer, SealedFolder):
        return digest(tokenizer.read_json(TOKENIZER))
    return digest(_tokenizer_fields(tokenizer))


def _stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, each shared tensor under its first name."""
    seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
    stored = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if tensor.numel() == 0 or place not in seen:
            seen.add(place)
            stored[name] = tensor
    return stored


def _read_config(folder: SealedFolder) -> Any:
    fields = folder.read_json(CONFIG)
    kind = fields.get("model_type")
    known = kind in CONFIG_MAPPING and CONFIG_MAPPING[kind] in MODEL_FOR_MASKED_LM_MAPPING
    if not known:
        raise UserError(
            f"{folder.path} holds a model of type {kind}",
            "transformers knows no masked language model of that type",
            "use a BERT, RoBERTa or DistilBERT model",
        )
    return CONFIG_MAPPING[kind].from_dict(fields)


def _build(config: Any, state: dict[str, Tensor], folder: SealedFolder) -> PreTrainedModel:
    model_class: Any = MODEL_FOR_MASKED_LM_MAPPING[type(config)]
    try:
        with no_progress_bar():
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=state,
                dtype=_float_dtype(state),
                output_loading_info=True,
            )
    except RuntimeError as error:
        raise _unfit(folder, "they do not have the shapes of its configuration") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            raise _unfit(folder, f"{problem.replace('_', ' ')}: {sorted(report[problem])[:3]}")
    built: PreTrainedModel = model.eval()
    return built


def _tokenizer_fields(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise UserError(
            f"tokenizer {type(tokenizer).__name__}",
            "a sealed model needs a fast tokenizer (one with a tokenizer.json)",
            "load it with AutoTokenizer and use_fast=True",
        )
    special: dict[str, Any] = {
        role: str(token) for role, token in tokenizer.special_tokens_map.items()
    }
    special["extra_special_tokens"] = [str(token) for token in tokenizer.extra_special_tokens]
    settings = {name: getattr(tokenizer, name, None) for name in _TOKENIZER_SETTINGS}
    return {
        "tokenizer": json.loads(backend.to_str()),
        "special_tokens": special,
        "settings": {name: value for name, value in settings.items() if value is not None},
    }


def _float_dtype(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The one floating type of the weights; the configuration may name an older one."""
    found = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(found) != 1:
        raise UserError(
            f"weights of types {', '.join(sorted(map(str, found))) or '(none)'}",
            "a sealed model has one floating type",
            "convert it with model.float() before saving",
        )
    return found.pop()


@contextlib.contextmanager
def no_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing a bar of its own."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _build_tokenizer(fields: dict[str, Any]) -> PreTrainedTokenizerFast:
    backend = Tokenizer.from_str(json.dumps(fields["tokenizer"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **fields["special_tokens"], **fields["settings"]
    )


def _unfit(folder: SealedFolder, rule: str) -> IntegrityError:
    return IntegrityError(f"{folder.path}, weights", rule, "save the model again")
