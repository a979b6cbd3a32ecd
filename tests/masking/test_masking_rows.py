"""make_batch against a row-at-a-time twin, and what a batch must never do."""

import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from naive_rows import SEED, naive_row, naive_words, slots_of

from dpmlm.errors import UserError
from dpmlm.masking import Example, MaskedBatch, MaskingSpec, TokenTable, make_batch

WINDOW = 32
STRATEGIES = ["token", "whole_word", "span", "entity"]


def unpack(batch: MaskedBatch, b: int) -> tuple[list[int], list[int], list[int]]:
    ids = batch.input_ids[b][batch.attention_mask[b].bool()].tolist()
    used = batch.masked_weights[b].bool()
    return ids, batch.masked_positions[b][used].tolist(), batch.masked_labels[b][used].tolist()


def check_twin(examples: list[Example], table: TokenTable, spec: MaskingSpec, **more: Any) -> None:
    stride, share = more.get("stride", 7), more.get("step_share", 0.0)
    visits = [i % 3 for i in range(len(examples))]
    batch = make_batch(
        examples,
        visits,
        seed=SEED,
        table=table,
        spec=spec,
        window=WINDOW,
        stride=stride,
        step_share=share,
    )
    assert batch.masked_positions.shape[1] == slots_of(spec, WINDOW) == spec.masked_slots(WINDOW)
    for b, (example, visit) in enumerate(zip(examples, visits)):
        assert unpack(batch, b) == naive_row(example, visit, table, spec, WINDOW, stride, share)


@pytest.mark.parametrize("stride", [1, 7, 32])
@pytest.mark.parametrize("ratio", [0.05, 0.15, 0.4, 0.9])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_equal_the_naive_twin(
    examples: list[Example], table: TokenTable, strategy: str, ratio: float, stride: int
) -> None:
    check_twin(examples, table, MaskingSpec(strategy, ratio), stride=stride)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("step_share", [0.0, 0.3, 1.0])
def test_weighted_static_scheduled_rows_equal_the_naive_twin(
    examples: list[Example], table: TokenTable, strategy: str, step_share: float
) -> None:
    """With pieces that cling and close their words, too."""
    rng = np.random.default_rng(8)
    table = dataclasses.replace(
        table,
        closes=rng.random(table.vocab_size) < 0.2,
        clings=(rng.random(table.vocab_size) < 0.2) & table.continuation,
    )
    spec = MaskingSpec(strategy, 0.4, ratio_end=0.1)  # type: ignore[arg-type]
    check_twin(examples, table, spec, step_share=step_share)
    spec = MaskingSpec(strategy, 0.1, 0.3, 0.5, 0.4, static=True, entity_share=0.8)  # type: ignore[arg-type]
    table = dataclasses.replace(table, weights=rng.uniform(0.125, 8, table.vocab_size))
    check_twin(examples, table, spec, step_share=step_share)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_row_is_independent_of_its_batch(
    examples: list[Example], table: TokenTable, strategy: str
) -> None:
    spec = MaskingSpec(strategy)  # type: ignore[arg-type]
    make = {"seed": SEED, "table": table, "spec": spec, "window": WINDOW}
    together = make_batch(examples, [4] * len(examples), **make)  # type: ignore[arg-type]
    order = np.random.default_rng(0).permutation(len(examples))
    shuffled = make_batch([examples[i] for i in order], [4] * len(order), **make)  # type: ignore[arg-type]
    for b, i in enumerate(order):
        alone = make_batch([examples[i]], [4], **make)  # type: ignore[arg-type]
        assert unpack(together, i) == unpack(shuffled, b) == unpack(alone, 0)


def test_rows_padded_to_the_window_differ_by_padding_alone(
    examples: list[Example], table: TokenTable
) -> None:
    settings = {"seed": SEED, "table": table, "spec": MaskingSpec("token", 0.15), "window": WINDOW}
    short = sorted(examples, key=lambda example: len(example.tokens))[:3]
    tight = make_batch(short, [0] * 3, **settings)
    wide = make_batch(short, [0] * 3, **settings, pad_to_window=True)
    width = tight.input_ids.shape[1]
    assert width < wide.input_ids.shape[1] == WINDOW
    assert torch.equal(wide.input_ids[:, :width], tight.input_ids)
    assert bool((wide.input_ids[:, width:] == table.pad_id).all())
    assert int(wide.attention_mask[:, width:].sum()) == 0
    assert torch.equal(wide.masked_positions, tight.masked_positions)
    assert torch.equal(wide.masked_labels, tight.masked_labels)


