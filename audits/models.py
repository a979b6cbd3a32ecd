"""Models under audit: a plain Hugging Face folder, a sealed one, or a model already in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForMaskedLM, AutoTokenizer

from dpmlm.artifacts import Identity, SealedFolder, UserError, load_model, model_digest
from dpmlm.artifacts.models import no_progress_bar


@dataclass(frozen=True)
class TokenIds:
    """The special token ids that a scored row is built of."""

    cls: int
    """Opens a row."""
    sep: int
    """Closes a row."""
    mask: int
    """Stands for a token to be predicted."""
    pad: int
    """Fills a row to the length of its batch."""


@dataclass(frozen=True)
class LoadedModel:
    """A masked language model with its tokenizer, ready to be scored."""

    model: Any
    """A transformers masked-LM model, in evaluation mode."""
    tokenizer: Any
    """Its tokenizer; only special token ids and decoding are used."""
    digest: str
    """`sha256:...` over the parameters."""

    @classmethod
    def of(cls, model: Any, tokenizer: Any, *, device: str | None = None) -> "LoadedModel":
        """Wrap a model in memory; puts it in evaluation mode, and on `device` where one is named.

        Raises UserError as `device_of` does.
        """
        if device is not None:
            nn.Module.to(model, device_of(device))
        return cls(model.eval(), tokenizer, model_digest(model))

    @property
    def ids(self) -> TokenIds:
        """Special token ids. Raises UserError when the tokenizer lacks one."""
        found = {
            name: getattr(self.tokenizer, f"{name}_token_id")
            for name in ("cls", "sep", "mask", "pad")
        }
        missing = [name for name, value in found.items() if value is None]
        if missing:
            raise UserError(
                f"a tokenizer without {', '.join(missing)} token",
                "a masked language model is scored with cls, sep, mask and pad",
                "pass the tokenizer that the model was trained with",
            )
        return TokenIds(**found)

    @property
    def vocab_size(self) -> int:
        """Number of token ids the model knows."""
        return int(self.model.config.vocab_size)

    @property
    def longest_row(self) -> int:
        """Tokens a row may have, special ones included."""
        config = self.model.config
        positions = int(getattr(config, "max_position_embeddings", 512))
        # RoBERTa counts positions from the padding id on, so its table is that much longer.
        return positions - self.ids.pad - 1 if "roberta" in config.model_type else positions

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device


def device_of(name: str) -> torch.device:
    """Where `--device` says that models are scored: cpu, cuda, cuda:N, or auto.

    auto is a CUDA device where there is one, as training takes it; scores agree up to the rounding
    of floats. Raises UserError on another name, or a CUDA device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or name == "cuda:" or (number and kind == "cpu"):
        raise UserError(
            f"--device {name}", "a device is cpu, cuda, cuda:N or auto", "leave it at auto"
        )
    if kind == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not found:
            raise UserError(f"--device {name}", "torch sees no CUDA device", "use --device cpu")
        if number and not (number.isdecimal() and int(number) < found):
            raise UserError(
                f"--device {name}",
                f"torch sees {found} CUDA devices, numbered from 0",
                f"name one of cuda:0 to cuda:{found - 1}",
            )
    return torch.device(name)


def load(
    path: str | Path, identities: Sequence[Identity] = (), *, device: str = "auto"
) -> LoadedModel:
    """Load a masked language model from a plain folder or, with an identity, a sealed one.

    Nothing is fetched and no code of the folder is run. Raises UserError when the folder holds
    no such model, or one whose tokenizer is not its own, and as `device_of` does; a sealed folder
    raises as `SealedFolder.open` does.
    """
    path, placed = Path(path), device_of(device)
    if (path / "recipients.json").is_file():
        sealed, its_tokenizer = load_model(SealedFolder.open(path, identities))
        _refuse_unfit(path, sealed, its_tokenizer)
        return LoadedModel.of(sealed.float().to(placed), its_tokenizer)
    if not (path / "config.json").is_file():
        raise UserError(
            f"{path}",
            "a model folder has a config.json, or a recipients.json when it is sealed",
            "name the folder that save_pretrained or the run wrote",
        )
    try:
        with no_progress_bar():
            model, loaded = AutoModelForMaskedLM.from_pretrained(
                path, local_files_only=True, output_loading_info=True
            )
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # of many classes: JSON, safetensors, shapes, a missing class
        raise UserError(
            f"{path}",
            "it does not load as a masked language model with its tokenizer",
            "check it with AutoModelForMaskedLM.from_pretrained and AutoTokenizer.from_pretrained",
        ) from error
    absent = sorted({*loaded["missing_keys"], *(str(key) for key in loaded["mismatched_keys"])})
    if absent:
        more = f" and {len(absent) - 1} more" if absent[1:] else ""
        raise UserError(
            f"{path} without {absent[0]}{more}",
            "every weight comes from the folder, or a part of the model would be drawn at random",
            "name the folder of the whole masked language model, head included",
        )
    _refuse_unfit(path, model, tokenizer)
    return LoadedModel.of(model.float().to(placed), tokenizer)


def _refuse_unfit(path: Path, model: Any, tokenizer: Any) -> None:
    """Models are scored with the ids of their tokenizers: each of these has to have an embedding.

    More embeddings than ids are usual, where their number was rounded up.
    """
    own = "save the tokenizer that the model was trained with into that folder"
    vocabulary = tokenizer.get_vocab()
    if len(vocabulary) <= len(tokenizer.all_special_ids):
        raise UserError(
            f"{path}",
            "its tokenizer has special tokens alone, as of a folder without tokenizer files",
            own,
        )
    ids, embeddings = max(vocabulary.values()) + 1, len(model.get_input_embeddings().weight)
    if ids > embeddings:
        raise UserError(
            f"{path} with {embeddings} embeddings",
            f"its tokenizer has {ids} ids: they are not a pair",
            own,
        )
