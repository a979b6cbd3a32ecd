"""Names of a text as marks on its tokens: encoder, shard, store."""

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from dpmlm.artifacts import SealedFolder
from dpmlm.errors import IntegrityError
from dpmlm.tokens import TokenStore
from dpmlm.tokens.encoder import Encoder
from dpmlm.tokens.shard import TokenShard, pack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast as Tok

TEXT = "Seen by Dr Ada Lovelace in Ōsaka, with Émile."
SPECIALS = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}


def byte_level(*, trim_offsets: bool) -> "Tok":
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(trim_offsets=trim_offsets)
    trainer = trainers.BpeTrainer(
        vocab_size=275, special_tokens=list(SPECIALS.values()), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator([TEXT], trainer)
    roles = {f"{role}_token": token for role, token in SPECIALS.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


def naive_marks(encoder: Encoder, text: str, spans: list[tuple[int, int]]) -> list[int]:
    """Character by character: which name each belongs to, then token by token."""
    owner: dict[int, int] = {}
    for number, (first, last) in enumerate(sorted(spans)):
        joined = next((owner[at] for at in range(first, last) if at in owner), number)
        owner |= dict.fromkeys(range(first, last), joined)
    marks, seen = [], set()
    for first, last in encoder.located(text)[1]:
        names = [owner[at] for at in range(first, last) if at in owner]
        marks.append(0 if not names else 2 if names[-1] in seen else 1)
        seen.update(names)
    return marks


SPANS = [
    [],
    [(11, 23), (27, 32), (39, 44)],
    [(8, 23), (11, 14)],
    [(8, 14), (11, 23)],
    [(11, 14), (14, 23)],
    [(0, len(TEXT))],
    [(500, 510)],
]


@pytest.mark.parametrize("spans", SPANS, ids=str)
def test_tokens_of_a_name_are_those_that_share_a_character_with_it(
    tokenizer: "Tok", spans: list[tuple[int, int]]
) -> None:
    for made in (tokenizer, byte_level(trim_offsets=True), byte_level(trim_offsets=False)):
        encoder = Encoder(made)
        ((ids, marks),) = encoder.marked([TEXT], [spans])
        assert ids.tolist() == encoder.encode([TEXT])[0].tolist()
        assert ids.dtype == encoder.dtype
        assert marks.dtype == np.uint8
        if (14, 23) not in spans:  # the space before it is of a token that both names touch
            assert marks.tolist() == naive_marks(encoder, TEXT, spans)
    trimmed, untrimmed = (
        Encoder(byte_level(trim_offsets=trim)).marked([TEXT], [SPANS[1]])[0][1].tolist()
        for trim in (True, False)
    )
    assert trimmed == untrimmed
    assert trimmed.count(1) == 3


def test_a_shard_with_names_comes_back_and_no_part_of_it_does() -> None:
    rows = [np.array([7, 8], "<u2"), np.array([9], "<u2")]
    marks = [np.array([1, 2], np.uint8), np.array([0], np.uint8)]
    shard = pack(
        ["a", "b"], ["u", "v"], ["train"] * 2, rows, tokenizer="x", unknown_id=1, names=marks
    )
    data = shard.to_bytes()
    again = TokenShard.from_bytes(data, name="s")
    assert [again.names_of(i).tolist() for i in range(2)] == [[1, 2], [0]]  # type: ignore[union-attr]
    assert [again.document(i).tolist() for i in range(2)] == [[7, 8], [9]]
    for length in range(len(data)):
        with pytest.raises(IntegrityError):
            TokenShard.from_bytes(data[:length], name="s")
    for broken in (data + b"\0", data[:-1] + b"\3", data.replace(b'"names":true', b'"names":0   ')):
        with pytest.raises(IntegrityError):
            TokenShard.from_bytes(broken, name="s")


def capitals(text: str) -> list[tuple[int, int]]:
    return [found.span() for found in re.finditer(r"[A-Z]\w+", text)]


def test_a_store_keeps_names_and_a_build_without_them_is_made_again(
    folder: SealedFolder, tokenizer: "Tok"
) -> None:
    rows = [
        {"id": "a", "text": "the Heron waded", "unit": "u", "split": "train"},
        {"id": "b", "text": "", "unit": "v", "split": "train"},
    ]
    TokenStore.build(folder, rows, tokenizer)
    folder.finish(TokenStore.build(folder, rows, tokenizer, names=capitals))
    store = TokenStore.open(folder)
    names = store.names(0)
    assert names is not None
    assert len(names) == len(store.tokens(0))
    assert names.tolist().count(1) == 1
    assert names[0] == names[-1] == 0
    assert store.names(1).tolist() == []  # type: ignore[union-attr]


def test_a_store_without_names_has_none(folder: SealedFolder, tokenizer: "Tok") -> None:
    rows = [{"id": "a", "text": "the Heron waded", "unit": "u", "split": "train"}]
    folder.finish(TokenStore.build(folder, rows, tokenizer))
    assert TokenStore.open(folder).names(0) is None
