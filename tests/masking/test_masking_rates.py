"""How often what is masked: every rate against the one promised, at one error in a million."""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from naive_rows import SEED, naive_words, span_words
from scipy.stats import binom, chi2, t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from variants import rest_in_full

from dpmlm.errors import UserError
from dpmlm.masking import Example, MaskedBatch, MaskingSpec, TokenTable, make_batch
from dpmlm.masking import strategies as rules
from dpmlm.masking.weights import frequency_weights

RARE = 1e-6
STRATEGIES = ["token", "whole_word", "span", "entity"]


def rows_of(
    tokens: np.ndarray,
    count: int,
    table: TokenTable,
    spec: MaskingSpec,
    *,
    names: np.ndarray | None = None,
    step_share: float = 0.0,
) -> MaskedBatch:
    made = [Example(str(i), tokens, names=names) for i in range(count)]
    return make_batch(
        made,
        [0] * count,
        seed=SEED,
        table=table,
        spec=spec,
        window=len(tokens) + 2,
        step_share=step_share,
    )


def hits_of(batch: MaskedBatch, width: int) -> np.ndarray:
    """How often each position was masked, int64 [width]."""
    used = batch.masked_weights.bool()
    return np.bincount(batch.masked_positions[used].numpy(), minlength=width + 1)[1:]


def assert_rate(hits: np.ndarray, count: int, rate: float) -> None:
    """Binomial counts of one rate, by a threshold for all of them together."""
    tail = RARE / hits.size / 2
    low, high = binom.ppf(tail, count, rate), binom.isf(tail, count, rate)
    assert ((low <= hits) & (hits <= high)).all(), (hits / count).round(4).tolist()


@pytest.mark.parametrize("length", rest_in_full([14, 30, 126], [30]))
@pytest.mark.parametrize("strategy", ["token", "whole_word", "span"])
def test_words_of_all_lengths_are_masked_equally_often(
    table: TokenTable, length: int, strategy: str
) -> None:
    """Words of 1 to 6 pieces. A row that needs fewer tokens than its longest word has gets some
    more, all of them alike."""
    words = [[9] + [130] * more for more in (0, 5, 1, 0, 3, 2, 4)]
    tokens = np.array(list(itertools.islice(itertools.cycle(itertools.chain(*words)), length)))
    spec, count = MaskingSpec(strategy, 0.15), 6000  # type: ignore[arg-type]
    hits = hits_of(rows_of(tokens, count, table, spec), length)
    wanted = round(0.15 * length) / length
    rate = hits.sum() / (count * length)
    assert 0.99 <= rate / wanted <= (1.02 if length == 126 else 2)
    assert_rate(hits, count, rate)


def test_the_mean_is_the_count_where_no_word_is_longer(table: TokenTable) -> None:
    tokens = np.array([9, 130, 130, 10, 11, 130] * 10)
    batch = rows_of(tokens, 4000, table, MaskingSpec("whole_word", 0.15))
    masked = batch.masked_weights.sum(1).numpy()
    assert abs(masked.mean() - 9) < 5 * masked.std() / np.sqrt(len(masked))
    assert masked.max() <= 9 + 2
    assert masked.min() >= 9 - 2


