"""Loading tokenizers of every kind, and training one."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dpmlm.artifacts import SealedFolder
from dpmlm.errors import IntegrityError, UserError
from dpmlm.masking import TokenTable
from dpmlm.tokens import (
    load_sealed_tokenizer,
    load_tokenizer,
    save_tokenizer,
    tokenizer_digest,
    train_tokenizer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    Tok = PreTrainedTokenizerFast

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXT = "Unhappy doctors, discharged on Monday [MASK]!"


def write_vocabulary(path: Path, tokenizer: "Tok", end: str = "\n") -> Path:
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    path.write_bytes("".join(piece + end for piece, _ in pieces).encode())
    return path


def test_every_way_to_name_a_tokenizer_gives_the_same(tmp_path: Path, tokenizer: "Tok") -> None:
    whole = tmp_path / "whole"
    tokenizer.save_pretrained(whole)
    bare, plain, dos = tmp_path / "bare", tmp_path / "plain", tmp_path / "dos"
    for made in (bare, plain, dos):
        made.mkdir()
    tokenizer.backend_tokenizer.save(str(bare / "tokenizer.json"))
    write_vocabulary(plain / "vocab.txt", tokenizer)
    write_vocabulary(dos / "vocab.txt", tokenizer, "\r\n")
    ways: list[str | Path] = [
        whole,
        str(whole),
        whole / "tokenizer.json",
        bare,
        bare / "tokenizer.json",
        plain,
        str(plain / "vocab.txt"),
        dos / "vocab.txt",
    ]
    for way in ways:
        loaded = load_tokenizer(way)
        assert loaded.is_fast
        assert loaded(TEXT).input_ids == tokenizer(TEXT).input_ids
        assert tokenizer_digest(loaded) == tokenizer_digest(tokenizer)
        assert loaded.mask_token == "[MASK]"
        assert loaded.decode(loaded("unhappy").input_ids, skip_special_tokens=True) == "unhappy"


def test_sealed_round_trip(folder: SealedFolder, tokenizer: "Tok") -> None:
    save_tokenizer(folder, tokenizer)
    again = load_sealed_tokenizer(folder)
    assert tokenizer_digest(again) == tokenizer_digest(tokenizer)
    assert again(TEXT).input_ids == tokenizer(TEXT).input_ids
    assert again.model_input_names == ["input_ids", "attention_mask"]
    assert str(vars(TokenTable.of(again))) == str(vars(TokenTable.of(tokenizer)))
    folder.write_json("tokenizer", {"backend": {}})
    with pytest.raises(IntegrityError):
        load_sealed_tokenizer(folder)
    folder.remove("tokenizer")
    with pytest.raises(UserError, match="no tokenizer"):
        load_sealed_tokenizer(folder)


def test_the_digest_sees_every_change_but_call_settings(tokenizer: "Tok") -> None:
    digest = tokenizer_digest(tokenizer)
    tokenizer(TEXT, truncation=True, max_length=4, padding="max_length")
    assert tokenizer_digest(tokenizer) == digest
    other = train_tokenizer(["other words entirely"] * 3, vocab_size=160)
    assert tokenizer_digest(other) != digest


def test_a_cased_vocabulary_keeps_capitals(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIALS, "Monday", "monday"]) + "\n")
    cased = load_tokenizer(path)
    assert cased.convert_ids_to_tokens(cased("Monday monday").input_ids[1:-1]) == [
        "Monday",
        "monday",
    ]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n", r"\[MASK\]"),
        ("vocab.txt", b"[PAD]\n\xff\n", "line 2"),
        ("vocab.txt", b"[PAD]\nword\n\nother\n", "line 3"),
        ("vocab.txt", b"[PAD]\nword\nword\n", "line 3.*line 2"),
        ("vocab.txt", b"", "line 1"),
        ("tokenizer.json", b"{}", "no tokenizer.json"),
        ("tokenizer.json", b"\x00", "no tokenizer.json"),
        ("tokenizer.bin", b"", "vocab.txt or a tokenizer.json"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=match):
        load_tokenizer(tmp_path / name)


def test_other_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for missing in (tmp_path / "gone", "gone/vocab.txt", "./gone", "vocab.txt"):
        with pytest.raises(UserError, match="no such file"):
            load_tokenizer(missing)
    with pytest.raises(UserError, match="holds no"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="cannot load"):
        load_tokenizer("nobody/no-such-model-anywhere")
    state = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
    for field in ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor"):
        state[field] = None
    state |= {"decoder": None, "added_tokens": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="does not say"):
        load_tokenizer(tmp_path)


def test_a_model_folder_without_its_vocabulary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 90}))
    with pytest.raises(UserError, match="special tokens"):
        load_tokenizer(tmp_path)


def test_training_keeps_what_it_promises(tokenizer: "Tok") -> None:
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    assert len(tokenizer) == 200
    assert tokens[:12] == [*SPECIALS, *(f"[unused{i}]" for i in range(7))]
    assert tokenizer.tokenize("patient") == ["patient"]
    assert tokenizer.unk_token not in tokenizer.tokenize("Zq9x {~} #1 wholly-unseen, plain ASCII?")
    assert "".join(tokenizer.tokenize("unhappily")).replace("##", "") == "unhappily"
    table = TokenTable.of(tokenizer)
    assert not table.special[tokenizer.convert_tokens_to_ids("[unused0]")]
    short = train_tokenizer(["hi"], vocab_size=5000)
    assert len(short) < 130


def test_training_finds_the_pieces_of_the_library_trainer() -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    rng = random.Random(3)
    syllables = [a + b for a in "bcdfghklmnprst" for b in "aeiou"]
    weights = [1 / (1 + i) for i in range(len(syllables))]
    words = ["".join(rng.choices(syllables, weights, k=rng.randint(1, 4))) for _ in range(4000)]
    texts = [" ".join(words[i::5]) for i in range(5)]
    ours = set(train_tokenizer(texts, vocab_size=420).get_vocab())
    library = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, min_frequency=2, show_progress=False)
    library.train_from_iterator(texts, trainer)
    theirs = set(library.get_vocab())
    assert len(theirs & ours) >= 0.97 * len(theirs), "ties alone may be broken otherwise"


def test_training_is_the_same_in_every_process_and_order(tmp_path: Path) -> None:
    code = (
        "import hashlib, json, sys; from dpmlm.tokens import train_tokenizer\n"
        "texts = json.load(open(sys.argv[1]))[:: int(sys.argv[2])]\n"
        "v = train_tokenizer(texts, vocab_size=400).get_vocab()\n"
        "print(hashlib.sha256(json.dumps(sorted(v.items())).encode()).hexdigest())"
    )
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(1, 9))) for _ in range(300)]
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps([" ".join(rng.choices(words, k=50)) for _ in range(40)]))
    made = set()
    for step in ("1", "-1"):
        command = [sys.executable, "-c", code, str(texts), step]
        made.add(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert len(made) == 1


def test_rare_letters_do_not_keep_a_word_out_of_a_small_vocabulary() -> None:
    small = train_tokenizer(["banana cabana zq"] * 9, vocab_size=130)
    assert small.tokenize("zq") == ["zq"]


def test_training_refusals() -> None:
    with pytest.raises(UserError, match="alone"):
        train_tokenizer(["text"], vocab_size=100)
    for texts in ([], ["", " \n"]):
        with pytest.raises(UserError, match="without a word"):
            train_tokenizer(texts, vocab_size=300)


def test_bert_base_uncased() -> None:
    data = os.environ.get("DPMLM_DATA")
    if data is None:
        pytest.skip("DPMLM_DATA is not set: the shared vocabulary is not there")
    bert = load_tokenizer(Path(data) / "vocab" / "bert-base-uncased.txt")
    assert len(bert) == 30522
    ids = bert("Hello, UNAFFABLE [MASK] Café").input_ids
    assert ids == [101, 7592, 1010, 14477, 20961, 3468, 103, 7668, 102]
    pair = bert("hello", "world").input_ids
    assert pair == [101, 7592, 102, 2088, 102]
    table = TokenTable.of(bert)
    assert (table.mask_id, table.pad_id, table.cls_id, table.sep_id) == (103, 0, 101, 102)
    assert sorted(table.special.nonzero()[0]) == [0, 100, 101, 102, 103]
    # Of 5828 pieces with ##, those of Han, kana, Thai and symbols are words of their own.
    assert int(table.continuation.sum()) == 5308


def test_importing_tokens_is_light() -> None:
    code = "import sys, dpmlm.tokens; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
