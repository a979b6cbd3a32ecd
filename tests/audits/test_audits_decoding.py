"""Decoders against one row at a time through the bare model, and beam against every span."""

import itertools

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from audits.models import LoadedModel
from audits.scores import decoding
from audits.scores.decoding import beam, confidence_first, gibbs, span_logprobs
from audits.scores.scoring import greedy
from dpmlm.artifacts import UserError

ROWS = [
    tuple(range(10, 22)),
    (30, 31, 32, 33, 34),
    (50, 51, 52, 53, 54, 55, 56),
    (60, 61, 62, 63),
    tuple(range(100, 130)),
]
PLACES = [(4, 7), (1, 4), (0, 3), (1, 4), (25, 28)]
"""Spans of three tokens in rows of five lengths, one at the start of its row, one near an end."""
KEYS = [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def small(tokenizer) -> LoadedModel:
    """Five special tokens and six others, with logits far enough apart to have a mind."""
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=11,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        initializer_range=0.6,
    )
    return LoadedModel.of(BertForMaskedLM(config), tokenizer)


def _logprobs(subject: LoadedModel, said: list[int]) -> torch.Tensor:
    """[T, V] over the ids that may be said, of one row with its special tokens."""
    with torch.no_grad():
        logits = subject.model(input_ids=torch.tensor([said])).logits[0].double()
    logits[:, [i for i in subject.tokenizer.all_special_ids if i < logits.shape[1]]] = -torch.inf
    return torch.log_softmax(logits, dim=-1)


def _masked(subject: LoadedModel, row, place) -> list[int]:
    hidden = [subject.ids.mask] * (place[1] - place[0])
    return [subject.ids.cls, *row[: place[0]], *hidden, *row[place[1] :], subject.ids.sep]


def _span(row: list[int], place) -> tuple[int, ...]:
    return tuple(row[place[0] + 1 : place[1] + 1])


def _chain(subject: LoadedModel, row, place, tokens) -> float:
    """log p of a span, token by token from the left."""
    said, total = _masked(subject, row, place), 0.0
    for at, token in enumerate(tokens, place[0] + 1):
        total += float(_logprobs(subject, said)[at, token])
        said[at] = token
    return total


def _confidence(subject: LoadedModel, row, place) -> tuple[int, ...]:
    said = _masked(subject, row, place)
    open_ = set(range(place[0] + 1, place[1] + 1))
    while open_:
        logprobs = _logprobs(subject, said)
        at = max(open_, key=lambda position: float(logprobs[position].max()))
        said[at] = int(logprobs[at].argmax())
        open_.remove(at)
    return _span(said, place)


def _beam(subject: LoadedModel, row, place, width: int) -> list[tuple[int, ...]]:
    beams = [(0.0, _masked(subject, row, place))]
    for at in range(place[0] + 1, place[1] + 1):
        grown = []
        for score, said in beams:
            logprobs = _logprobs(subject, said)[at]
            for token in torch.isfinite(logprobs).nonzero()[:, 0].tolist():
                grown.append((score + float(logprobs[token]), [*said[:at], token, *said[at + 1 :]]))
        beams = sorted(grown, key=lambda one: -one[0])[:width]
    return [_span(said, place) for _, said in beams]


def _gibbs(subject: LoadedModel, row, place, seed: int, key: int, sweeps: int) -> tuple[int, ...]:
    length = place[1] - place[0]
    rng = np.random.default_rng([seed, key])
    orders = [rng.permutation(length) for _ in range(sweeps)]
    uniform = rng.random((sweeps, length))
    said = _masked(subject, row, place)
    for sweep, order in enumerate(orders):
        for step, index in enumerate(order):
            at = place[0] + 1 + int(index)
            said[at] = subject.ids.mask
            logprobs = _logprobs(subject, said)[at]
            chances, passed = logprobs.exp().tolist(), 0.0
            said[at] = int(logprobs.argmax())
            if sweep == sweeps - 1:
                continue
            for token, chance in enumerate(chances):
                passed += chance
                if passed > uniform[sweep, step]:
                    said[at] = token
                    break
    return _span(said, place)


@pytest.fixture(params=["one batch", "batches of two", "unpicked"])
def batches(request, monkeypatch, leaky):
    """Nothing may depend on what else is in a batch, or on whether the head is read in part."""
    if request.param == "batches of two":
        monkeypatch.setattr(decoding, "_ROWS", 2)
    if request.param == "unpicked":
        monkeypatch.setattr(leaky.model, "get_output_embeddings", lambda: None)


def test_confidence_first_row_by_row(leaky: LoadedModel, batches) -> None:
    found = confidence_first(leaky, ROWS, PLACES)
    for said, row, place in zip(found, ROWS, PLACES):
        assert tuple(said.tolist()) == _confidence(leaky, row, place)