def test_spans_have_geometric_lengths_and_one_fate(table: TokenTable) -> None:
    """SpanBERT's lengths in words, one-piece words: mean 3.80; replaced, kept or masked whole."""
    tokens, count = np.arange(5, 115), 3000
    uniforms = np.random.default_rng(4).random((count, len(tokens)))
    whole = np.ones(uniforms.shape, dtype=bool)
    starts = rules.span_starts(uniforms, whole, whole, np.full(count, 10))
    q = 0.8
    shares = 0.2 * q ** np.arange(10) / (1 - q**10)
    assert (np.arange(1, 11) * shares).sum() == pytest.approx(3.797, abs=1e-3)
    lengths = np.concatenate([np.diff(np.flatnonzero(row)) for row in starts[:, :100]])
    # Spans that end beyond position 100 are left out, which is of the long ones a little more.
    assert abs(lengths.mean() - 3.797) < 0.1
    assert [span_words(float(u)) for u in uniforms[0]] == rules.span_words(uniforms[0]).tolist()
    direct = np.bincount(rules.span_words(uniforms).ravel(), minlength=11)[1:11]
    drawn = uniforms.size * shares
    assert chi2.sf(((direct - drawn) ** 2 / drawn).sum(), 9) > RARE

    batch = rows_of(tokens, count, table, MaskingSpec("span", 0.15, 0.6, 0.2))
    seen = batch.input_ids.gather(1, batch.masked_positions).numpy()
    label, used = batch.masked_labels.numpy(), batch.masked_weights.bool().numpy()
    place = batch.masked_positions.numpy()
    follows = used[:, 1:] & (place[:, 1:] == place[:, :-1] + 1)
    fate = np.where(seen == table.mask_id, 0, np.where(seen != label, 1, 2))
    # Two spans side by side may differ; a random token equals its label once in 194.
    alike = (fate[:, 1:] == fate[:, :-1])[follows].mean()
    assert alike > 0.9
    rates = np.bincount(fate[used], minlength=3) / used.sum()
    assert np.abs(rates - [0.6, 0.2, 0.2]).max() < 0.02
    apart = rows_of(tokens, count, table, MaskingSpec("whole_word", 0.15, 0.6, 0.2))
    assert apart.masked_weights.sum(1).max() <= round(0.15 * 110)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_schedule_goes_straight_and_k_holds_its_largest(table: TokenTable, strategy: str) -> None:
    """A thousand tokens, so that a slight bend is some tokens. `token` masks exactly as many as the
    line says, words of one and two pieces and spans do so in the mean of 200 rows."""
    tokens, rows = np.array([9, 10, 130, 11, 130] * 200), 200
    for start, end in ((0.3, 0.1), (0.1, 0.3)):
        spec = MaskingSpec(strategy, start, ratio_end=end)  # type: ignore[arg-type]
        largest = dataclasses.replace(spec, ratio=0.3, ratio_end=None)
        assert spec.masked_slots(1002) == largest.masked_slots(1002)
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            batch = rows_of(tokens, rows, table, spec, step_share=share)
            assert batch.masked_positions.shape[1] == spec.masked_slots(1002)
            masked = batch.masked_weights.sum(1).numpy().astype(np.float64)
            wanted = round(1000 * (start + share * (end - start)))
            if strategy == "token":
                assert masked.tolist() == [wanted] * rows
            else:
                error = masked.std(ddof=1) / np.sqrt(rows)
                assert abs(masked.mean() - wanted) <= t.isf(RARE / 10 / 2, rows - 1) * error


def test_static_masks_belong_to_their_window(table: TokenTable) -> None:
    tokens = np.random.default_rng(2).integers(5, 199, 330)
    for strategy in STRATEGIES:
        spec = MaskingSpec(strategy, static=True)  # type: ignore[arg-type]
        masks: dict[tuple[int, ...], set[str]] = {}
        for chosen in (spec, dataclasses.replace(spec, static=False)):
            masks.clear()
            for visit in range(12):
                batch = make_batch(
                    [Example("a", tokens)], [visit], seed=SEED, table=table, spec=chosen,
                    window=112, stride=110,
                )  # fmt: skip
                restored = batch.input_ids.clone().scatter(
                    1, batch.masked_positions[:, batch.masked_weights[0] > 0],
                    batch.masked_labels[:, batch.masked_weights[0] > 0],
                )  # fmt: skip
                shown = str(batch.input_ids.tolist()) + str(batch.masked_positions.tolist())
                masks.setdefault(tuple(restored[0].tolist()), set()).add(shown)
            if chosen.static:
                assert all(len(found) == 1 for found in masks.values())
        assert max(len(found) for found in masks.values()) > 3


def test_names_have_their_share(table: TokenTable) -> None:
    """A tenth of the row is names of three tokens; they get half of the masks, whole."""
    tokens, names = np.arange(5, 105), np.zeros(100, dtype=np.uint8)
    for first in (10, 40, 43):
        names[first : first + 3] = [1, 2, 2]
    spec = MaskingSpec("entity", 0.12, entity_share=0.5)
    batch = rows_of(tokens, 3000, table, spec, names=names)
    hits = hits_of(batch, 100)
    inside = names > 0
    assert_rate(hits[inside], 3000, 6 / 9)
    assert_rate(hits[~inside], 3000, (12 - 6) / 91)
    for row, used in zip(batch.masked_positions.numpy() - 1, batch.masked_weights.bool().numpy()):
        masked = set(row[used].tolist())
        assert all(len(masked & {f, f + 1, f + 2}) in (0, 3) for f in (10, 40, 43))
    none = rows_of(tokens, 50, table, spec)
    words = rows_of(tokens, 50, table, MaskingSpec("whole_word", 0.12))
    assert none.masked_weights.sum(1).tolist() == words.masked_weights.sum(1).tolist() == [12] * 50


