"""The model card, from one source: Markdown beside the model, and a section of the page.

What it says is the same for everybody, and public.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpmlm.release import attacks
from dpmlm.release.facts import public_evidence
from dpmlm.release.report import words
from dpmlm.release.report.data import ReportData
from dpmlm.release.report.figures import Figure, key_figures, noticing, promise, tested
from dpmlm.release.report.templates import environment


@dataclass(frozen=True)
class Card:
    """What stands on both."""

    use: str
    """Whom and what the model is for."""
    text: list[str]
    """What it was trained on, in sentences."""
    figures: list[Figure]
    tests: list[str]
    """The declared tests and what they found; what could not be tried says why."""
    bounds: str
    """Both lower bounds in a sentence; empty where there is none."""
    power: str
    """Whether the silence of a test means something."""
    untried: list[str]
    """Names of the attacks that were not run."""
    limits: list[str]
    """What nobody should conclude from the card, in sentences."""
    uncovered: list[str]
    """What the promise does not cover."""


UNTOLD_USE = (
    "To fill in hidden words of text like that it was trained on, or to be trained further for "
    "such text. Its makers name no other purpose (release.intended_use in the run file)."
)
"""Where the run file says nothing."""


def model_card(data: ReportData) -> str:
    """A card for a bundle, in Markdown: verdict, promise, attacks, limits; nothing private."""
    decision = data.decision.public()
    page = environment().get_template("card.md.j2")
    return page.render(
        data=data,
        decision=decision,
        headline=words.headline(decision),
        summary=words.summary(decision),
        open_rules=words.unmet(decision),
        card=card(data),
    )


def card(data: ReportData) -> Card:
    """The public facts of a report, as a card tells them."""
    decision, evidence = data.decision.public(), public_evidence(data.evidence or {})
    target: dict[str, Any] = dict((evidence.get("subjects") or {}).get("target") or {})
    listed = evidence.get("attacks") or []
    return Card(
        use=" ".join(data.intended_use.split()) or UNTOLD_USE,
        text=_text(data),
        figures=key_figures(promise(data), evidence, decision),
        tests=_tests(evidence, target),
        bounds=_bounds(target.get("lower_bound") or {}),
        power=_power(evidence),
        untried=[entry["attack"] for entry in listed if entry["status"] != "RUN"],
        limits=_limits(data),
        uncovered=list(data.statement.get("not_covered") or ()),
    )


def _text(data: ReportData) -> list[str]:
    """The plan counts units from above; how many there really are is private."""
    plan, training = data.plan, data.training
    told = [
        f"Text of at most {plan['units']:,} {plan['unit']}s, planted secrets included, each of "
        f"them counted as one {plan['unit']} of the promise. What stands in it, and how much "
        "there is of it, is private."
    ]
    if scrubbed := training.get("scrub_policy"):
        told.append(
            f"Names, numbers and other identifiers were looked for and replaced before the "
            f"training (policy {scrubbed}); software finds none of them completely."
        )
    near, passages = training.get("near_duplicates"), training.get("repeated_passages")
    if near is not None:
        kept = "were kept" if near == "kept" else f"were removed from a likeness of {near} on"
        told.append(f"Nearly equal documents {kept}; repeated passages were {passages or 'kept'}.")
    drawn = words.shown(float(plan["expected_batch_size"]))
    told.append(
        f"{plan['steps']:,} steps were taken, each on {drawn} {plan['unit']}s or so, drawn by "
        f"chance. It started from {data.base or 'random weights'}."
    )
    return told


def _limits(data: ReportData) -> list[str]:
    private = promise(data)["private"]
    return [
        "It fills in hidden words. Whether what it says is true, whether it treats groups of "
        "people alike, and whether it is good enough for a task was not measured here.",
        "How well it does on text that it was not trained on is computed from private text: the "
        "auditor has these figures.",
        "Tests are evidence of resistance to these attacks only; the promise holds against all, "
        "as far as it goes."
        if private
        else "Tests are evidence of resistance to these attacks only, and no promise stands "
        "behind them.",
    ]


def _tests(evidence: Mapping[str, Any], target: Mapping[str, Any]) -> list[str]:
    told, able = [], noticing(evidence)
    for row in attacks.declared_tests(evidence):
        part, say = target.get(row["name"]), words.SAY.get(row["name"])
        says = (say(part) if say and part else "") or row["outcome"] or row["why_not"]
        # Of a test that found something nobody asks whether it can.
        silent = row["kind"] != "bad" and row["name"] in tested(evidence)
        beside = "; not shown to notice a leak" if silent and row["name"] not in able else ""
        told.append(f"{row['title']} {says}{beside}.")
    return told


def _power(evidence: Mapping[str, Any]) -> str:
    tried, able = tested(evidence), noticing(evidence)
    if able:
        rest = "" if len(able) == len(tried) else " Silence of the others proves nothing."
        return (
            f"Power is shown for {len(able)} of {len(tried)} tests: they catch a model that was "
            f"trained without privacy.{rest}"
        )
    return "Power is not shown: where the attacks found nothing, that proves nothing."


def _bounds(part: Mapping[str, Any]) -> str:
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
