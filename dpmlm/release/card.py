"""The model card: one page of Markdown with the failures on it."""

from collections.abc import Mapping
from typing import Any

from dpmlm.release import attacks, words
from dpmlm.release.report import SAY, ReportData, _environment


def model_card(data: ReportData, *, intended_use: str = "", base: str = "") -> str:
    """A card for a bundle: verdict, promise, attacks, limits; nothing private.

    `intended_use` and `base` (what the model was trained from) are the releaser's words.
    """
    decision = data.decision.public()
    target: dict[str, Any] = dict(((data.evidence or {}).get("subjects") or {}).get("target") or {})
    page = _environment().get_template("model_card.md.j2")
    return page.render(
        data=data,
        decision=decision,
        headline=words.headline(decision),
        summary=words.summary(decision),
        open_rules=words.unmet(decision),
        intended_use=intended_use,
        base=base,
        tests=_tests(data.evidence or {}, target),
        bounds=_bounds(target.get("lower_bound") or {}),
        power=(data.evidence or {}).get("power") or {},
        not_run=[
            entry
            for entry in (data.evidence or {}).get("attacks") or []
            if entry["status"] != "RUN"
        ],
    )


def _tests(evidence: Mapping[str, Any], target: Mapping[str, Any]) -> list[dict[str, str]]:
    """The declared tests with their figures; what could not be tried says why."""
    told = []
    for row in attacks.declared_tests(evidence):
        part = target.get(row["name"])
        say = SAY.get(row["name"])
        figures = say(part) if say and part else ""
        says = figures or row["outcome"] or row["why_not"]
        told.append({"title": row["title"], "says": says})
    return told


def _bounds(part: Mapping[str, Any]) -> str:
    """Both lower bounds in a sentence; empty where there is none."""
    least, second = part.get("one_run"), part.get("fdp_one_run")
    if least is None:
        return ""
    beside = (
        ""
        if second is None
        else (f" (by a calculation that assumes a Gaussian-shaped curve {second:.2f})")
    )
    ceiling = part["one_run_ceiling"]
    return (
        f"A lower bound: the true epsilon is at least {least:.2f}{beside}; with every guess right "
        f"it would be {ceiling:.2f}. A low bound is no certificate."
    )
