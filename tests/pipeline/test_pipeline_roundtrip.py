"""decode(encode(text)): what normalisation explains, and what is damage."""

import json

import pytest
import yaml
from small_run import WORDS, write_corpus, write_run_file
from small_stages import begin, run_stages
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline.checklist import CHECKS
from dpmlm.pipeline.roundtrip import pieces_of, refuse_damaging, round_trip
from dpmlm.tokens import train_tokenizer

TEXTS = [f"the {one} and the {other} were quiet" for one in WORDS for other in WORDS[:6]]
ROLES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
         "mask_token": "[MASK]"}  # fmt: skip


@pytest.fixture(scope="module")
def wordpiece():
    return train_tokenizer([*TEXTS, "caf\u00e9"], vocab_size=300, unused=20)


def changed(tokenizer, **parts) -> PreTrainedTokenizerFast:
    """The same with other parts of its tokenizer.json."""
    state = json.loads(tokenizer.backend_tokenizer.to_str()) | parts
    backend = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **ROLES)


def byte_level():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(ROLES.values()), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **ROLES)


def unigram():
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=list(ROLES.values()), unk_token="[UNK]", show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **ROLES)


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("the river near the market", "exact"),
        ("The River  near\tthe market.", "normalised"),
        ("a caf\u00c9", "normalised"),
        ("i do not know, and don't care", "normalised"),  # no clean-up makes one of the other
        ("the \u6771 river", "unknown"),
    ],
)
def test_what_normalisation_explains_is_told_from_damage(wordpiece, text, how):
    found = round_trip(wordpiece, [text])
    assert {name: getattr(found, name) for name in ("exact", "normalised", "unknown", "lost")} == {
        name: int(name == how) for name in ("exact", "normalised", "unknown", "lost")
    }


@pytest.mark.parametrize("make", [byte_level, unigram])
def test_sound_tokenizers_of_other_families_come_back_whole(make):
    tokenizer = make()
    assert round_trip(tokenizer, TEXTS).exact == len(TEXTS)
    own = refuse_damaging(tokenizer, "tokenizer")
    assert own.lost == own.unknown == 0
    assert own.texts > 50


def test_every_entry_is_tried_and_continuations_behind_a_beginning(wordpiece):
    pieces = list(pieces_of(wordpiece))
    vocabulary = wordpiece.get_vocab()
    assert len(pieces) == len(vocabulary) - 5
    lead = next(p for p in sorted(vocabulary, key=vocabulary.get) if p.isascii() and p.isalpha())
    inside = [piece for piece in vocabulary if piece.startswith("##")]
    assert {lead + piece.removeprefix("##") for piece in inside} <= set(pieces)


DAMAGES = {
    # Lower-cased entries without a normaliser that lower-cases, and the other way round.
    "nothing is lower-cased": ({"normalizer": None}, ["THE RIVER"], "unknown"),
    "vowels are thrown away": (
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "z"}, "content": "e"}},
        ["the zoo"], "normalised",
    ),
    "a decoder that drops a letter": (
        {"decoder": {"type": "Sequence", "decoders": [
            {"type": "WordPiece", "prefix": "##", "cleanup": False},
            {"type": "Replace", "pattern": {"String": "e"}, "content": ""}]}},
        ["the river"], "lost",
    ),
    "no decoder": ({"decoder": None}, ["rivermarket"], "lost"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_found_for_what_it_is(wordpiece, name):
    parts, texts, how = DAMAGES[name]
    found = round_trip(changed(wordpiece, **parts), texts)
    assert getattr(found, how) == 1


@pytest.mark.parametrize("name", ["a decoder that drops a letter", "no decoder"])
def test_a_vocabulary_that_does_not_come_back_is_refused(wordpiece, name):
    refuse_damaging(wordpiece, "tokens.vocabulary x")
    with pytest.raises(UserError, match="as other characters") as raised:
        refuse_damaging(changed(wordpiece, **DAMAGES[name][0]), "tokens.vocabulary x")
    assert raised.value.given == "tokens.vocabulary x"


def test_a_run_refuses_it_before_anything_is_encoded(tmp_path, wordpiece):
    folder = tmp_path / "broken"
    changed(wordpiece, **DAMAGES["no decoder"][0]).save_pretrained(folder)
    rows = [{"id": f"d{n}", "text": f"the river {n}", "author": f"p{n}"} for n in range(9)]
    tokens = {"vocabulary": str(folder), "window": 48}
    begin(tmp_path, rows)
    tree = yaml.safe_load((tmp_path / "run.yaml").read_text())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree | {"tokens": tokens}))
    config = load_config(tmp_path / "run.yaml")
    with pytest.raises(UserError, match="as other characters"):
        run_stages(config)
    assert not list((config.workspace / "tokens").glob("tokens-*"))


def test_the_checklist_tries_public_text(tmp_path):
    write_corpus(tmp_path)
    ok, says = CHECKS["tokenizer round trip"](load_config(write_run_file(tmp_path)))
    assert ok
    assert says.startswith("of 60 public texts 0 exact, 60 but for case")
    (tmp_path / "public.jsonl").write_text(json.dumps({"text": "\u6771\u4eac " * 40}) + "\n")
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abc", "##a", "##b", "##c"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocab) + "\n")
    tokens = {"vocabulary": str(tmp_path / "vocab.txt"), "window": 48}
    ok, says = CHECKS["tokenizer round trip"](load_config(write_run_file(tmp_path, tokens=tokens)))
    assert (ok, "1 with unknown tokens" in says) == (False, True)