def test_beam_row_by_row(leaky: LoadedModel, batches) -> None:
    found = beam(leaky, ROWS, PLACES, width=4)
    assert found.shape == (5, 4, 3)
    for said, row, place in zip(found, ROWS, PLACES):
        assert [tuple(one) for one in said.tolist()] == _beam(leaky, row, place, 4)


def test_a_beam_ends_with_as_many_spans_as_there_are(small: LoadedModel) -> None:
    found = beam(small, [(5, 6, 7)] * 2, [(1, 2), (0, 1)], width=9)
    assert found.shape == (2, 6, 1)
    assert [sorted(row) for row in found[:, :, 0].tolist()] == [list(range(5, 11))] * 2


def test_gibbs_row_by_row(leaky: LoadedModel, batches) -> None:
    found = gibbs(leaky, ROWS, PLACES, seed=5, keys=KEYS, sweeps=3)
    for said, row, place, key in zip(found, ROWS, PLACES, KEYS):
        assert tuple(said.tolist()) == _gibbs(leaky, row, place, 5, key, 3)


def test_span_logprobs_row_by_row(leaky: LoadedModel, batches) -> None:
    found = span_logprobs(leaky, ROWS, PLACES)
    for total, row, place in zip(found, ROWS, PLACES):
        expected = _chain(leaky, row, place, row[slice(*place)])
        assert total == pytest.approx(expected, abs=1e-4)
    special = span_logprobs(leaky, [(10, 11, leaky.tokenizer.unk_token_id, 13)], [(1, 3)])
    assert special[0] == -np.inf


@pytest.mark.parametrize("start", range(3))
def test_a_wide_beam_finds_the_likeliest_of_all_spans(small: LoadedModel, start: int) -> None:
    row, place = [5 + (start + i) % 6 for i in range(6)], (start % 3, start % 3 + 3)
    every = list(itertools.product(range(5, 11), repeat=3))
    known: dict[tuple[int, ...], torch.Tensor] = {}

    def chain(tokens: tuple[int, ...]) -> float:
        total = 0.0
        for step, token in enumerate(tokens):
            before = tokens[:step]
            if before not in known:
                said = _masked(small, row, place)
                said[place[0] + 1 : place[0] + 1 + step] = before
                known[before] = _logprobs(small, said)[place[0] + 1 + step]
            total += float(known[before][token])
        return total

    scores = [chain(tokens) for tokens in every]
    assert np.exp(scores).sum() == pytest.approx(1, abs=1e-5)
    found = beam(small, [row], [place], width=36)
    assert tuple(found[0, 0].tolist()) == every[int(np.argmax(scores))]


def test_a_beam_of_one_is_greedy_and_a_wide_one_is_no_worse(small: LoadedModel) -> None:
    rng = np.random.default_rng(2)
    rows = [tuple(int(t) for t in rng.integers(5, 11, 9)) for _ in range(30)]
    places = [(2, 7)] * 30
    one = beam(small, rows, places, width=1)[:, 0]
    assert (one == greedy(small, rows, places)).all()
    ten = beam(small, rows, places)[:, 0]
    better = 0
    for row, mine, theirs in zip(rows, ten, one):
        gain = _chain(small, row, (2, 7), mine) - _chain(small, row, (2, 7), theirs)
        assert gain >= -1e-5
        better += gain > 1e-5
    assert better >= 1


def test_gibbs_repeats_by_seed_and_key_alone(small: LoadedModel) -> None:
    rng = np.random.default_rng(4)
    rows = [tuple(int(t) for t in rng.integers(5, 11, 9)) for _ in range(40)]
    places, keys = [(2, 7)] * 40, list(range(40))
    first = gibbs(small, rows, places, seed=1, keys=keys)
    assert (first == gibbs(small, rows, places, seed=1, keys=keys)).all()
    turned = gibbs(small, rows[::-1][:15], places[:15], seed=1, keys=keys[::-1][:15])
    assert (turned == first[::-1][:15]).all()
    assert (first != gibbs(small, rows, places, seed=2, keys=keys)).any()
    same = gibbs(small, [rows[0]] * 40, places, seed=1, keys=keys)
    assert len(np.unique(same, axis=0)) > 1  # its key, and not its text, is what differs


