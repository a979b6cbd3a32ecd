"""The axes of a grid: what is none, and how values are spelled."""

import pytest
from small_grid import begin, grid_of

from dpmlm.config.telemetry import TelemetryConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.grid import Axis, axes_of
from dpmlm.pipeline.grid.masks import known_strategies, masking_axes
from dpmlm.privacy import Ledger, PartitionSelection


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A folder whose ledger nothing was charged to."""
    return begin(tmp_path_factory.mktemp("fresh"))


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        (["split.validation=0.1,0.2"], "cells differ in what is trained"),
        (["masking=1,2"], "cells differ in what is trained"),
        (["training.learning_rat=1e-3,2e-3"], "did you mean training.learning_rate"),
        (["training.learning_rate=1e-3,0.001"], "no value stands in an axis twice"),
        (["masking.ratio=0.1,0.2", "masking.ratio=0.3"], "one value and several"),
        (["training.steps=2,3", "training.steps=3,4"], "training.steps: it varies twice"),
        (["training.best=null,{corpus: a}", "training.best.every=5"], "training.best beside"),
        (["masking.ratio=0.3"], "between 2 and 500"),
        (["masking.ratio=0.15,nan"], "masking.ratio"),
    ],
)
def test_what_is_no_grid_is_refused(fresh, settings, rule):
    axes, overrides = axes_of(settings)
    with pytest.raises(UserError, match=rule):
        grid_of(fresh, axes, overrides=overrides)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        (["masking.strategy=token,whole_word"], "masking.strategy: it varies twice"),
        (["masking.ratio_end=0.1"], "masking.ratio_end beside masking.ratio"),
        (["masking.ratio_end=0.1,0.2"], "masking.ratio_end beside masking.ratio"),
    ],
)
def test_what_the_axes_of_masks_set_is_not_set_again(fresh, settings, rule):
    more, overrides = axes_of(settings)
    masks = masking_axes("0.15,0.4", "token,span", None)
    with pytest.raises(UserError, match=rule):
        grid_of(fresh, [*masks, *more], overrides=overrides)


def test_cells_tell_nothing_to_those_who_watch(tmp_path):
    watched = {"file": "steps.jsonl", "prometheus": {"port": 9464, "textfile": "dpmlm.prom"}}
    run_file = begin(tmp_path, telemetry=watched)
    grid = grid_of(run_file, overrides={"telemetry.times": True})
    for config in (grid.text, *(cell.config for cell in grid.cells)):
        assert config.telemetry == TelemetryConfig()


def test_a_ledger_with_any_charge_says_that_its_corpus_is_private(fresh):
    path = fresh.parent / "drawn.jsonl"
    path.write_bytes((fresh.parent / "ledger.jsonl").read_bytes())
    drawn = {"ledger.path": path}
    assert grid_of(fresh, overrides=drawn, public=True).public
    selection = PartitionSelection(1, 1e-4, 5)
    Ledger.open(path).spend_selection("vocabulary", selection, unit="person", scope="source corpus")
    with pytest.raises(UserError, match="it is not public"):
        grid_of(fresh, overrides=drawn, public=True)


def test_a_schedule_is_a_value_of_the_ratio(fresh):
    grid = grid_of(fresh, masking_axes("0.15,0.3:0.15", None, None), out="schedules")
    read = [(c.config.masking.ratio, c.config.masking.ratio_end) for c in grid.cells]
    assert read == [(0.15, None), (0.3, 0.15)]
    assert grid.cells[1].name == "small-0.3_to_0.15-seed3"
    assert grid.axes[0].values == (0.15, [0.3, 0.15])


def test_lists_are_parted_at_their_own_commas():
    axes, overrides = axes_of(
        ["a.b=1,2", "c.d=[1,2]", "e.f={start: 0.3, end: 0.15},0.2", "training.steps=5"]
    )
    assert axes == [Axis("a.b", (1, 2)), Axis("e.f", ({"start": 0.3, "end": 0.15}, 0.2))]
    assert overrides == {"c.d": [1, 2], "training.steps": 5}


def test_masking_axes_are_those_of_the_run_file():
    (ratios,) = masking_axes("0.15,0.3:0.15", None, None)
    assert ratios == Axis("masking.ratio", (0.15, (0.3, 0.15)), second="masking.ratio_end")
    assert masking_axes(None, None, "both") == [Axis("masking.static", (False, True))]
    assert masking_axes(None, "all", None) == [Axis("masking.strategy", known_strategies())]
    assert {"token", "whole_word"} <= set(known_strategies())
    for words, said in (
        (("x", None, None), "x"),
        ((None, None, "perhaps"), "perhaps"),
        ((None, "token,foo", None), "--strategies foo: there is no such strategy"),
        (("0,0.2", None, None), "^--ratios 0: a ratio is a share of the tokens, above 0"),
        (("0.2,1.0", None, None), "^--ratios 1.0: a ratio is a share"),
        (("0.2:-0.1,0.3", None, None), "^--ratios 0.2:-0.1: a ratio is a share"),
        (("1.5:0.2,0.3", None, None), "^--ratios 1.5:0.2: a ratio is a share"),
        (("nan,0.3", None, None), "^--ratios nan: a ratio is a share"),
    ):
        with pytest.raises(UserError, match=said):
            masking_axes(*words)


def test_fewer_than_one_seed_is_refused_by_its_name(fresh):
    for seeds in (0, -3):
        with pytest.raises(UserError, match=f"--seeds {seeds}"):
            grid_of(fresh, masking_axes("0.15,0.4", None, None), seeds=seeds)


@pytest.mark.parametrize(
    ("ratios", "seeds", "said"),
    [
        ("0.15", 1, "a grid of 1 cell: .*; give an axis two values or more, or --seeds 2$"),
        ("0.15,0.4", 1000, "a grid of 2000 cells: .*; give --seeds 250 or fewer, or fewer values$"),
        ("0.15", 501, "a grid of 501 cells: .*; give --seeds 500 or fewer, or fewer values$"),
        (",".join(f"0.{n}" for n in range(1000, 1501)), 1, "of 501 cells: .*; give fewer values$"),
        (",".join(f"0.{n}" for n in range(1000, 1501)), 2, "of 1002 cells: .*; give fewer values$"),
    ],
)
def test_a_grid_of_too_few_or_too_many_cells_is_told_what_to_give(fresh, ratios, seeds, said):
    with pytest.raises(UserError, match=said):
        grid_of(fresh, masking_axes(ratios, None, None), seeds=seeds)


def test_as_many_seeds_as_advised_are_taken(fresh):
    assert len(grid_of(fresh, masking_axes("0.15,0.2,0.4", None, None), seeds=166).cells) == 498


def test_a_private_vocabulary_is_drawn_for_one_kind_of_tokens(fresh):
    private = {"epsilon": 1, "delta": 1e-4, "size": 400, "words_per_unit": 5}
    text = {"tokens.private": private, "tokens.train": None}
    axes = masking_axes(None, "token,entity", None)
    with pytest.raises(UserError, match="draw the vocabulary again"):
        grid_of(fresh, axes, overrides=text)
    alike = masking_axes(None, "token,span", None)
    assert len(grid_of(fresh, alike, overrides=text).cells) == 2
