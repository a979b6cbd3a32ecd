"""Parametrisations of which the fast suite takes a part."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def rest_in_full(cases: Iterable[Any], fast: Collection[Any]) -> list[Any]:
    """The cases, those that are not in `fast` left to `make test-full`; tuples are arguments."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=() if case in fast else pytest.mark.full,
        )
        for case in cases
    ]
