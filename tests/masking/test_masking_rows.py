"""make_batch against a row-at-a-time twin, and what a batch must never do."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from dpmlm.errors import UserError
from dpmlm.masking import Example, MaskedBatch, MaskingSpec, TokenTable, counter_rng, make_batch
from dpmlm.masking.window import window_starts

SEED = b"mask seed"
WINDOW = 32


def naive_words(tokens: Sequence[int], table: TokenTable) -> list[list[int]]:
    words: list[list[int]] = []
    previous = None
    for position, token in enumerate(tokens):
        joins = table.continuation[token] and not table.breaks[token]
        if table.special[token]:
            previous = None
            continue
        if joins and previous is not None and not table.breaks[previous]:
            words[-1].append(position)
        else:
            words.append([position])
        previous = token
    return words


def naive_choice(
    tokens: Sequence[int], keys: np.ndarray, table: TokenTable, spec: MaskingSpec, slots: int
) -> list[int]:
    maskable = [i for i, token in enumerate(tokens) if not table.special[token]]
    if not maskable:
        return []
    budget = max(1, round(spec.ratio * len(maskable)))
    if spec.strategy == "token":
        return sorted(sorted(maskable, key=lambda i: keys[i])[:budget])
    words = sorted(naive_words(tokens, table), key=lambda word: keys[word[0]])
    chosen: list[int] = []
    for word in words:
        if len(chosen) + len(word) <= budget:
            chosen += word
    if not chosen:
        chosen = next((word for word in words if len(word) <= slots), words[0][:budget])
    return sorted(chosen)


def naive_row(
    example: Example, visit: int, table: TokenTable, spec: MaskingSpec, window: int, stride: int
) -> tuple[list[int], list[int], list[int]]:
    """(input ids, masked positions, labels) of one row without its padding."""
    slots = max(1, round(spec.ratio * (window - 2)))
    rng = counter_rng(SEED, "mask", example.id, visit)
    first = rng.random()
    keys, action, pick = rng.random(window - 2), rng.random(slots), rng.random(slots)
    starts = list(window_starts(len(example.tokens), window - 2, stride))
    start = starts[int(first * len(starts))]
    tokens = [int(t) for t in example.tokens[start : start + window - 2]]
    labels, row = [], list(tokens)
    chosen = naive_choice(tokens, keys, table, spec, slots)
    ordinary = [i for i in range(table.vocab_size) if not table.special[i]]
    for slot, position in enumerate(chosen):
        labels.append(tokens[position])
        if action[slot] < spec.mask_fraction:
            row[position] = table.mask_id
        elif action[slot] < spec.mask_fraction + spec.random_fraction:
            row[position] = ordinary[int(pick[slot] * len(ordinary))]
    return [table.cls_id, *row, table.sep_id], [p + 1 for p in chosen], labels


def unpack(batch: MaskedBatch, b: int) -> tuple[list[int], list[int], list[int]]:
    ids = batch.input_ids[b][batch.attention_mask[b].bool()].tolist()
    used = batch.masked_weights[b].bool()
    return ids, batch.masked_positions[b][used].tolist(), batch.masked_labels[b][used].tolist()


@pytest.mark.parametrize("stride", [1, 7, 32])
@pytest.mark.parametrize("ratio", [0.05, 0.15, 0.4, 0.9])
@pytest.mark.parametrize("strategy", ["token", "whole_word"])
def test_rows_equal_the_naive_twin(
    examples: list[Example], table: TokenTable, strategy: str, ratio: float, stride: int
) -> None:
    spec = MaskingSpec(strategy, ratio)  # type: ignore[arg-type]
    visits = [i % 3 for i in range(len(examples))]
    batch = make_batch(
        examples, visits, seed=SEED, table=table, spec=spec, window=WINDOW, stride=stride
    )
    for b, (example, visit) in enumerate(zip(examples, visits)):
        assert unpack(batch, b) == naive_row(example, visit, table, spec, WINDOW, stride)


@pytest.mark.parametrize("strategy", ["token", "whole_word"])
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


@pytest.mark.parametrize("strategy", ["token", "whole_word"])
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
            == (
                len(part),
                round(0.15 * 30),
            )
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
    for strategy in ("token", "whole_word"):
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


def test_rates_are_80_10_10_and_replacements_are_ordinary(table: TokenTable) -> None:
    rng = np.random.default_rng(1)
    made = [Example(str(i), rng.integers(5, 199, 126)) for i in range(2500)]
    batch = make_batch(
        made, [0] * len(made), seed=SEED, table=table, spec=MaskingSpec(), window=128
    )
    assert bool(batch.masked_weights.all())
    seen = batch.input_ids.gather(1, batch.masked_positions).numpy()
    label = batch.masked_labels.numpy()
    total, ordinary = seen.size, int((~table.special).sum())
    assert total == 2500 * 19
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
def test_whole_words_are_never_split(
    examples: list[Example], table: TokenTable, ratio: float
) -> None:
    spec = MaskingSpec("whole_word", ratio, mask_fraction=1.0, random_fraction=0.0)
    slots = spec.masked_slots(WINDOW)
    for visit in range(4):
        batch = make_batch(
            examples, [visit] * len(examples), seed=SEED, table=table, spec=spec, window=WINDOW
        )
        for b in range(len(examples)):
            ids, positions, labels = unpack(batch, b)
            for position, label in zip(positions, labels):
                ids[position] = label
            for word in naive_words(ids, table):
                share = len(set(word) & set(positions)) / len(word)
                assert share in (0, 1) or (len(word) > slots and len(positions) <= slots)


def test_a_word_longer_than_the_budget_is_whole_if_k_holds_it(table: TokenTable) -> None:
    spec = MaskingSpec("whole_word", 0.15)
    assert spec.masked_slots(WINDOW) == 4
    four = Example("four pieces", np.array([9, 130, 131, 132]))
    five = Example("five pieces", np.array([9, 130, 131, 132, 133]))
    batch = make_batch([four, five], [0, 0], seed=SEED, table=table, spec=spec, window=WINDOW)
    assert batch.masked_labels[0].tolist() == [9, 130, 131, 132]
    assert batch.masked_labels[1][batch.masked_weights[1].bool()].tolist() == [9]


def test_a_word_above_k_gives_way_to_one_that_k_holds(table: TokenTable) -> None:
    spec = MaskingSpec("whole_word", 0.15)
    five, four = [9, 130, 131, 132, 133], [10, 140, 141, 142]
    made = [Example(str(i), np.array(five + four)) for i in range(30)]
    batch = make_batch(made, [0] * 30, seed=SEED, table=table, spec=spec, window=WINDOW)
    assert batch.masked_labels.tolist() == [four] * 30


def test_a_canary_has_exactly_its_secret_masked(table: TokenTable) -> None:
    rng = np.random.default_rng(3)
    short = Example("short", rng.integers(5, 199, 12), (4, 8))
    edge = Example("edge", rng.integers(5, 199, 90), (86, 90))
    start = Example("start", rng.integers(5, 199, 90), (0, 4))
    odd = Example("odd", np.array([7, 1, 0, 199, 8]), (1, 4))
    other = Example("other", rng.integers(5, 199, 25))
    made = [short, edge, other, start, odd]
    for strategy in ("token", "whole_word"):
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
