"""Plain and sealed model folders, and folders that are neither."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

import audits
from audits.models import LoadedModel, load
from audits.planting.canaries import CanarySet
from audits.scores.scoring import greedy, joint_logprobs
from dpmlm.artifacts import SealedFolder, UserError, new_identity, save_model


def test_plain_and_sealed_folders_give_one_model(
    untrained: LoadedModel, canaries: CanarySet, tmp_path: Path
) -> None:
    untrained.model.save_pretrained(tmp_path / "plain")
    untrained.tokenizer.save_pretrained(tmp_path / "plain")
    identity = new_identity()
    folder = SealedFolder.create(tmp_path / "sealed", [identity.recipient], role="model")
    save_model(folder, untrained.model, untrained.tokenizer)
    folder.finish({})
    plain, sealed = load(tmp_path / "plain"), load(tmp_path / "sealed", [identity])
    assert plain.digest == sealed.digest == untrained.digest
    assert plain.ids == sealed.ids == untrained.ids
    rows = canaries.canaries[:4]
    expected = joint_logprobs(untrained, rows)
    assert joint_logprobs(plain, rows) == pytest.approx(expected, abs=1e-6)
    assert joint_logprobs(sealed, rows) == pytest.approx(expected, abs=1e-6)


def test_sealed_folder_needs_an_identity(untrained: LoadedModel, tmp_path: Path) -> None:
    folder = SealedFolder.create(tmp_path / "sealed", [new_identity().recipient], role="model")
    save_model(folder, untrained.model, untrained.tokenizer)
    folder.finish({})
    with pytest.raises(UserError):
        load(tmp_path / "sealed")
    with pytest.raises(UserError):
        load(tmp_path / "sealed", [new_identity()])


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="does not load"):
        load(tmp_path)


def test_models_are_scored_without_dropout(untrained: LoadedModel) -> None:
    again = LoadedModel.of(untrained.model.train(), untrained.tokenizer)
    assert not again.model.training


def test_roberta_counts_its_positions_from_the_padding(untrained: LoadedModel) -> None:
    config = RobertaConfig(
        vocab_size=700,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=21,
        pad_token_id=0,
    )
    subject = LoadedModel.of(RobertaForMaskedLM(config), untrained.tokenizer)
    assert subject.longest_row == 20
    longest = tuple(range(10, 28))
    assert greedy(subject, [longest], [(2, 4)]).shape == (1, 2)
    with pytest.raises(UserError, match="rows of 20"):
        greedy(subject, [(*longest, 30)], [(2, 4)])


def test_tokenizer_without_a_mask_is_refused(untrained: LoadedModel) -> None:
    class Bare:
        cls_token_id, sep_token_id, pad_token_id, mask_token_id = 1, 2, 0, None

    with pytest.raises(UserError, match="without mask token"):
        _ = LoadedModel(untrained.model, Bare(), untrained.digest).ids


def test_models_of_another_vocabulary_are_refused(
    untrained: LoadedModel, canaries: CanarySet, plan: dict
) -> None:
    class Renamed:
        def get_vocab(self) -> dict[str, int]:
            return {"other": 0}

    other = LoadedModel(untrained.model, Renamed(), untrained.digest)
    with pytest.raises(UserError, match="another vocabulary"):
        audits.audit(untrained, plan=plan, canaries=canaries, control=other)


def test_importing_the_package_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import audits, sys; sys.exit('torch' in sys.modules or not audits.plan_canaries)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert torch.__version__


def test_a_folder_without_its_head_is_refused(untrained: LoadedModel, tmp_path: Path) -> None:
    """Its head would be drawn at random, and such a model withstands every attack."""
    untrained.model.bert.save_pretrained(tmp_path / "body")
    untrained.tokenizer.save_pretrained(tmp_path / "body")
    with pytest.raises(UserError, match="every weight comes from the folder"):
        load(tmp_path / "body")


def narrowed(subject: LoadedModel) -> BertForMaskedLM:
    """The model with fewer embeddings than its tokenizer has ids."""
    made = copy.deepcopy(subject.model)
    made.resize_token_embeddings(690)
    return made


def test_a_model_with_fewer_embeddings_than_its_tokenizer_has_ids_is_refused(
    untrained: LoadedModel, tmp_path: Path
) -> None:
    """The ids without one would end the first forward pass that meets them."""
    said = "with 690 embeddings: its tokenizer has 700 ids"
    narrow, identity = narrowed(untrained), new_identity()
    narrow.save_pretrained(tmp_path / "plain")
    untrained.tokenizer.save_pretrained(tmp_path / "plain")
    with pytest.raises(UserError, match=said):
        load(tmp_path / "plain")
    folder = SealedFolder.create(tmp_path / "sealed", [identity.recipient], role="model")
    save_model(folder, narrow, untrained.tokenizer)
    folder.finish({})
    with pytest.raises(UserError, match=said):
        load(tmp_path / "sealed", [identity])


def test_more_embeddings_than_ids_are_a_model_all_the_same(
    untrained: LoadedModel, tmp_path: Path
) -> None:
    """Many models round the number of their embeddings up."""
    wide = copy.deepcopy(untrained.model)
    wide.resize_token_embeddings(704)
    wide.save_pretrained(tmp_path)
    untrained.tokenizer.save_pretrained(tmp_path)
    assert load(tmp_path).vocab_size == 704


def test_a_folder_without_its_tokenizer_is_refused(untrained: LoadedModel, tmp_path: Path) -> None:
    """transformers makes one up that knows special tokens alone."""
    untrained.model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="special tokens alone"):
        load(tmp_path)


def test_a_folder_is_opened_without_a_bar(
    untrained: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untrained.model.save_pretrained(tmp_path)
    untrained.tokenizer.save_pretrained(tmp_path)
    capsys.readouterr()
    load(tmp_path)
    assert "Loading weights" not in capsys.readouterr().err
