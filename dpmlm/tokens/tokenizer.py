"""Loading a tokenizer, naming it by a digest, and keeping it beside the tokens it made."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dpmlm.canonical import digest
from dpmlm.errors import IntegrityError, UserError
from dpmlm.tokens.wordpiece import read_vocabulary, wordpiece_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from dpmlm.artifacts import SealedFolder

TOKENIZER_FILE = "tokenizer"
"""Name of the sealed file."""
_ROLES = ("pad", "unk", "cls", "sep", "mask")
_KNOWN = (
    dict(zip(_ROLES, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), strict=True)),
    dict(zip(_ROLES, ("<pad>", "<unk>", "<s>", "</s>", "<mask>"), strict=True)),
    dict(zip(_ROLES, ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"), strict=True)),
)


def load_tokenizer(spec: str | Path) -> "PreTrainedTokenizerFast":
    """The fast tokenizer that `spec` names: a file, a folder, or a name on the Hugging Face hub.

    A `.txt` file is a WordPiece vocabulary (BERT; lower-casing unless some piece has a capital), a
    `.json` file a tokenizer.json; the roles of its special tokens come from a tokenizer_config.json
    beside it, or from the names BERT, RoBERTa and ALBERT give them. Code from the hub never runs.

    Raises UserError when there is nothing there, the hub cannot be reached, or what was found is
    no fast tokenizer or has no mask token.
    """
    path = Path(spec)
    if path.is_dir():
        tokenizer = _from_folder(path)
    elif path.is_file():
        tokenizer = _from_file(path)
    elif _looks_like_path(spec):
        raise UserError(
            f"tokens.vocabulary {str(spec)!r}",
            "there is no such file or folder",
            "check the path; relative paths start at the run file",
        )
    else:
        tokenizer = _from_pretrained(str(spec))
    if tokenizer.mask_token_id is None:
        raise UserError(
            f"tokenizer {str(spec)!r}",
            "it has no mask token",
            "use the tokenizer of a masked language model",
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise UserError(
            f"tokenizer {str(spec)!r}",
            "it has no entry beside its special tokens, as of a folder without its vocabulary",
            "name the folder or file that holds tokenizer.json or vocab.txt",
        )
    return tokenizer


def tokenizer_digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    """`sha256:` digest of how text becomes ids, and of which tokens are special.

    Equal digests encode equally; truncation and padding, which are settings of a call, are left
    out.
    """
    state = _state(tokenizer)
    return digest({name: state[name] for name in ("backend", "roles")})


def save_tokenizer(folder: "SealedFolder", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Write the tokenizer into a stage's folder, as its sealed file `tokenizer`."""
    folder.write_json(TOKENIZER_FILE, _state(tokenizer))


def load_sealed_tokenizer(folder: "SealedFolder") -> "PreTrainedTokenizerFast":
    """The tokenizer that `save_tokenizer` wrote.

    Raises UserError if there is none, IntegrityError if the file holds something else.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if not folder.has(TOKENIZER_FILE):
        raise UserError(
            f"folder {folder.path}", "it holds no tokenizer", "run the tokens stage first"
        )
    state = folder.read_json(TOKENIZER_FILE)
    try:
        backend = Tokenizer.from_str(json.dumps(state["backend"]))
        roles, settings = dict(state["roles"]), dict(state["settings"])
    except Exception as error:  # the library raises bare Exception on what it cannot parse
        raise IntegrityError(
            f"{folder.path}, tokenizer", "it is not what was saved", "run the tokens stage again"
        ) from error
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles, **settings)


def _state(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    backend = json.loads(fast_backend(tokenizer).to_str())
    backend["truncation"] = backend["padding"] = None
    tokens = {f"{role}_token": getattr(tokenizer, f"{role}_token") for role in _ROLES}
    return {
        "backend": backend,
        "roles": {name: str(token) for name, token in tokens.items() if token is not None},
        "settings": {
            "model_input_names": list(tokenizer.model_input_names),
            "model_max_length": tokenizer.model_max_length,
        },
    }


def fast_backend(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    """What a fast tokenizer runs on; raises UserError for one that is written in Python."""
    backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(
            f"a tokenizer of class {type(tokenizer).__name__}",
            "only fast tokenizers (with a tokenizer.json) are used",
            "load it with dpmlm.tokens.load_tokenizer, or convert it with the tokenizers library",
        )
    return backend


def _looks_like_path(spec: str | Path) -> bool:
    """Hub names are `name` or `owner/name`: anything with another shape is a path."""
    text = str(spec)
    suffix = Path(text).suffix in (".txt", ".json")
    return isinstance(spec, Path) or suffix or text[:1] in ("/", ".", "~") or text.count("/") > 1


def _from_file(path: Path) -> "PreTrainedTokenizerFast":
    if path.suffix == ".txt":
        return wordpiece_tokenizer(read_vocabulary(path))
    if path.suffix != ".json":
        raise UserError(
            f"tokenizer file {path}",
            "a tokenizer is a vocab.txt or a tokenizer.json",
            "name one of those, a folder, or a hub name",
        )
    if (path.parent / "tokenizer_config.json").is_file() and path.name == "tokenizer.json":
        return _from_pretrained(str(path.parent))
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception on a file it cannot parse
        raise UserError(
            f"tokenizer file {path}",
            "it is no tokenizer.json of the tokenizers library",
            "save the tokenizer again with save_pretrained",
        ) from error
    for known in _KNOWN:
        if all(backend.token_to_id(token) is not None for token in known.values()):
            roles = {f"{role}_token": token for role, token in known.items()}
            return PreTrainedTokenizerFast(
                tokenizer_object=backend,
                model_input_names=["input_ids", "attention_mask"],
                **roles,
            )
    raise UserError(
        f"tokenizer file {path}",
        "it does not say which of its tokens mask, pad, begin and end a row",
        "put the tokenizer_config.json of the same model beside it",
    )


def _from_folder(path: Path) -> "PreTrainedTokenizerFast":
    if any((path / name).is_file() for name in ("tokenizer_config.json", "config.json")):
        return _from_pretrained(str(path))
    for name in ("tokenizer.json", "vocab.txt"):
        if (path / name).is_file():
            return _from_file(path / name)
    raise UserError(
        f"tokenizer folder {path}",
        "it holds no tokenizer_config.json, tokenizer.json or vocab.txt",
        "name the folder that save_pretrained wrote",
    )


def _from_pretrained(name: str) -> "PreTrainedTokenizerFast":
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # of many classes: network, hub, parsing, a missing dependency
        raise UserError(
            f"tokenizer {name!r}",
            f"transformers cannot load it ({type(error).__name__})",
            "check the name, or download the model where there is a network and name its folder",
        ) from error
    fast_backend(tokenizer)
    return cast("PreTrainedTokenizerFast", tokenizer)
