"""What a grid is refused for before anything is charged, and what it leaves then."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from small_grid import begin, entries, grid_of

from dpmlm.cli.main import status_of
from dpmlm.errors import UserError
from dpmlm.pipeline.grid import Axis, cells, checks, price_of, run_grid
from dpmlm.pipeline.models import plan_of
from dpmlm.privacy import Ledger


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A folder whose ledger nothing was charged to."""
    return begin(tmp_path_factory.mktemp("fresh"))


def reservable(folder, plans):
    """How many runs a copy of the ledger takes, one after the other."""
    copy = folder / "copy.jsonl"
    copy.write_bytes((folder / "ledger.jsonl").read_bytes())
    ledger = Ledger.open(copy)
    for number, plan in enumerate(plans):
        try:
            ledger.reserve(f"run {number}", plan)
        except UserError:
            return number
    return len(plans)


@pytest.mark.parametrize("epsilon", [1, 10])
def test_a_grid_that_does_not_fit_is_refused_before_anything_is_charged(fresh, epsilon):
    before = entries(fresh.parent)
    grid = grid_of(fresh, seeds=4, overrides={"privacy.epsilon": epsilon})
    plans = [plan_of(grid.cells[0].config)] * 8
    fit = reservable(fresh.parent, plans)
    assert Ledger.open(fresh.parent / "ledger.jsonl").affordable(plans)[0] == fit
    if fit == 8:
        assert len(price_of(grid).plans) == 8
    else:
        with pytest.raises(UserError, match=f"{fit} of them fit") as refused:
            price_of(grid)
        lower = float(str(refused.value).partition("privacy.epsilon to ")[2].partition(":")[0])
        assert len(price_of(grid_of(fresh, seeds=4, overrides={"privacy.epsilon": lower})).plans)
    assert entries(fresh.parent) == before
    assert not grid.folder.exists()
    assert epsilon > 1 or fit == 8
    assert epsilon == 1 or 1 <= fit < 8


def test_nobody_to_ask_is_a_no(fresh, capsys, monkeypatch):
    monkeypatch.chdir(fresh.parent)
    before = entries(fresh.parent)
    words = ["masks", "compare", "run.yaml", "--ratios", "0.15,0.3", "--out", "asked"]
    assert status_of(words) == 2
    told = capsys.readouterr().err
    assert "2 runs" in told
    assert "--yes" in told
    assert entries(fresh.parent) == before
    assert not (fresh.parent / "asked").exists()


def test_what_is_wrong_with_an_option_names_the_option_and_no_file(fresh, capsys, monkeypatch):
    monkeypatch.chdir(fresh.parent)
    words = ["masks", "compare", "run.yaml", "--ratios", "0,0.2", "--out", "none"]
    assert status_of(words) == 2
    told = capsys.readouterr().err
    assert "--ratios 0: " in told
    assert "run.yaml" not in told
    assert not (fresh.parent / "none").exists()


class TextBegan(Exception):
    """The checks are done."""


@pytest.fixture
def no_text(monkeypatch):
    """Reading the text ends the grid."""

    def began(*_):
        raise TextBegan

    monkeypatch.setattr(cells, "execute_until", began)


BEST = {"training.best": {"corpus": "public.jsonl"}}
MISSING = Axis("masking.weights", (None, {"corpus": "nowhere.jsonl"}))
PRIVATE = Axis("masking.weights", (None, {"corpus": "private.jsonl"}))


@pytest.mark.parametrize(
    ("axis", "overrides", "rule"),
    [
        (MISSING, {}, "no such file"),
        (PRIVATE, {}, "documents of the private corpus"),
        (Axis("privacy.epsilon", (1, math.inf)), BEST, "no noise covers the choice"),
    ],
)
def test_what_is_wrong_with_a_later_cell_is_found_before_the_first(
    fresh, no_text, tmp_path, axis, overrides, rule
):
    before = entries(fresh.parent)
    grid = grid_of(fresh, [axis], overrides=overrides, out=tmp_path / "grid")
    with pytest.raises(UserError, match=rule):
        run_grid(grid)
    assert entries(fresh.parent) == before
    assert not grid.folder.exists()


def test_cells_that_are_fit_are_checked_once_a_setting(fresh, no_text, monkeypatch):
    asked, preflight = [], checks.preflight
    monkeypatch.setattr(
        checks, "preflight", lambda run, **how: (asked.append(run), preflight(run, **how))
    )
    grid = grid_of(fresh, seeds=3, out="fit")
    with pytest.raises(TextBegan):
        run_grid(grid)
    assert [run.config for run in asked] == [cell.config for cell in grid.cells[:2]]


def test_public_text_may_be_declared_beside_itself(fresh, no_text):
    with pytest.raises(TextBegan):
        run_grid(grid_of(fresh, [PRIVATE], public=True, out="itself"))


def test_a_refused_grid_on_public_text_leaves_its_folder_free(fresh, tmp_path):
    grid = grid_of(fresh, [MISSING], public=True, out=tmp_path / "grid")
    with pytest.raises(UserError, match="no such file"):
        run_grid(grid)
    assert not grid.folder.exists()


@pytest.mark.parametrize("version", ["grid-settings/1", "grid-settings/2"])
def test_a_grid_of_an_earlier_version_is_not_gone_on_with(fresh, no_text, tmp_path, version):
    """Its seeds shared their masks, or words were counted in the text that was asked about."""
    grid = grid_of(fresh, out=tmp_path / "grid")
    with pytest.raises(TextBegan):
        run_grid(grid)
    marker = grid.folder / "grid.json"
    current = marker.read_text()
    marker.write_text(current.replace("grid-settings/3", version))
    assert marker.read_text() != current
    with pytest.raises(UserError, match="an earlier version"):
        run_grid(grid)


def test_each_release_that_is_continued_has_its_own_price(fresh, monkeypatch):
    from dpmlm.pipeline.grid import budget

    continued = [
        replace(cell, config=cell.config.model_copy(update={"model": model}))
        for cell in grid_of(fresh).cells
        for name in ("one", "other")
        for model in [cell.config.model.model_copy(update={"continues": Path(name)})]
    ]
    monkeypatch.setattr(budget, "plan_of", lambda config: config.model.continues.name)
    assert budget._plans(continued) == ["one", "other"] * 2
