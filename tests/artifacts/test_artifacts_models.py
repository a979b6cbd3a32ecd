"""Models in sealed folders: ties, types, tokenizers, damage."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    pipeline,
)

from dpmlm.artifacts import (
    Identity,
    IntegrityError,
    SealedFolder,
    SealedTensors,
    UserError,
    load_model,
    model_digest,
    new_identity,
    save_model,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "sat", "##s", "."]


@pytest.fixture(scope="module")
def identity() -> Identity:
    return new_identity()


@pytest.fixture
def folder(tmp_path: Path, identity: Identity) -> SealedFolder:
    return SealedFolder.create(tmp_path / "model", [identity.recipient], role="model")


def tokenizer(**settings: Any) -> BertTokenizer:
    return BertTokenizer(vocab={word: n for n, word in enumerate(WORDS)}, **settings)


def bert(**settings: Any) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2}
    sizes.update(vocab_size=len(WORDS), hidden_size=16, intermediate_size=24)
    config = BertConfig(**sizes, **settings)
    return BertForMaskedLM(config)


def roberta() -> RobertaForMaskedLM:
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=24,
        )
    )


def distilbert() -> DistilBertForMaskedLM:
    return DistilBertForMaskedLM(
        DistilBertConfig(vocab_size=len(WORDS), dim=16, n_layers=1, n_heads=2, hidden_dim=24)
    )


def reopened(folder: SealedFolder, identity: Identity) -> SealedFolder:
    folder.finish({})
    return SealedFolder.open(folder.path, [identity])


@pytest.mark.parametrize("make", [bert, roberta, distilbert])
def test_round_trip(folder: SealedFolder, identity: Identity, make: Any) -> None:
    model = make().eval()
    save_model(folder, model, tokenizer())
    assert folder.names() == ["config", "tokenizer", "weights"]
    loaded, words = load_model(reopened(folder, identity))
    assert type(loaded) is type(model)
    assert not loaded.training
    assert model_digest(loaded) == model_digest(model)
    batch = words("the cat sat [MASK]", return_tensors="pt")
    batch.pop("token_type_ids", None)
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_ties_are_kept_and_stored_once(folder: SealedFolder, identity: Identity) -> None:
    model = bert()
    save_model(folder, model, tokenizer())
    loaded, _ = load_model(folder)
    embeddings = loaded.get_input_embeddings().weight
    assert loaded.get_output_embeddings().weight is embeddings
    assert len(list(loaded.parameters())) == len(list(model.parameters()))
    with SealedTensors(folder.open("weights")) as tensors:
        found = tensors.get_tensors()
    large = [name for name, tensor in found.items() if tensor.shape == embeddings.shape]
    assert large == ["bert.embeddings.word_embeddings.weight"]


def test_untied_weights_stay_apart(folder: SealedFolder) -> None:
    model = bert(tie_word_embeddings=False)
    with torch.no_grad():
        model.get_output_embeddings().weight.add_(1)
    save_model(folder, model, tokenizer())
    loaded, _ = load_model(folder)
    assert loaded.get_output_embeddings().weight is not loaded.get_input_embeddings().weight
    assert model_digest(loaded) == model_digest(model)


def test_fill_mask_pipeline(folder: SealedFolder) -> None:
    model = bert().eval()
    save_model(folder, model, tokenizer())
    loaded, words = load_model(folder)
    before = pipeline("fill-mask", model=model, tokenizer=tokenizer())("The [MASK] sat.")
    assert pipeline("fill-mask", model=loaded, tokenizer=words)("The [MASK] sat.") == before


def test_tokenizer_is_the_same(folder: SealedFolder) -> None:
    original = tokenizer(model_max_length=7, padding_side="left")
    original.model_input_names = ["input_ids", "attention_mask"]
    original.add_special_tokens({"additional_special_tokens": ["[E1]"]})
    save_model(folder, bert(), original)
    _, words = load_model(folder)
    text = ["the cats [MASK]", "The DOG sat. [E1] the cats sat the"]
    options = {"padding": True, "truncation": True}
    assert dict(words(text, **options)) == dict(original(text, **options))
    assert words.all_special_tokens == original.all_special_tokens
    assert words.mask_token_id == original.mask_token_id
    assert words.decode([5, 6, 9]) == original.decode([5, 6, 9])
    assert len(words) == len(original)


def test_type_of_the_weights_wins_over_the_configuration(folder: SealedFolder) -> None:
    model = bert().to(torch.bfloat16)
    model.config.dtype = torch.float32
    save_model(folder, model, tokenizer())
    loaded, _ = load_model(folder)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert model_digest(loaded) == model_digest(model)


def test_mixed_types_are_refused(folder: SealedFolder) -> None:
    model = bert()
    model.bert.encoder.to(torch.float16)
    with pytest.raises(UserError, match="one floating type"):
        save_model(folder, model, tokenizer())
    assert folder.names() == []


def test_origin_of_the_model_is_not_stored(folder: SealedFolder) -> None:
    model = bert()
    model.config._name_or_path = "/home/somebody/secret-project"
    save_model(folder, model, tokenizer())
    assert b"somebody" not in folder.read_bytes("config") + folder.read_bytes("tokenizer")


def test_loading_leaves_the_random_state_and_no_file(
    folder: SealedFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    save_model(folder, bert(), tokenizer())
    before = sorted(path.name for path in folder.path.iterdir())
    capfd.readouterr()
    state = torch.get_rng_state()
    load_model(folder)
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(path.name for path in folder.path.iterdir()) == before
    assert capfd.readouterr() == ("", "")


def test_digest_twin_and_what_changes_it() -> None:
    model = bert()
    whole = hashlib.sha256()
    for name in sorted(dict(model.named_parameters())):
        parameter = dict(model.named_parameters())[name]
        head = json.dumps([name, "torch.float32", list(parameter.shape)]).encode()
        values = parameter.detach().numpy().astype("<f4").tobytes()
        whole.update(hashlib.sha256(head).digest() + hashlib.sha256(values).digest())
    assert model_digest(model) == "sha256:" + whole.hexdigest()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert model_digest(model) != "sha256:" + whole.hexdigest()


def test_weights_that_do_not_fit(folder: SealedFolder) -> None:
    save_model(folder, bert(), tokenizer())
    config = folder.read_json("config")
    folder.write_json("config", {**config, "num_hidden_layers": 3})
    with pytest.raises(IntegrityError, match="missing keys"):
        load_model(folder)
    folder.write_json("config", {**config, "num_hidden_layers": 1})
    with pytest.raises(IntegrityError, match="unexpected keys"):
        load_model(folder)
    folder.write_json("config", {**config, "intermediate_size": 32})
    with pytest.raises(IntegrityError, match=r"shapes|mismatched"):
        load_model(folder)
    folder.write_json("config", {**config, "model_type": "absent"})
    with pytest.raises(UserError, match="type absent"):
        load_model(folder)
    folder.write_json("config", {**config, "model_type": "gpt2"})
    with pytest.raises(UserError, match="type gpt2"):
        load_model(folder)


def test_a_changed_byte_of_the_weights_is_named(folder: SealedFolder, identity: Identity) -> None:
    save_model(folder, bert(), tokenizer())
    again = reopened(folder, identity)
    path = folder.path / "weights.sealed"
    content = bytearray(path.read_bytes())
    content[17_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"weights\.sealed, chunk 1"):
        load_model(again)


def test_no_model(folder: SealedFolder) -> None:
    with pytest.raises(UserError, match="it holds no model"):
        load_model(folder)
    with pytest.raises(UserError, match="fast tokenizer"):
        save_model(folder, bert(), object())  # type: ignore[arg-type]


def test_a_model_is_in_memory_once(folder: SealedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parameters are the block that the weights were decrypted into, not copies of it."""
    save_model(folder, bert(), tokenizer())
    blocks: list[dict[str, torch.Tensor]] = []
    whole = SealedTensors.get_tensors

    def noted(tensors: SealedTensors) -> dict[str, torch.Tensor]:
        blocks.append(whole(tensors))
        return dict(blocks[0])

    monkeypatch.setattr(SealedTensors, "get_tensors", noted)
    loaded, _ = load_model(folder)
    places = {tensor.data_ptr() for tensor in blocks[0].values()}
    matrices = [parameter for parameter in loaded.parameters() if parameter.dim() > 1]
    assert len(matrices) > 10
    assert {matrix.data_ptr() for matrix in matrices} <= places


def test_importing_artifacts_does_not_import_torch() -> None:
    code = (
        "import sys, dpmlm.artifacts; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    import dpmlm.artifacts as artifacts

    for name in artifacts.__all__:
        assert getattr(artifacts, name) is not None
    with pytest.raises(AttributeError, match="absent"):
        artifacts.absent  # noqa: B018
