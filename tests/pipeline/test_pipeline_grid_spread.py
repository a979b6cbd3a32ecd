"""Differences between settings with their intervals, held against least squares."""

import math

import numpy as np
import pytest
from scipy.stats import t as student

from dpmlm.pipeline.grid.spread import differences


def naive(settings, figures, axis, one, other, comparisons):
    """The same by least squares on dummies of settings and seeds, and contrasts of them."""
    count, seeds = len(settings), len(figures[0])
    rows, values = [], []
    for i in range(count):
        for j in range(seeds):
            row = np.zeros(count + seeds - 1)
            row[i] = 1
            if j:
                row[count + j - 1] = 1
            rows.append(row)
            values.append(figures[i][j])
    design, values = np.array(rows), np.array(values)
    solved = np.linalg.lstsq(design, values, rcond=None)[0]
    freedom = len(values) - design.shape[1]
    chance = ((values - design @ solved) ** 2).sum() / freedom
    contrast = np.zeros(design.shape[1])
    for value, sign in ((one, -1), (other, 1)):
        places = [i for i, setting in enumerate(settings) if setting[axis] == value]
        for place in places:
            contrast[place] = sign / len(places)
    error = math.sqrt(chance * contrast @ np.linalg.inv(design.T @ design) @ contrast)
    half = student.ppf(1 - 0.05 / (2 * comparisons), freedom) * error
    return contrast @ solved, half


def layout():
    return [{"a": a, "b": b} for a in (1, 2, 3) for b in ("x", "y")]


def test_differences_equal_least_squares():
    rng = np.random.default_rng(1)
    settings = layout()
    figures = rng.normal(size=(6, 4)) + np.arange(4) + 2 * np.arange(6)[:, None]
    for axis, values in (("a", (1, 2, 3)), ("b", ("x", "y"))):
        for found in differences(axis, values, "m", settings, figures.tolist(), comparisons=7):
            wanted, half = naive(settings, figures, axis, found.one, found.other, 7)
            assert found.difference == pytest.approx(wanted)
            assert found.interval[1] - found.difference == pytest.approx(half)


def test_settings_that_are_alike_are_seldom_told_apart():
    """All comparisons of a grid together err in 5 % of grids; without sharing out, far more."""
    rng, settings, wrong = np.random.default_rng(2), layout(), {1: 0, 4: 0}
    for _ in range(400):
        figures = (rng.normal(size=(6, 3)) + 5 * rng.normal(size=3)).tolist()
        for comparisons in wrong:
            found = [
                one.told_apart
                for axis, values in (("a", (1, 2, 3)), ("b", ("x", "y")))
                for one in differences(
                    axis, values, "m", settings, figures, comparisons=comparisons
                )
            ]
            wrong[comparisons] += any(found)
    assert wrong[4] <= 20 + 18
    assert wrong[1] > 20 + 18


def test_a_true_difference_is_told_apart_and_a_residual_of_luck_is_not_believed():
    settings = [{"a": 1}, {"a": 2}]
    near = [[1.0, 2.0, 3.0], [1.5, 2.5, 3.5001]]
    (found,) = differences("a", (1, 2), "m", settings, near, comparisons=1)
    assert found.told_apart
    (doubted,) = differences("a", (1, 2), "m", settings, near, comparisons=1, least=1.0)
    assert not doubted.told_apart
    (single,) = differences("a", (1, 2), "m", settings, [[1.0], [9.0]], comparisons=1)
    assert single.interval is None
    assert not single.told_apart


def test_seeds_without_every_figure_are_left_out():
    settings = [{"a": 1}, {"a": 2}]
    figures = [[1.0, None, 3.0], [2.0, 9.0, 4.5]]
    (found,) = differences("a", (1, 2), "m", settings, figures, comparisons=1)
    assert (found.seeds, found.difference) == (2, 1.25)
    lost = [[1.0, math.nan], [None, 2.0]]
    assert differences("a", (1, 2), "m", settings, lost, comparisons=1) == []


def test_a_setting_without_any_figure_is_left_out_alone():
    """Others are compared by the settings that both have, so that no axis passes for another."""
    settings = layout()
    figures = [[10.0 * s["a"] + 3 * (s["b"] == "y") + seed for seed in range(3)] for s in settings]
    figures[settings.index({"a": 3, "b": "y"})] = [None, math.nan, None]
    found = {
        (one.one, one.other): one
        for axis, values in (("a", (1, 2, 3)), ("b", ("x", "y")))
        for one in differences(axis, values, "m", settings, figures, comparisons=1)
    }
    told = {pair: one.difference for pair, one in found.items()}
    assert told == pytest.approx({(1, 2): 10, (1, 3): 20, (2, 3): 10, ("x", "y"): 3})
    assert {one.seeds for one in found.values()} == {3}
    figures[settings.index({"a": 3, "b": "x"})] = [None] * 3
    left = differences("a", (1, 2, 3), "m", settings, figures, comparisons=1)
    assert [(one.one, one.other) for one in left] == [(1, 2)]


def test_fewer_settings_and_seeds_give_the_intervals_of_a_smaller_grid():
    rng, settings = np.random.default_rng(3), layout()
    figures = rng.normal(size=(6, 4)).tolist()
    gone = [settings.index({"a": 2, "b": b}) for b in ("x", "y")]
    gaps = [[None] * 4 if i in gone else row for i, row in enumerate(figures)]
    gaps[0] = [None, *figures[0][1:]]
    (found,) = differences("a", (1, 2, 3), "m", settings, gaps, comparisons=1)
    whole = [i for i in range(6) if i not in gone]
    smaller = np.array([figures[i][1:] for i in whole])
    wanted, half = naive([settings[i] for i in whole], smaller, "a", 1, 3, 1)
    assert (found.one, found.other, found.seeds) == (1, 3, 3)
    assert found.difference == pytest.approx(wanted)
    assert found.interval[1] - found.difference == pytest.approx(half)
