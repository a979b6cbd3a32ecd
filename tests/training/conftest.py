import pytest
from small_training import Charges, a_recipe

from dpmlm.artifacts import new_identity
from dpmlm.training import Checkpoints, train


@pytest.fixture
def fit(tmp_path):
    """Train with checkpoints in tmp_path; called again with the same plan it resumes."""
    identity = new_identity()

    def fitted(model, units, plan, recipe=None, *, charges=None, folder="checkpoints", **more):
        checkpoints = Checkpoints(tmp_path / folder, identity, [identity.recipient], plan.digest)
        charges = charges or Charges()
        recipe = recipe or a_recipe()
        return train(model, units, plan, recipe, charges=charges, checkpoints=checkpoints, **more)

    return fitted