Unit = tuple[int, ...]


def by_weight(units: list[Unit], weights: list[float], count: int) -> dict[frozenset[int], float]:
    """Chances of the tokens that are masked: units are drawn one by one, by their mean weight among
    those that are left, until `count` tokens are. Every order of drawing is gone through."""
    found: dict[frozenset[int], float] = defaultdict(float)

    def draw(chosen: frozenset[int], left: list[Unit], chance: float) -> None:
        if len(chosen) >= count or not left:
            found[chosen] += chance
            return
        heavy = [float(np.mean([weights[i] for i in unit])) for unit in left]
        for unit, weight in zip(left, heavy):
            rest = [other for other in left if other != unit]
            draw(chosen.union(unit), rest, chance * weight / sum(heavy))

    draw(frozenset(), units, 1.0)
    return found


def spans_of(words: list[Unit], longest: int) -> Iterator[tuple[list[Unit], float]]:
    """Every way to cut a row's words into spans, with its chance."""
    if not words:
        yield [], 1.0
        return
    sizes: dict[int, float] = defaultdict(float)
    for drawn in range(1, 11):
        fit = sum(end <= longest for end in itertools.accumulate(map(len, words[:drawn])))
        sizes[fit] += 0.2 * 0.8 ** (drawn - 1) / (1 - 0.8**10)
    for size, chance in sizes.items():
        first = tuple(itertools.chain(*words[:size]))
        for rest, more in spans_of(words[size:], longest):
            yield [first, *rest], chance * more


ROW, NAMES = [5, 130, 6, 7, 8, 9, 10, 11], [0, 0, 1, 2, 1, 0, 1, 0]
WEIGHTS = [8.0, 1.0, 0.125, 2.0, 4.0, 0.5, 1.0, 0.25]
"""Of a row with one word of two pieces and three names, one of them of two tokens."""


def inclusion(strategy: str, count: int) -> list[float]:
    """The chance of each token of the row to be masked under weights, enumerated."""
    words: list[Unit] = [(0, 1), *((i,) for i in range(2, 8))]
    ways: dict[frozenset[int], float] = defaultdict(float)
    if strategy == "span":
        for spans, chance in spans_of(words, 2 * count):
            for chosen, more in by_weight(spans, WEIGHTS, count).items():
                ways[chosen] += chance * more
    elif strategy == "entity":  # half of the masks in names, then as many words as are wanted still
        for named, chance in by_weight([(2, 3), (4,), (6,)], WEIGHTS, count // 2).items():
            rest: list[Unit] = [(0, 1), (5,), (7,)]
            for chosen, more in by_weight(rest, WEIGHTS, count - len(named)).items():
                ways[named | chosen] += chance * more
    else:
        units = words if strategy == "whole_word" else [(i,) for i in range(8)]
        ways.update(by_weight(units, WEIGHTS, count))
    assert sum(ways.values()) == pytest.approx(1)
    return [sum(chance for chosen, chance in ways.items() if i in chosen) for i in range(8)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_draw_without_replacement(table: TokenTable, strategy: str) -> None:
    weights = np.ones(table.vocab_size)
    weights[ROW] = WEIGHTS
    table = dataclasses.replace(table, weights=weights)
    spec, names = MaskingSpec(strategy, 0.5), np.array(NAMES, dtype=np.uint8)  # type: ignore[arg-type]
    hits = hits_of(rows_of(np.array(ROW), 20_000, table, spec, names=names), 8)
    for hit, chance in zip(hits, inclusion(strategy, 4)):
        assert_rate(np.array([hit]), 20_000, chance)


def test_frequency_weights() -> None:
    counts = np.array([0, 1, 10, 100, 1000, 10_000])
    assert frequency_weights(counts, 0.0).tolist() == [1.0] * 6
    weights = frequency_weights(counts, 0.5)
    assert weights[5] == 1.0  # half of the text is of that token
    assert weights.tolist() == [min(8.0, (10_001 / (c + 1)) ** 0.5) for c in counts.tolist()]
    assert frequency_weights(np.array([1, 1, 1, 1, 1000]), 1.0).max() == 8.0
    for bad in ([0, 0], [1, -1], [1.0, float("nan")], [1.0, float("inf")], [[1]], []):
        with pytest.raises(UserError):
            frequency_weights(np.array(bad), 0.5)
    for power in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError):
            frequency_weights(counts, power)


TEXTS = {
    "japanese": "今日は天気がとても良いので、公園まで散歩に行きました。",
    "chinese": "今天天气很好我们去公园散步吧然后回家吃饭",
    "thai": "วันนี้อากาศดีมากเราไปเดินเล่นที่สวนกันเถอะ",
    "hindi": "आज मौसम बहुत अच्छा है इसलिए हम पार्क में घूमने गए।",
    "arabic": "الطقس جميل اليوم فذهبنا إلى الحديقة.",
    "emoji": "ok 👩‍👩‍👧 great ❤️ see you 😀😀 tomorrow",
    "decomposed": "une e\u0301le\u0300ve tre\u0300s a\u0302ge\u0301e",
}
SPECIALS = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}