def test_seed_id_and_visit_each_change_the_mask(table: TokenTable) -> None:
    tokens = np.arange(5, 115)

    def row(seed: bytes = SEED, id: str = "a", visit: int = 0) -> list[int]:
        batch = make_batch(
            [Example(id, tokens)], [visit], seed=seed, table=table, spec=MaskingSpec(), window=128
        )
        return batch.masked_positions[0].tolist()

    assert row() == row()
    assert len({tuple(r) for r in (row(), row(seed=b"x"), row(id="b"), row(visit=1))}) == 4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_slots_and_types_are_those_of_the_contract(
    examples: list[Example], table: TokenTable, strategy: str
) -> None:
    spec = MaskingSpec(strategy)  # type: ignore[arg-type]
    for part in (examples, examples[:3], [examples[0]], []):
        batch = make_batch(part, [0] * len(part), seed=SEED, table=table, spec=spec, window=WINDOW)
        assert len(batch) == len(part)
        assert (
            batch.masked_positions.shape
            == (len(part), spec.masked_slots(WINDOW))
            == (len(part), {"token": 4, "whole_word": 9}.get(strategy, 13))
        )
        assert batch.input_ids.shape[1] <= WINDOW
        for name in ("input_ids", "masked_positions", "masked_labels"):
            assert getattr(batch, name).dtype == torch.int64
        assert batch.masked_weights.dtype == torch.float32
        assert batch.masked_labels.numel() == 0 or batch.masked_labels.max() < table.vocab_size
        assert batch.masked_positions.numel() == 0 or (
            batch.masked_positions.max() < batch.input_ids.shape[1]
        )


