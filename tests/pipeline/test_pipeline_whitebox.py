"""Gradient canaries in a run: drawn, committed to, planted, sealed, judged; refused early."""

import numpy as np
import pytest
from small_run import draw_keys, write_corpus, write_run_file

from audits.claim.whitebox import COMMITMENT, GradientCanarySet, Transcript, judge_whitebox
from dpmlm.artifacts import SealedFolder, load_identity
from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.models import planned
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_until
from dpmlm.pipeline.whitebox import kept_gradients, planted_gradients

CHANGES = {"audit__gradient_canaries": 30, "audit__canaries": 4, "audit__control": None}


def prepared(folder, **changes):
    write_corpus(folder)
    write_run_file(folder, **(CHANGES | changes))
    draw_keys(folder)
    return folder / "run.yaml"


@pytest.mark.full
def test_a_run_plants_seals_and_judges_them(tmp_path):
    config = load_config(prepared(tmp_path))
    execute_until(config, "training")
    run = Run.load(config, Progress(quiet=True))
    plan, _ = planned(run)
    drawn = GradientCanarySet.read(run.folder("canaries"))
    assert plan.bindings[COMMITMENT] == drawn.commitment
    manifest = run.folder("canaries").manifest
    assert manifest["counts"]["gradient_canaries"] == drawn.public()
    assert planted_gradients(run).included == drawn.members
    transcript = Transcript.read(run.folder("training"))
    assert transcript.projections.shape == (6, 30)
    assert np.isfinite(transcript.projections).all()
    part = judge_whitebox(*kept_gradients(run), plan.to_json())
    assert part["label"] == "private"
    assert part["canaries"] == 30
    assert part["included"] == len(drawn.members)
    # The trainer's folder holds the transcript and no coin.
    identity = load_identity(tmp_path / "keys/trainer.key")
    names = SealedFolder.open(tmp_path / "work/training", [identity]).names()
    assert "gradient_projections" in names
    assert "gradient_canaries" not in names
    # Repeated, nothing is done again.
    execute_until(config, "training")


@pytest.mark.full
def test_they_count_as_units(tmp_path):
    path = prepared(tmp_path, audit__gradient_canaries=400)
    with pytest.raises(UserError, match="these may be up to 404 units"):
        execute_until(load_config(path), "training")


@pytest.mark.full
def test_a_run_without_them_says_so(finished):
    folder, _ = finished
    run = Run.load(load_config(folder / "run.yaml"), Progress(quiet=True))
    plan, _ = planned(run)
    assert kept_gradients(run) is None
    assert COMMITMENT not in plan.bindings


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy__bands": 2},
        {"privacy__max_batch_size": 30, "privacy__accountant": "pld"},
        {"privacy__epsilon": "inf"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_plans_without_a_score_are_refused_with_the_run_file(tmp_path, changes):
    with pytest.raises(UserError, match=r"audit\.gradient_canaries is for a finite"):
        load_config(write_run_file(tmp_path, **(CHANGES | changes)))