def unigram() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=list(SPECIALS.values()), unk_token="<unk>",
        show_progress=False,
    )  # fmt: skip
    backend.train_from_iterator(list(TEXTS.values()) * 3, trainer)
    return finish(backend)


def byte_level(trim: bool) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=trim)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=list(SPECIALS.values()), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator(list(TEXTS.values()), trainer)
    return finish(backend)


def wordpiece() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=list(SPECIALS.values()), show_progress=False
    )
    backend.train_from_iterator(list(TEXTS.values()) * 3, trainer)
    return finish(backend)


def finish(backend: Tokenizer) -> PreTrainedTokenizerFast:
    roles = {f"{role}_token": token for role, token in SPECIALS.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "unigram": unigram,
    "byte_level": lambda: byte_level(True),
    "byte_level untrimmed": lambda: byte_level(False),
    "wordpiece": wordpiece,
}


@pytest.mark.parametrize("family", rest_in_full(FAMILIES, ["byte_level", "wordpiece"]))
def test_every_position_of_every_script_is_masked_equally_often(family: str) -> None:
    tokenizer = FAMILIES[family]()
    table = TokenTable.of(tokenizer)
    for text in TEXTS.values():
        tokens = np.array(tokenizer.encode(text, add_special_tokens=False))
        assert len(tokens) > 5
        assert not table.special[tokens].any(), text
        for strategy in ("whole_word", "span"):
            hits = hits_of(rows_of(tokens, 800, table, MaskingSpec(strategy)), len(tokens))
            assert_rate(hits, 800, hits.sum() / (800 * len(tokens)))


def words_in(text: str, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The words that the table sees, by the characters they are made of."""
    table = TokenTable.of(tokenizer)
    row = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    found = []
    for word in naive_words(row.ids, table):
        first, last = row.offsets[word[0]][0], row.offsets[word[-1]][1]
        found.append(text[first:last].strip())
    starts = table.word_starts(np.array([row.ids]), ~table.special[np.array([row.ids])])
    assert int(starts.sum()) == len(found)
    return [word for word in found if word]


def test_words_of_scripts_are_no_clauses_and_no_letters() -> None:
    """A vowel sign stays with its word; a clause without spaces is many words."""
    for name in FAMILIES:
        tokenizer = FAMILIES[name]()
        assert words_in(TEXTS["hindi"], tokenizer)[:5] == ["आज", "मौसम", "बहुत", "अच्छा", "है"], name
        accents = words_in(TEXTS["decomposed"], tokenizer)
        assert accents == TEXTS["decomposed"].split(), name
        assert max(len(word) for word in words_in(TEXTS["japanese"], tokenizer)) <= 6, name
        assert max(len(word) for word in words_in(TEXTS["chinese"], tokenizer)) <= 6, name
    assert words_in("今天", FAMILIES["byte_level"]()) == ["今", "天"]
