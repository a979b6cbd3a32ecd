"""The run file's `masking` and the masking package's spec: one set of ranges."""

import itertools
from dataclasses import fields

import pytest
from pydantic import ValidationError

from dpmlm.config.masking import MaskingConfig
from dpmlm.errors import UserError
from dpmlm.masking import MaskingSpec

GRID = {
    "strategy": ["token", "whole_word", "span", "entity", "words", None],
    "ratio": [-0.1, 0.0, 1e-9, 0.15, 0.89, 0.9, 0.999, 1.0, float("nan")],
    "ratio_end": [None, 0.0, 0.3, 0.95, 1.0],
    "mask_fraction": [-0.1, 0.0, 0.8, 1.0, 1.1],
    "random_fraction": [-0.1, 0.0, 0.2, 0.2000001, 1.0, 1.1],
    "static": [False, True],
    "entity_share": [0.0, 0.5, 1.0, 1.1],
}
PAIRS = [
    {first: a, second: b}
    for first, second in itertools.combinations(GRID, 2)
    for a, b in itertools.product(GRID[first], GRID[second])
]


def accepts(kind: type, values: dict[str, object]) -> bool:
    try:
        kind(**values)
    except (ValidationError, UserError):
        return False
    return True


def test_run_file_and_spec_accept_the_same() -> None:
    verdicts = [accepts(MaskingConfig, pair) for pair in PAIRS]
    assert 100 < sum(verdicts) < len(verdicts) - 100
    assert verdicts == [accepts(MaskingSpec, pair) for pair in PAIRS]


def test_every_field_of_the_spec_is_a_field_of_the_run_file() -> None:
    assert {field.name for field in fields(MaskingSpec)} <= set(MaskingConfig.model_fields)
    assert set(GRID) == {field.name for field in fields(MaskingSpec)}


@pytest.mark.parametrize("value", [True, "0.15", {"start": 0.3, "end": 0.15}])
def test_a_ratio_is_a_number(value: object) -> None:
    with pytest.raises(ValidationError):
        MaskingConfig(ratio=value)  # type: ignore[arg-type]
