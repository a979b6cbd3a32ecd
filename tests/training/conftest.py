from functools import cache

import pytest
from small_training import Charges, a_model, a_recipe

from dpmlm.artifacts import new_identity
from dpmlm.training import Checkpoints, loop, train


@pytest.fixture
def fit(tmp_path):
    """Train with checkpoints in tmp_path; called again with the same plan it resumes."""
    identity = new_identity()

    def fitted(
        model, units, plan, recipe=None, *, charges=None, folder="checkpoints", shelf=None, **more
    ):
        checkpoints = Checkpoints(
            tmp_path / folder, identity, [identity.recipient], plan.digest, **(shelf or {})
        )
        charges = charges or Charges()
        recipe = recipe or a_recipe()
        return train(model, units, plan, recipe, charges=charges, checkpoints=checkpoints, **more)

    return fitted


@pytest.fixture
def known_exact(monkeypatch):
    """The look at the small BERT, which says the same every time and takes most of a short
    training, by its first answer."""
    recipe = a_recipe()
    checked = first_answer(recipe.table.vocab_size, recipe.window)
    monkeypatch.setattr(loop, "refuse_inexact", lambda *_, **__: checked)


@cache
def first_answer(vocabulary, window):
    return loop.refuse_inexact(a_model(), vocabulary, window=window)
