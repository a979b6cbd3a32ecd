"""TokenStore: what goes in comes out, also after a crash; broken shards are refused."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dpmlm.artifacts import SealedFolder
from dpmlm.errors import IntegrityError, UserError
from dpmlm.tokens import TokenShard, TokenStore, save_tokenizer, tokenizer_digest, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    Tok = PreTrainedTokenizerFast
Documents = list[dict[str, Any]]


@pytest.mark.parametrize("per_shard", [1, 5, 23, 100])
def test_round_trip(
    folder: SealedFolder, documents: Documents, tokenizer: "Tok", per_shard: int
) -> None:
    told: list[tuple[int, int]] = []
    counts = TokenStore.build(
        folder,
        iter(documents),
        tokenizer,
        per_shard=per_shard,
        progress=lambda done, total: told.append((done, total)),
    )
    folder.finish({"counts": counts})
    store = TokenStore.open(folder)
    assert len(store) == len(documents) == told[-1][0]
    assert len(folder.names("tokens-")) == -(-len(documents) // per_shard)
    for i, document in enumerate(documents):
        assert store.id(i) == document["id"]
        assert store.unit(i) == document["unit"]
        ids = tokenizer(document["text"], add_special_tokens=False).input_ids
        assert store.tokens(i).tolist() == ids
        assert store.tokens(i).dtype == np.uint16
    expected = {"documents": 23, "empty_documents": 2, "unknown_tokens": 0, "unknown_rate": 0.0}
    assert {name: counts[name] for name in expected} == expected
    assert counts["tokens"] == sum(len(store.tokens(i)) for i in range(23))
    assert counts["tokenizer"] == store.tokenizer_digest == tokenizer_digest(tokenizer)


def test_units_and_their_documents(
    folder: SealedFolder, documents: Documents, tokenizer: "Tok"
) -> None:
    folder.finish(TokenStore.build(folder, documents, tokenizer, per_shard=4))
    store = TokenStore.open(folder)
    assert store.units("validation") == ["unit-3", "unit-7"]
    assert store.units("train") == [f"unit-{i}" for i in (0, 1, 2, 4, 5, 6, 8, 9)]
    for split in ("train", "validation"):
        for unit in store.units(split):
            wanted = [i for i, document in enumerate(documents) if document["unit"] == unit]
            assert store.documents_of(unit) == wanted
    with pytest.raises(KeyError):
        store.documents_of("nobody")
    assert store.units("test") == []


def test_a_killed_build_goes_on_where_it_was(
    folder: SealedFolder, documents: Documents, tokenizer: "Tok"
) -> None:
    def dying() -> Iterator[dict[str, Any]]:
        yield from documents[:14]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TokenStore.build(folder, dying(), tokenizer, per_shard=5)
    assert folder.names("tokens-") == ["tokens-00000", "tokens-00001"]
    with pytest.raises(UserError, match="unfinished"):
        TokenStore.open(folder)
    before = (folder.path / "tokens-00001.sealed").read_bytes()
    counts = TokenStore.build(folder, documents, tokenizer, per_shard=5)
    folder.finish(counts)
    assert (folder.path / "tokens-00001.sealed").read_bytes() == before
    assert len(TokenStore.open(folder)) == counts["documents"] == 23


def test_shards_of_other_documents_or_tokenizers_are_not_kept(
    folder: SealedFolder, documents: Documents, tokenizer: "Tok"
) -> None:
    TokenStore.build(folder, documents, tokenizer, per_shard=2)
    folder.finish(TokenStore.build(folder, documents[3:], tokenizer, per_shard=6))
    store = TokenStore.open(folder)
    assert [store.id(i) for i in range(len(store))] == [d["id"] for d in documents[3:]]
    other = train_tokenizer(["other words entirely"] * 3, vocab_size=160)
    folder.finish(TokenStore.build(folder, documents[3:], other, per_shard=6))
    store = TokenStore.open(folder)
    assert store.tokenizer_digest == tokenizer_digest(other)
    assert store.tokens(0).tolist() == other(documents[3]["text"])["input_ids"][1:-1]


def test_special_tokens_in_the_text_stay_text(folder: SealedFolder, tokenizer: "Tok") -> None:
    text = "[MASK] the patient [SEP] [PAD] [unused0]"
    rows = [{"id": "a", "text": text, "unit": "a", "split": "train"}]
    assert tokenizer.mask_token_id in tokenizer(text).input_ids
    folder.finish(TokenStore.build(folder, rows, tokenizer))
    ids = set(TokenStore.open(folder).tokens(0).tolist())
    assert not ids & {tokenizer.mask_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
    assert tokenizer.convert_tokens_to_ids("[unused0]") not in ids


def test_unknown_tokens_are_counted_and_odd_text_survives(
    folder: SealedFolder, tokenizer: "Tok"
) -> None:
    texts = ["the 漢字 patient", "\ud800 broken", "\x00\u2028 \n\t", "the " * 50_000]
    rows = [
        {"id": str(i), "text": t, "unit": str(i), "split": "train"} for i, t in enumerate(texts)
    ]
    counts = TokenStore.build(folder, rows, tokenizer)
    assert counts["unknown_tokens"] == 2
    assert counts["unknown_rate"] == 2 / counts["tokens"]
    folder.finish(counts)
    store = TokenStore.open(folder)
    assert store.tokens(0).tolist().count(tokenizer.unk_token_id) == 2
    assert len(store.tokens(2)) == 0
    assert len(store.tokens(3)) == 50_000


def test_a_unit_in_two_splits_and_an_empty_corpus_are_refused(
    folder: SealedFolder, documents: Documents, tokenizer: "Tok"
) -> None:
    rows = [documents[0], {**documents[1], "unit": "unit-0", "split": "validation"}]
    with pytest.raises(UserError, match="two splits"):
        TokenStore.build(folder, rows, tokenizer, per_shard=1)
    with pytest.raises(UserError, match="no documents"):
        TokenStore.build(folder, [], tokenizer)


def test_a_tokenizer_written_in_python_is_refused(folder: SealedFolder) -> None:
    with pytest.raises(UserError, match="fast"):
        TokenStore.build(folder, [], object())  # type: ignore[arg-type]


def test_shards_of_two_tokenizers_are_refused(
    folder: SealedFolder, documents: Documents, tokenizer: "Tok"
) -> None:
    counts = TokenStore.build(folder, documents, tokenizer, per_shard=12)
    kept = folder.read_bytes("tokens-00000")
    other = train_tokenizer(["other words entirely"] * 3, vocab_size=160)
    TokenStore.build(folder, documents, other, per_shard=12)
    folder.write_bytes("tokens-00000", kept)
    folder.finish(counts)
    with pytest.raises(IntegrityError, match="another tokenizer"):
        TokenStore.open(folder)


def test_another_tokenizer_beside_the_shards_is_refused(
    folder: SealedFolder, documents: Documents, tokenizer: "Tok"
) -> None:
    counts = TokenStore.build(folder, documents, tokenizer)
    folder.finish(counts)
    assert tokenizer_digest(TokenStore.open(folder).tokenizer) == tokenizer_digest(tokenizer)
    save_tokenizer(folder, train_tokenizer(["other words entirely"] * 3, vocab_size=160))
    folder.finish(counts)
    with pytest.raises(IntegrityError, match="not the one"):
        _ = TokenStore.open(folder).tokenizer


def test_large_vocabularies_take_four_bytes(folder: SealedFolder) -> None:
    from dpmlm.tokens.wordpiece import SPECIALS, wordpiece_tokenizer

    pieces = [*SPECIALS, *(f"w{i}" for i in range(70_000))]
    tokenizer = wordpiece_tokenizer({piece: i for i, piece in enumerate(pieces)})
    rows = [{"id": "a", "text": "w69999 w0", "unit": "a", "split": "train"}]
    folder.finish(TokenStore.build(folder, rows, tokenizer))
    tokens = TokenStore.open(folder).tokens(0)
    assert tokens.dtype == np.uint32
    assert tokens.tolist() == [70_004, 5]


def _shard() -> bytes:
    return TokenShard(
        ("a", "b"),
        ("u", "v"),
        ("train", "train"),
        "sha256:x",
        np.array([0, 2, 3], "<u8"),
        np.array([7, 8, 9], "<u2"),
        0,
    ).to_bytes()


def test_every_cut_of_a_shard_is_refused() -> None:
    data = _shard()
    assert TokenShard.from_bytes(data, name="s").document(1).tolist() == [9]
    for length in range(len(data)):
        with pytest.raises(IntegrityError, match="s"):
            TokenShard.from_bytes(data[:length], name="s")
    with pytest.raises(IntegrityError):
        TokenShard.from_bytes(data + b"xx", name="s")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"dpmlm.tokens/1", b"dpmlm.tokens/2"),
        (b'"dtype":"<u2"', b'"dtype":"<f2"'),
        (b'"ids":["a","b"]', b'"ids":["a.b."]'),
        (b'"ids"', b'"Ids"'),
        (b'{"dtype"', b'["dtype"'),
        (np.array([0, 2], "<u8").tobytes(), np.array([1, 2], "<u8").tobytes()),
        (np.array([2, 3], "<u8").tobytes(), np.array([4, 3], "<u8").tobytes()),
        (np.array([2, 3], "<u8").tobytes(), np.array([2, 2], "<u8").tobytes()),
    ],
)
def test_broken_shards_are_refused(old: bytes, new: bytes) -> None:
    data = _shard()
    assert data.count(old) == 1
    with pytest.raises(IntegrityError):
        TokenShard.from_bytes(data.replace(old, new), name="s")
