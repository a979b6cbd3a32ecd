"""Numbers in words."""

import math

import pytest

from dpmlm.release.report import words


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 3.0, 8.0, 20.0])
@pytest.mark.parametrize("prior", [0.001, 0.01, 0.5, 0.9])
def test_posterior_is_bayes_rule(prior, epsilon):
    odds = prior / (1 - prior) * math.exp(epsilon)
    assert words.posterior(prior, epsilon, 0) == pytest.approx(odds / (1 + odds))
    assert words.posterior(prior, math.inf, 0) == 1.0


def test_numbers_for_people():
    assert words.shown(True) == "yes"
    assert words.shown("inf") == "∞ (no limit)"
    assert words.shown([]) == "none"
    assert words.shown(1234567) == "1,234,567"
    assert words.shown(1e-6) == "1\u00a0×\u00a010⁻⁶"
    assert words.percent(0.99999) == "more than 99.9 %"
    assert words.percent(1e-9) == "less than 0.1 %"
    assert words.percent(0.747) == "74.7 %"


def _exposed(**changed):
    own = {"mean_bits": 2.45, "mean_bits_out": 1.44, "ceiling_bits": 12.98}
    return own | {"histogram": {"in": [300, 181], "out": [400, 119]}} | changed


def test_a_gap_between_planted_and_unused_secrets_is_told_for_what_it_is():
    said = words.exposure_shown(_exposed(), "target")
    assert "gap of 1.0 bits here is more than chance makes" in said
    assert "2.0 times as high" in said
    assert "allows a mean of 13.0 bits" in said
    assert "allows" not in words.exposure_shown(_exposed(ceiling_bits=None), "target")


@pytest.mark.parametrize("mean", [1.0, 1.44, 1.6])
def test_a_gap_that_chance_makes_is_told_as_one(mean):
    said = words.exposure_shown(_exposed(mean_bits=mean), "target")
    assert "no more than chance makes" in said


def test_without_unused_secrets_there_is_no_gap():
    said = words.exposure_shown(_exposed(mean_bits_out=None), "target")
    assert "gap" not in said
    assert "gap" not in words.exposure_shown(_exposed(), "control")