def test_every_example_with_a_maskable_token_gets_a_mask(table: TokenTable) -> None:
    lost = np.full(3000, 1)
    lost[2500] = 50
    made = [
        Example("one", np.array([9])),
        Example("none", np.array([1, 1])),
        Example("empty", np.array([], dtype=np.int64)),
        Example("lost", lost),
        Example("long none", np.full(3000, 1)),
    ]
    for strategy in STRATEGIES:
        for stride in (1, 30):
            for visit in range(5):
                batch = make_batch(
                    made,
                    [visit] * 5,
                    seed=SEED,
                    table=table,
                    spec=MaskingSpec(strategy),  # type: ignore[arg-type]
                    window=WINDOW,
                    stride=stride,
                )
                assert batch.masked_weights.sum(1).tolist() == [1, 0, 0, 1, 0]
                assert batch.masked_labels[3, 0] == 50


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_enormous_document_gives_rows_like_any_other(table: TokenTable, strategy: str) -> None:
    """Ten million tokens, each naming its hundredth of the document: a row is a window from
    anywhere in it, and nothing as long as the document is made on the way."""
    tokens = np.repeat(np.arange(5, 105, dtype=np.uint16), 100_000)
    spec = MaskingSpec(strategy, mask_fraction=1.0, random_fraction=0.0)  # type: ignore[arg-type]
    made = [Example("enormous", tokens)] * 400
    tracemalloc.start()
    try:
        batch = make_batch(made, list(range(400)), seed=SEED, table=table, spec=spec, window=WINDOW)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < tokens.nbytes / 10
    assert batch.input_ids.shape == (400, WINDOW)
    assert batch.masked_positions.shape == (400, spec.masked_slots(WINDOW))
    assert bool((batch.masked_weights.sum(1) > 0).all())
    quarters = np.bincount((batch.masked_labels[:, 0].numpy() - 5) // 25, minlength=4)
    assert np.abs(quarters - 100).max() < 5.2 * np.sqrt(400 / 4 * 3 / 4)
    for ids, labels, used in zip(batch.input_ids, batch.masked_labels, batch.masked_weights):
        shown = {*ids[1:-1].tolist(), *labels[used > 0].tolist()} - {table.mask_id}
        assert max(shown) - min(shown) <= 1  # one hundredth, or a border
    alone = make_batch(made[:1], [7], seed=SEED, table=table, spec=spec, window=WINDOW)
    assert unpack(alone, 0) == unpack(batch, 7)


@pytest.mark.parametrize("strategy", ["token", "whole_word", "entity"])
def test_rates_are_80_10_10_and_replacements_are_ordinary(table: TokenTable, strategy: str) -> None:
    rng = np.random.default_rng(1)
    made = [Example(str(i), rng.integers(5, 199, 126)) for i in range(2500)]
    batch = make_batch(
        made,
        [0] * len(made),
        seed=SEED,
        table=table,
        spec=MaskingSpec(strategy),  # type: ignore[arg-type]
        window=128,
    )
    used = batch.masked_weights.bool()
    seen = batch.input_ids.gather(1, batch.masked_positions)[used].numpy()
    label = batch.masked_labels[used].numpy()
    total, ordinary = seen.size, int((~table.special).sum())
    assert total == 2500 * 19 if strategy == "token" else abs(total / (2500 * 19) - 1) < 0.01
    changed = (seen != table.mask_id) & (seen != label)
    # A replacement equals the label once in `ordinary` draws.
    for count, rate in [
        ((seen == table.mask_id).sum(), 0.8),
        (changed.sum(), 0.1 * (1 - 1 / ordinary)),
        ((seen == label).sum(), 0.1 * (1 + 1 / ordinary)),
    ]:
        assert abs(count - total * rate) < 4.5 * np.sqrt(total * rate * (1 - rate))
    assert not table.special[seen[changed]].any()
    drawn = np.bincount(seen[changed], minlength=table.vocab_size)[~table.special]
    expected = drawn.sum() / ordinary
    assert ((drawn - expected) ** 2 / expected).sum() < ordinary + 6 * np.sqrt(2 * ordinary)


def test_every_token_is_masked_equally_often(table: TokenTable) -> None:
    example_count, length = 4000, 20
    made = [Example(str(i), np.arange(5, 5 + length)) for i in range(example_count)]
    batch = make_batch(
        made, [0] * example_count, seed=SEED, table=table, spec=MaskingSpec(), window=WINDOW
    )
    hits = np.bincount(batch.masked_labels[batch.masked_weights.bool()].numpy())[5:]
    assert hits.sum() == 3 * example_count
    rate = 3 / length
    assert np.abs(hits - example_count * rate).max() < 4.5 * np.sqrt(example_count * rate)


def test_only_chosen_positions_change(examples: list[Example], table: TokenTable) -> None:
    spec = MaskingSpec("whole_word", 0.4, mask_fraction=1.0, random_fraction=0.0)
    batch = make_batch(
        examples, [0] * len(examples), seed=SEED, table=table, spec=spec, window=WINDOW
    )
    used = batch.masked_weights.bool()
    restored = batch.input_ids.clone()
    rows = torch.arange(len(batch))[:, None].expand_as(used)[used]
    restored[rows, batch.masked_positions[used]] = batch.masked_labels[used]
    assert int((batch.input_ids == table.mask_id).sum()) == int(used.sum())
    for b, example in enumerate(examples):
        content = restored[b][batch.attention_mask[b].bool()].tolist()[1:-1]
        text, whole = str(content)[1:-1], str(example.tokens.tolist())
        assert text in whole


@pytest.mark.parametrize("ratio", [0.05, 0.15, 0.5])
def test_words_are_not_split_below_six_pieces_and_twice_the_count(
    examples: list[Example], table: TokenTable, ratio: float
) -> None:
    spec = MaskingSpec("whole_word", ratio, mask_fraction=1.0, random_fraction=0.0)
    for visit in range(4):
        batch = make_batch(
            examples, [visit] * len(examples), seed=SEED, table=table, spec=spec, window=WINDOW
        )
        for b in range(len(examples)):
            ids, positions, labels = unpack(batch, b)
            for position, label in zip(positions, labels):
                ids[position] = label
            count = max(1, round(ratio * sum(not table.special[token] for token in ids)))
            for word in naive_words(ids, table):
                share = len(set(word) & set(positions)) / len(word)
                assert share in (0, 1) or len(word) > min(6, 2 * count)


@pytest.mark.parametrize("pieces", [5, 30, 10_000])
def test_a_long_word_is_masked_in_parts_alike_everywhere(table: TokenTable, pieces: int) -> None:
    spec, count = MaskingSpec("whole_word", 0.15), 4000
    word = np.array([9, *[130] * (pieces - 1)])
    made = [Example(str(i), word) for i in range(count)]
    batch = make_batch(made, [0] * count, seed=SEED, table=table, spec=spec, window=WINDOW)
    width = min(pieces, WINDOW - 2)
    used = batch.masked_weights.bool()
    hits = np.bincount(batch.masked_positions[used].numpy(), minlength=width + 1)[1:]
    assert len(hits) == width
    rate = hits.sum() / (count * width)
    assert 0.14 < rate < 0.35
    assert np.abs(hits - count * rate).max() < 4.5 * np.sqrt(count * rate)
    assert int(used.sum(1).max()) <= {5: 2, 30: 4 + 5, 10_000: 4 + 5}[pieces]


def test_a_canary_has_exactly_its_secret_masked(table: TokenTable) -> None:
    rng = np.random.default_rng(3)
    short = Example("short", rng.integers(5, 199, 12), (4, 8))
    edge = Example("edge", rng.integers(5, 199, 90), (86, 90))
    start = Example("start", rng.integers(5, 199, 90), (0, 4))
    odd = Example("odd", np.array([7, 1, 0, 199, 8]), (1, 4))
    other = Example("other", rng.integers(5, 199, 25))
    made = [short, edge, other, start, odd]
    for strategy in STRATEGIES:
        spec = MaskingSpec(strategy, mask_fraction=0.0, random_fraction=1.0)  # type: ignore[arg-type]
        for visit in range(20):
            batch = make_batch(
                made, [visit] * 5, seed=SEED, table=table, spec=spec, window=WINDOW, stride=30
            )
            for b, example in enumerate(made):
                if example.secret_span is None:
                    continue
                first, end = example.secret_span
                ids, positions, labels = unpack(batch, b)
                assert labels == example.tokens[first:end].tolist()
                assert [ids[p] for p in positions] == [table.mask_id] * (end - first)
                shown = [t for i, t in enumerate(ids) if i not in positions][1:-1]
                around = [*example.tokens[:first], *example.tokens[end:]]
                assert str(shown)[1:-1] in str([int(t) for t in around])
                assert positions == list(range(positions[0], positions[0] + end - first))


@pytest.mark.parametrize("span", [(0, 5), (3, 3), (5, 4), (-1, 2), (9, 13)])
def test_bad_secrets_are_refused(table: TokenTable, span: tuple[int, int]) -> None:
    example = Example("canary", np.arange(5, 17), span)
    with pytest.raises(UserError):
        make_batch([example], [0], seed=SEED, table=table, spec=MaskingSpec(), window=WINDOW)


@pytest.mark.parametrize("token", [-1, 200, 70000])
@pytest.mark.parametrize("length", [4, 200])
def test_tokens_of_another_vocabulary_are_refused(
    table: TokenTable, token: int, length: int
) -> None:
    tokens = np.full(length, 1)
    tokens[:] = token
    with pytest.raises(UserError, match="vocabulary"):
        make_batch(
            [Example("a", tokens)], [0], seed=SEED, table=table, spec=MaskingSpec(), window=WINDOW
        )


def test_refusals(table: TokenTable) -> None:
    with pytest.raises(UserError, match="visit"):
        make_batch([], [1], seed=SEED, table=table, spec=MaskingSpec(), window=WINDOW)
    with pytest.raises(UserError, match="window"):
        make_batch([], [], seed=SEED, table=table, spec=MaskingSpec(), window=2)
    for change in (
        {"strategy": "words"},
        {"ratio": 0.0},
        {"ratio": 1.0},
        {"mask_fraction": 1.1},
        {"random_fraction": 0.3},
        {"ratio_end": 0.0},
        {"ratio_end": 1.0},
        {"ratio_end": float("nan")},
        {"ratio": float("nan")},
        {"entity_share": 0.0},
        {"entity_share": 1.5},
    ):
        with pytest.raises(UserError):
            dataclasses.replace(MaskingSpec(), **change)  # type: ignore[arg-type]


def test_uint16_tokens_give_the_same_rows(examples: list[Example], table: TokenTable) -> None:
    packed = [Example(e.id, e.tokens.astype(np.uint16)) for e in examples]
    make = {"seed": SEED, "table": table, "spec": MaskingSpec(), "window": WINDOW}
    a = make_batch(examples, [0] * len(examples), **make)  # type: ignore[arg-type]
    b = make_batch(packed, [0] * len(examples), **make)  # type: ignore[arg-type]
    assert torch.equal(a.input_ids, b.input_ids)
    assert torch.equal(a.masked_labels, b.masked_labels)
