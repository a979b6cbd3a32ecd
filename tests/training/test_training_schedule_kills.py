"""A training whose masking ratio falls with its steps, killed and taken up again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).parents[1] / "helpers"
STEPS = 6
CODE = """
import hashlib, json, os, signal, sys
from pathlib import Path
from small_training import Charges, Numbered, a_model, a_plan, a_recipe, documents
from dpmlm.artifacts import load_identity
from dpmlm.masking import MaskingSpec
from dpmlm.privacy.noise import REPRODUCIBLE_NOISE
from dpmlm.training import Checkpoints, Recipe, train

folder, keys, end, die_after = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
plan = a_plan(
    steps=6, expected_batch_size=700.0, noise_seed=5, noise_source=REPRODUCIBLE_NOISE
)
recipe = a_recipe(masking=MaskingSpec("token", 0.6, ratio_end=end))
folder.mkdir(exist_ok=True)
noted = (folder / "noted").open("a")
batch = Recipe.batch

def noting(self, units, step_share=0.0):
    made = batch(self, units, step_share)
    row = [round(step_share * 5), made.masked_positions.shape[1]]
    names = [view.example.id for unit in units for view in unit]
    counts = (made.masked_weights > 0).sum(1).tolist()
    noted.write(json.dumps([*row, dict(zip(names, counts))]) + "\\n")
    noted.flush()
    return made

Recipe.batch = noting
model, identity = a_model(), load_identity(Path(keys))
files = Checkpoints(folder / "checkpoints", identity, [identity.recipient], plan.digest)

def report(done, total):
    if done == die_after:
        os.kill(os.getpid(), signal.SIGKILL)

done = train(model, Numbered(documents()), plan, recipe, charges=Charges(), checkpoints=files,
             report=report)
whole = hashlib.sha256()
for parameter in model.parameters():
    whole.update(parameter.detach().numpy().tobytes())
print(json.dumps([done.step, whole.hexdigest()]))
"""


def attempt(folder: Path, keys: Path, end: float, die_after: int = 0):
    """Exit status, and steps and weights of an attempt that came to its end."""
    path = os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")])
    given = [str(folder), str(keys / "trainer.key"), str(end), str(die_after)]
    ended = subprocess.run(
        [sys.executable, "-c", CODE, *given], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    return ended.returncode, json.loads(ended.stdout) if ended.stdout else ended.stderr


def noted(folder: Path) -> dict[int, list]:
    """Of each step, as it was drawn last: masked slots, and how many each document filled."""
    found: dict[int, list] = {}
    for line in (folder / "noted").read_text().splitlines():
        step, slots, counts = json.loads(line)
        found[step] = [slots, counts]
    return found


@pytest.mark.full
def test_a_training_killed_under_a_masking_schedule_goes_on_along_it(tmp_path):
    from dpmlm.artifacts import create_keys

    keys = tmp_path / "keys"
    create_keys(keys)
    whole = attempt(tmp_path / "whole", keys, 0.1)
    assert whole[0] == 0, whole[1]
    other = attempt(tmp_path / "flat", keys, 0.6)
    run = tmp_path / "run"
    for die_after in (2, 5):
        assert attempt(run, keys, 0.1, die_after)[0] == -signal.SIGKILL
    assert attempt(run, keys, 0.1) == whole
    assert whole[1][0] == STEPS
    assert whole[1][1] != other[1][1]  # the schedule matters
    assert noted(run) == noted(tmp_path / "whole")
    slots = {row[0] for row in noted(run).values()}
    assert len(slots) == 1  # K holds the largest ratio throughout
    filled = [sum(counts.values()) / len(counts) for _, counts in noted(run).values()]
    assert filled[0] > 2 * filled[-1]
