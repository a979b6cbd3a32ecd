"""`dpmlm plan --checklist`: every item is tried, and each is seen not in place once."""

from importlib import resources

import pytest
import yaml
from small_run import write_corpus, write_run_file

from dpmlm.config import load_config
from dpmlm.pipeline.checklist import CHECKS, checklist
from dpmlm.training import checkpoint


@pytest.fixture
def folder(tmp_path):
    write_corpus(tmp_path)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/pseudonym.key").write_text("not read")
    return tmp_path


def one(folder, name, **changes):
    return CHECKS[name](load_config(write_run_file(folder, **changes)))


def test_all_in_place(folder):
    found = checklist(load_config(write_run_file(folder)))
    assert [item.name for item in found.items] == list(CHECKS)
    assert found.ok, found.text()
    assert "all in place" in found.text()
    assert "MB sealed and read back" in found.text()


def test_a_vocabulary_that_is_named_is_told_by_its_digest(folder):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    path = str(folder / "vocab.txt")
    ok, says = one(folder, "tokenizer versioned", tokens={"vocabulary": path, "window": 48})
    assert ok
    assert says.startswith("sha256:")


@pytest.mark.parametrize(
    ("name", "changes", "advice"),
    [
        ("tokenizer versioned", {"tokens__train": {"corpus": "gone.jsonl"}}, "mend tokens.train"),
        ("validation frozen", {"split__validation": 0}, "set split.validation"),
        ("validation frozen", {"keys__scrub": "keys/gone.key"}, "dpmlm init"),
        ("baseline recorded", {"audit__control": None}, "audit.control.corpus"),
        ("baseline recorded", {"audit__control": {"corpus": "gone.jsonl"}}, "gone.jsonl"),
    ],
)
def test_what_is_missing_is_named(folder, name, changes, advice):
    ok, says = one(folder, name, **changes)
    assert not ok
    assert advice in says


def test_a_policy_that_leaves_identifiers_is_found(folder):
    policy = yaml.safe_load((resources.files("policies") / "scrub/default.yaml").read_text())
    for rule in policy["rules"]:
        if rule["entity"] in ("PERSON", "PHONE_NUMBER"):
            rule["threshold"] = 1.0
    (folder / "weak.yaml").write_text(yaml.safe_dump(policy))
    ok, says = one(folder, "identifiers found", scrub__policy=str(folder / "weak.yaml"))
    assert not ok
    assert "leaves phone, name" in says


@pytest.mark.parametrize("lost", ["weights", "optimizer"])
def test_a_checkpoint_that_loses_something_is_found(folder, monkeypatch, lost):
    if lost == "weights":
        monkeypatch.setattr(checkpoint, "_load_weights", lambda *_: None)
    else:
        whole = checkpoint._flatten

        def rounded(optimizer):
            tensors, numbers = whole(optimizer)
            return {name: t.bfloat16().to(t.dtype) for name, t in tensors.items()}, numbers

        monkeypatch.setattr(checkpoint, "_flatten", rounded)
    ok, says = one(folder, "checkpoint round trip")
    assert not ok
    assert "not equal" in says


def test_a_model_that_cannot_be_loaded_is_an_item_and_no_error(folder, monkeypatch):
    monkeypatch.delitem(CHECKS, "identifiers found")  # loads an analyzer for seconds
    found = checklist(load_config(write_run_file(folder, model={"from": "gone"})))
    (item,) = [item for item in found.items if item.name == "checkpoint round trip"]
    assert not item.ok
    assert "gone" in item.says
    assert "1 to mend" in found.text()
