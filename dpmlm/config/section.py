"""What every section of the run file has in common, and which of its fields change the claim."""

import math
import re
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

SPEED = "speed"
_NUMBER_AS_TEXT = re.compile(r"inf|[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")


def speed(default: Any, **limits: Any) -> Any:
    """A field that changes speed alone, or what is watched or measured beside a run."""
    return Field(default, json_schema_extra={SPEED: True}, **limits)


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any, info: ValidationInfo) -> Any:
        """A number is written as one: no yes or no, no quoted text.

        YAML 1.1 reads `1e-3` and `inf` as text, so these two spellings are numbers here.
        """
        kind = cls.model_fields[info.field_name or ""].annotation
        if not {int, float} & {kind, *get_args(kind)}:
            return value
        if isinstance(value, bool):
            raise ValueError("it is a number, not true or false")
        if isinstance(value, str):
            if not _NUMBER_AS_TEXT.fullmatch(value):
                raise ValueError("it is a valid number, written without quotes")
            return float(value)
        return value


def claim_fields(section: BaseModel) -> dict[str, Any]:
    """The section as JSON values without the fields that change speed alone.

    Paths are shortened to their last part: what a file holds decides a result, not where it lies,
    and machines' paths do not belong into a release.
    """
    kept: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get(SPEED):
            continue
        value = getattr(section, name)
        kept[field.alias or name] = _plain(value)
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return claim_fields(value)
    if isinstance(value, Path):
        return value.name
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):  # as JSON gives it back: numbers are no keys there
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
