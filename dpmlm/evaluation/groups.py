"""Figures by group of documents: whom a model serves well, and whom training helped.

Clipping and noise cost groups that are small or unlike the rest more than others (Bagdasaryan,
Poursaeed and Shmatikov 2019, 1905.12101).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dpmlm.evaluation.intervals import FEWEST_UNITS, Estimate, changes, estimates
from dpmlm.evaluation.measurement import Figures, Measurement

UNNAMED = "(none)"
"""Group of documents for which none is named."""


@dataclass(frozen=True)
class Group:
    """One group of documents, as a model sees it, beside an earlier or another model."""

    name: str
    documents: int
    units: int
    figures: Figures
    estimates: dict[str, Estimate]
    changes: dict[str, Estimate]
    """Against the other model; empty without one."""


def by_group(
    measurement: Measurement, groups: Mapping[str, str], against: Measurement | None = None
) -> list[Group]:
    """The groups of the documents, by name; `groups` maps their ids.

    Documents without a masked token count as documents and have no part in figures; a group
    of such alone is left out. Raises UserError where `against` is of other units.
    """
    names = _names(measurement, groups)
    others = _names(against, groups) if against is not None else None
    found = []
    for name in sorted(set(names)):
        inside = names == name
        chosen = inside[measurement.document]
        figures = measurement.where(chosen)
        if figures is None:
            continue
        changed = {}
        if against is not None and others is not None:
            changed = changes(against, measurement, ((others == name)[against.document], chosen))
        units = {unit for unit, is_in in zip(measurement.units, inside, strict=True) if is_in}
        found.append(
            Group(
                name,
                int(inside.sum()),
                len(units),
                figures,
                estimates(measurement, chosen),
                changed,
            )
        )
    return found


def gap(groups: list[Group], name: str = "top1") -> tuple[Group, Group] | None:
    """The groups with the smallest and the largest change of a figure (without changes: of the
    figure itself), among those with enough units for an interval; None with fewer than two."""
    told = [group for group in groups if group.units >= FEWEST_UNITS]
    if len(told) < 2:
        return None

    def value(group: Group) -> float:
        return (group.changes or group.estimates)[name].value

    return min(told, key=value), max(told, key=value)


def _names(measurement: Measurement, groups: Mapping[str, str]) -> np.ndarray:
    return np.array([groups.get(id, UNNAMED) for id in measurement.documents], dtype=object)
