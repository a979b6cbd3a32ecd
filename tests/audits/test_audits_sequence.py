"""Span scores by three rules against one masked row at a time; each row asked once."""

import copy
import itertools

import numpy as np
import pytest
import torch

from audits.models import LoadedModel
from audits.scores.scoring import joint_logprobs, secret_positions
from audits.scores.sequence import RULES, SpanScorer, marked_words
from dpmlm.artifacts import UserError

ROWS = [(10, 11, 12, 13, 14), (20, 21, 22), (30, 31, 32, 33, 34, 35, 36), (40, 41)]
SPANS = [(1, 4), (0, 3), (5, 6), (0, 2)]
PAIRS = {11: 10, 13: 12, 33: 32}
"""Tokens that continue the word of the token before them, by the tests' decree."""


def _words(tokens: tuple[int, ...]) -> list[int]:
    return list(itertools.accumulate(int(token not in PAIRS) for token in tokens))


def _naive(subject: LoadedModel, row: tuple[int, ...], span: tuple[int, int], rule: str):
    values = []
    for at in range(*span):
        hidden = {
            "joint": set(range(*span)),
            "left_to_right": set(range(at, span[1])),
            "pll_word_l2r": {i for i in range(at, len(row)) if _words(row)[i] == _words(row)[at]},
        }[rule]
        masked = [subject.ids.mask if i in hidden else token for i, token in enumerate(row)]
        ids = torch.tensor([[subject.ids.cls, *masked, subject.ids.sep]])
        with torch.no_grad():
            logits = subject.model(input_ids=ids).logits[0, at + 1].double()
        values.append(float(torch.log_softmax(logits, dim=-1)[row[at]]))
    return values


@pytest.mark.parametrize("rule", RULES)
def test_scores_row_by_row(leaky: LoadedModel, rule) -> None:
    scorer = SpanScorer(leaky, words=_words, batch_size=3)
    for found, row, span in zip(scorer.score(ROWS, SPANS, rule), ROWS, SPANS):
        assert found == pytest.approx(_naive(leaky, row, span, rule), abs=1e-5)


def test_later_pieces_of_a_word_are_hidden_even_beyond_the_span(leaky: LoadedModel) -> None:
    row, span = (20, 21, 32, 33), (1, 3)
    found = SpanScorer(leaky, words=_words).score([row], [span], "pll_word_l2r")[0]
    assert found == pytest.approx(_naive(leaky, row, span, "pll_word_l2r"), abs=1e-5)
    other = SpanScorer(leaky, words=_words).score([(20, 21, 32, 99)], [span], "pll_word_l2r")[0]
    assert found[1] != pytest.approx(other[1], abs=1e-5)


def test_left_to_right_chains_to_a_probability(untrained: LoadedModel) -> None:
    # p(a, b) summed over b is p(a), and over both 1: the joint score has only the second.
    rows = [(10, a, b) for a in (5, 600) for b in range(700)]
    scores = SpanScorer(untrained).score(rows, [(1, 3)] * len(rows))
    totals = np.exp([score.sum() for score in scores]).reshape(2, 700).sum(axis=1)
    first = np.exp([scores[0][0], scores[700][0]])
    assert totals == pytest.approx(first, rel=1e-5)


def test_joint_is_what_exact_ranks_rest_on(leaky: LoadedModel, canaries) -> None:
    some = canaries.canaries[:5]
    table = joint_logprobs(leaky, some)
    picked = np.take_along_axis(table, secret_positions(some)[:, :, None], axis=2)[:, :, 0]
    scorer = SpanScorer(leaky)
    found = scorer.score([c.tokens for c in some], [c.secret_span for c in some], "joint")
    assert np.array(found) == pytest.approx(picked, abs=1e-5)


def test_each_row_and_each_shared_step_is_asked_once(untrained: LoadedModel) -> None:
    scorer = SpanScorer(untrained, batch_size=4)
    rows = [(10, 11, a, b, c) for a in (5, 6) for b in (7, 8) for c in (5, 6)]
    first = scorer.score(rows, [(2, 5)] * 8)
    assert scorer.inputs == 1 + 2 + 4
    again = scorer.score(rows[::-1] + rows, [(2, 5)] * 16)
    assert scorer.inputs == 7
    assert all(a is b for a, b in zip(again, first[::-1] + first))
    scorer.score(rows, [(2, 5)] * 8, "joint")
    assert scorer.inputs == 8
    scorer.score(rows[:1] * 3, [(3, 5), (2, 4), (3, 5)])
    assert scorer.inputs == 8 + 2 + 2


def test_progress_counts_inputs(untrained: LoadedModel) -> None:
    seen: list[int] = []
    scorer = SpanScorer(untrained, batch_size=2, progress=seen.append)
    scorer.score(ROWS, SPANS)
    assert sum(seen) == scorer.inputs == 9


def test_a_model_without_finite_scores_is_seen(broken: LoadedModel) -> None:
    assert all(np.isnan(row).all() for row in SpanScorer(broken).score(ROWS, SPANS))


class _Pieces:
    """A tokenizer of whose vocabulary alone words are told."""

    def __init__(self, *pieces: str) -> None:
        self.pieces, self.all_special_ids = pieces, [0]

    def convert_ids_to_tokens(self, tokens: list[int]) -> list[str]:
        return [self.pieces[token] for token in tokens]

    def get_vocab(self) -> dict[str, int]:
        return {piece: index for index, piece in enumerate(self.pieces)}


def test_words_by_the_marks_of_a_vocabulary() -> None:
    wordpiece = _Pieces("[UNK]", "sou", "##ven", "##ir", "of")
    assert marked_words(wordpiece)([1, 2, 3, 4, 1, 0, 2]) == [0, 0, 0, 1, 2, 3, 4]
    for mark in "Ġ▁":
        marked = _Pieces("<unk>", f"{mark}sou", "ven", f"{mark}of")
        assert marked_words(marked)([2, 2, 1, 2, 3, 0, 2]) == [0, 0, 1, 1, 2, 3, 4]
    assert marked_words(_Pieces("[UNK]", "a", "b"))([1, 2, 0, 1]) == [0, 1, 2, 3]


def test_bad_rows_are_refused(untrained: LoadedModel) -> None:
    scorer = SpanScorer(untrained)
    for span in ((1, 1), (0, 4), (-1, 2)):
        with pytest.raises(UserError, match="at least one token, inside it"):
            scorer.score([(5, 6, 7)], [span])
    with pytest.raises(UserError, match="1 rows with 2 spans"):
        scorer.score([(5, 6, 7)], [(0, 1)] * 2)
    with pytest.raises(UserError, match="a score called 'best'"):
        scorer.score([(5, 6, 7)], [(0, 1)], "best")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="rows of 64 tokens"):
        scorer.score([tuple(range(5, 68))], [(0, 2)])
    tokenizer = copy.deepcopy(untrained.tokenizer)
    tokenizer.mask_token = None
    with pytest.raises(UserError, match="without mask token"):
        SpanScorer(LoadedModel(untrained.model, tokenizer, "")).score([(5, 6)], [(0, 1)])