def test_gibbs_draws_from_the_conditionals(small: LoadedModel) -> None:
    """A chain over two tokens, against its transition matrix to the same power."""
    row, place, sweeps, chains = [5, 6, 7, 8], (1, 3), 3, 1500
    ids = range(5, 11)
    mask = small.ids.mask

    def conditional(at: int, other: int | None) -> np.ndarray:
        pair = [mask, mask]
        if other is not None:
            pair[1 - at] = other
        said = [small.ids.cls, row[0], *pair, row[3], small.ids.sep]
        return _logprobs(small, said)[2 + at].exp().numpy()[5:]

    # [position, other token or none (6)] -> chances of six tokens
    tables = np.array([[conditional(at, o) for o in [*ids, None]] for at in (0, 1)])
    state = {(6, 6): 1.0}
    for sweep in range(sweeps):
        grown: dict[tuple[int, int], float] = {}
        for pair, weight in state.items():
            for first in (0, 1):
                for a, b in itertools.product(range(6), repeat=2):
                    drawn = [0, 0]
                    p = tables[first, pair[1 - first]]
                    q = tables[1 - first, a]
                    if sweep == sweeps - 1:
                        p, q = np.eye(6)[p.argmax()], np.eye(6)[q.argmax()]
                    drawn[first], drawn[1 - first] = a, b
                    key = (drawn[0], drawn[1])
                    grown[key] = grown.get(key, 0.0) + weight * 0.5 * p[a] * q[b]
        state = grown
    found = gibbs(
        small, [row] * chains, [place] * chains, seed=0, keys=range(chains), sweeps=sweeps
    )
    assert sum(state.values()) == pytest.approx(1)
    for pair, chance in state.items():
        seen = float((found == np.array(pair) + 5).all(axis=1).mean())
        assert abs(seen - chance) <= 5 * np.sqrt(chance * (1 - chance) / chains) + 1e-9


def test_probabilistic_extraction_against_simulation(small: LoadedModel) -> None:
    """Sampling from left to right says a span as often as its log-probability has it."""
    from audits.text.verbatim import extraction_chance

    row, place = (5, 6, 7, 8, 9), (1, 3)
    logprob = span_logprobs(small, [row], [place])
    first = _logprobs(small, _masked(small, row, place))[2].exp().numpy()
    rng = np.random.default_rng(0)
    trials, tries = 800, 7
    drawn = rng.choice(11, (trials, tries), p=first / first.sum())
    second = {}
    for token in range(5, 11):
        said = _masked(small, row, place)
        said[2] = token
        second[token] = _logprobs(small, said)[3].exp().numpy()
    hit = np.zeros(trials, dtype=bool)
    for trial, of_try in np.ndindex(trials, tries):
        token = int(drawn[trial, of_try])
        if token == row[1]:
            chances = second[token] / second[token].sum()
            hit[trial] |= rng.choice(11, p=chances) == row[2]
    chance = float(extraction_chance(logprob, tries)[0])
    assert 0.01 < chance < 0.99
    assert abs(hit.mean() - chance) <= 4 * np.sqrt(chance * (1 - chance) / trials)


@pytest.mark.parametrize("decode", [confidence_first, beam, gibbs])
def test_a_special_token_is_never_said(untrained: LoadedModel, decode) -> None:
    rest = {"seed": 0, "keys": [0, 1, 2]} if decode is gibbs else {}
    bias = untrained.model.cls.predictions.bias
    with torch.no_grad():
        bias[:5] += 100
    try:
        said = decode(untrained, [(10, 11, 12, 13)] * 3, [(0, 4)] * 3, **rest)
    finally:
        with torch.no_grad():
            bias[:5] -= 100
    assert said.min() >= 5


@pytest.mark.parametrize("decode", [confidence_first, beam, gibbs])
def test_the_truth_in_the_span_is_not_seen(leaky: LoadedModel, decode) -> None:
    rest = {"seed": 0, "keys": [0]} if decode is gibbs else {}
    first = decode(leaky, [(10, 11, 12, 13)], [(1, 3)], **rest)
    assert first.tolist() == decode(leaky, [(10, 99, 98, 13)], [(1, 3)], **rest).tolist()


def test_a_model_that_is_not_finite_says_nothing(broken: LoadedModel) -> None:
    assert (confidence_first(broken, ROWS, PLACES) == -1).all()
    assert (beam(broken, ROWS, PLACES) == -1).all()
    assert (gibbs(broken, ROWS, PLACES, seed=0, keys=KEYS) == -1).all()
    assert np.isnan(span_logprobs(broken, ROWS, PLACES)).all()


def test_spans_of_two_lengths_and_rows_beyond_the_model_are_refused(small: LoadedModel) -> None:
    with pytest.raises(UserError, match="lengths"):
        beam(small, [(5, 6, 7)] * 2, [(0, 1), (0, 2)])
    with pytest.raises(UserError, match="lengths"):
        confidence_first(small, [(5, 6, 7)], [(1, 1)])
    with pytest.raises(UserError, match="rows of 16 tokens"):
        span_logprobs(small, [(5,) * 15], [(0, 2)])
