"""A row is the same on any rank, in any physical batch and in any order."""

import numpy as np
import pytest
from small_training import VOCABULARY, a_recipe, documents, table

from dpmlm.errors import UserError
from dpmlm.masking import Example, MaskingSpec, TokenTable
from dpmlm.training.ranks import Ranks
from dpmlm.training.units import View

STRATEGIES = ["token", "whole_word", "span", "entity"]


def words() -> TokenTable:
    """Three quarters of the vocabulary continue a word."""
    plain = table()
    plain.continuation[VOCABULARY // 4 :] = True
    return plain


def drawn(step: int) -> list[list[View]]:
    """Two views of every document, with names in it."""
    marks = np.tile(np.array([0, 1, 2, 0, 0], dtype=np.uint8), 10)
    made = [Example(d.id, d.tokens, names=marks[: len(d.tokens)]) for d in documents()]
    return [[View(example, 2 * step), View(example, 2 * step + 1)] for example in made]


def rows_of(
    spec: MaskingSpec,
    step: int,
    share: float,
    *,
    ranks: int = 1,
    physical: int = 64,
    order: int = 0,
) -> dict[str, list[object]]:
    """What each document's rows hold, padding aside."""
    recipe = a_recipe(table=words(), masking=spec, physical_batch_size=physical, windows_per_draw=2)
    units = drawn(step)
    units = [units[i] for i in np.random.default_rng(order).permutation(len(units))]
    found: dict[str, list[object]] = {}
    for rank in range(ranks):
        for part in Ranks(rank, ranks).share(recipe.micro_batches(units)):
            batch = recipe.batch(part, share)
            views = [view for unit in part for view in unit]
            for b, view in enumerate(views):
                shown = batch.input_ids[b][batch.attention_mask[b].bool()].tolist()
                used = batch.masked_weights[b].bool()
                masked = batch.masked_positions[b][used], batch.masked_labels[b][used]
                found[f"{view.example.id}/{view.visit}"] = [shown, *(m.tolist() for m in masked)]
    assert len(found) == 2 * len(units)
    return found


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_are_the_same_wherever_they_are_made(strategy: str, static: bool) -> None:
    spec = MaskingSpec(strategy, 0.4, ratio_end=0.2, static=static)  # type: ignore[arg-type]
    alone = rows_of(spec, 3, 0.5)
    for ranks in (1, 2, 3):
        for physical in (2, 7, 64):
            assert rows_of(spec, 3, 0.5, ranks=ranks, physical=physical, order=ranks) == alone
    assert (rows_of(spec, 4, 0.5).keys() & alone.keys()) == set()
    assert rows_of(spec, 3, 1.0) != alone


def test_a_recipe_of_words_wants_a_tokenizer_that_marks_them() -> None:
    mute = table()
    unmarked = TokenTable(
        VOCABULARY, 4, 0, 2, 3, mute.special, mute.continuation, mute.closes, marks_words=False
    )
    a_recipe(table=unmarked)
    with pytest.raises(UserError, match="marks neither"):
        a_recipe(table=unmarked, masking=MaskingSpec("whole_word"))
