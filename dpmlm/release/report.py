"""The report: one HTML page that somebody who never heard of epsilon can read to its end.

Self-contained (no script, no font, no request) and in two variants: with the private figures for
the auditor, and without them for everybody else.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dpmlm.release import assessment, attacks, charts, identifiers, kinds, lineage, threats, words
from dpmlm.release.clauses import GUIDANCE
from dpmlm.release.facts import number, public_evidence, spelled
from dpmlm.release.gate import Decision
from dpmlm.release.pointers import Pointer, pointer

SAY: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "gating": words.gating_words,
    "exposure": words.exposure_words,
    "canary_extraction": words.extraction_words,
    "lower_bound": words.bound_words,
}
"""Figures of a declared test in words; a test that is not known here shows its outcome alone."""


@dataclass(frozen=True)
class PrivateFigures:
    """Figures computed from private text; for the auditor."""

    loss_curve: Sequence[tuple[int, float]] = ()
    """(step, training loss in nats a token)."""
    documents: Mapping[str, int] = field(default_factory=dict)
    """Counts of documents and units, in the order shown, such as {"read": 9000, "kept": 8700}."""
    scrubbed: Mapping[str, int] = field(default_factory=dict)
    """Replaced or removed mentions by type."""
    recall: Mapping[str, Any] = field(default_factory=dict)
    """How much of what people marked by hand was taken out: `scrub.recall` of the facts; where it
    was not measured, its `reason`."""
    duplicates: Mapping[str, int] = field(default_factory=dict)
    """Removed documents by reason: exact, near."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Documents that were left out, by reason."""
    evaluation: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Held-out figures by moment: {"before": {"loss": ..., "top1": ...}, "after": {...}}."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time of each stage."""


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows."""

    name: str
    """Name of the run."""
    created: str
    """When, ISO 8601 in UTC."""
    statement: Mapping[str, Any]
    """`Statement.to_json()`: sentence, note and fields."""
    plan: Mapping[str, Any]
    """`PrivacyPlan.to_json()`."""
    decision: Decision
    """What the gate decided, values included."""
    evidence: Mapping[str, Any] | None
    """Evidence of the audits with its private part; None if none were run."""
    ledger: Mapping[str, Any]
    """`Ledger.summary`."""
    epsilon_curve: Sequence[tuple[int, float]] = ()
    """(step, epsilon spent); empty without a promise."""
    delta_curve: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """(delta, epsilon of the whole plan) by accountant; empty without a promise."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Public facts of the training, shown as they are."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Digests of model, plan, policy and sealed artifacts (of ciphertext, never of plaintext)."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of code and libraries."""
    private: PrivateFigures | None = field(default=None, repr=False)
    """Figures for the auditor alone."""


def render_report(data: ReportData, *, private: bool) -> str:
    """The page as HTML; `private` decides whether private figures are in it.

    Raises ValueError if `private` is asked for and `data.private` is None.
    """
    if private and data.private is None:
        raise ValueError("there are no private figures to show")
    figures = data.private if private else None
    evidence = spelled(data.evidence or {}) if private else public_evidence(data.evidence or {})
    decision = data.decision if private else data.decision.public()
    claim = _claim(data)
    page = _environment().get_template("report.html.j2")
    return page.render(
        data=data,
        decision=decision,
        headline=words.headline(decision),
        summary=words.summary(decision),
        open_rules=words.unmet(decision),
        claim=claim,
        audit=_audit(evidence),
        epsilon_chart=_epsilon_chart(data, claim["epsilon"]),
        delta_chart=_delta_chart(data, claim),
        lineage=lineage.draw(data.digests),
        private=figures,
        recall_rows=words.recall_rows(figures.recall) if figures else [],
        charts=_private_charts(figures),
        verbatim=_measured(evidence.get("verbatim")),
        gradients=_whitebox(evidence.get("gradients")),
        every_attack=attacks.rows(evidence),
        declared=attacks.declared_tests(evidence),
        **_guidance(data, decision, evidence, figures),
        rival=words.rival(evidence.get("verbatim") or {}),
    )


def _guidance(
    data: ReportData,
    decision: Decision,
    evidence: Mapping[str, Any],
    figures: PrivateFigures | None,
) -> dict[str, Any]:
    """What the tables of guidance show; `figures` are None in the public copy."""
    facts = {
        "statement": data.statement,
        "plan": data.plan,
        "ledger": data.ledger,
        "training": data.training,
        "evidence": evidence,
        "decision": decision.to_json(),
    }

    def pointed(place: str) -> Pointer:
        return pointer(facts, place)

    recall = None if figures is None else figures.recall or {"applicable": False, **_UNMEASURED}
    return {
        "pointed": pointed,
        "guidance": GUIDANCE,
        "kinds": kinds.rows(evidence),
        "identifiers": identifiers.rows(evidence, recall),
        "identifier_notes": identifiers.notes(evidence, recall),
        "assessment": assessment.inputs(
            statement=data.statement,
            training=data.training,
            evidence=evidence,
            decision=decision,
            found=None if figures is None else figures.scrubbed,
        ),
    }


_UNMEASURED = {"reason": "no marked documents were measured; name some as scrub.gold"}


def _whitebox(part: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The white-box part where gradient canaries could be judged; it is never in public copies."""
    return part if part and "lower_bound" in part else None


def _measured(verbatim: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return verbatim if verbatim and "hits" in verbatim else None


@cache
def _environment() -> Environment:
    """Templates with escaping on and undefined names refused."""
    environment = Environment(
        loader=PackageLoader("dpmlm.release", "."),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": words.shown,
        "referred": words.referred,
        "required": words.required,
        "percent": words.percent,
        "breakable": words.breakable,
    }
    environment.globals |= {
        "status": words.STATUS,
        "subjects": words.SUBJECTS,
        "annotations": words.ANNOTATIONS,
        "threats": threats.THREATS,
        "limits": threats.LIMITS,
    }
    return environment


def _claim(data: ReportData) -> dict[str, Any]:
    """The promise in numbers that the template turns into sentences."""
    epsilon = number(data.statement.get("epsilon", data.ledger.get("epsilon", "inf")))
    delta = number(data.statement.get("delta", data.plan.get("delta"))) or 0.0
    bound = math.inf if epsilon is None else epsilon
    beliefs = [
        {"before": name, "after": after, "meter": charts.meter(after)}
        for prior, name in words.PRIORS
        for after in [words.posterior(prior, bound, delta)]
    ]
    return {
        "epsilon": bound,
        "delta": delta,
        "slack": words.one_in(delta),
        "unit": data.plan["unit"],
        "strength": words.strength(bound),
        "beliefs": beliefs,
        "private": not math.isinf(bound),
    }


def _audit(evidence: Mapping[str, Any]) -> dict[str, Any] | None:
    """Tests by model, charts and the sentence on power; None if there was no audit."""
    subjects = evidence.get("subjects")
    if not subjects or not subjects.get("target"):
        return None
    tests = (evidence.get("declared") or {}).get("tests") or ()
    rows = [
        {
            "title": attacks.title(test),
            "how": attacks.TITLES.get(test, ("", ""))[1],
            "cells": [_cell(subjects, test, who) for who in words.SUBJECTS],
        }
        for test in tests
    ]
    return {
        "evidence": evidence,
        "target": subjects["target"],
        "rows": rows,
        "tested": sum(
            (subjects["target"].get(test) or {}).get("rejected") is not None for test in tests
        ),
        "power": evidence.get("power", {}),
        "guess_chart": _guess_chart(subjects),
        "exposure_charts": _exposure_charts(subjects),
    }


def _cell(subjects: Mapping[str, Any], key: str, who: str) -> dict[str, str]:
    part: Mapping[str, Any] | None = (subjects.get(who) or {}).get(key)
    word, kind = attacks.on_target(subjects, key) if who == "target" else words.outcome(part, who)
    return {"word": word, "kind": kind, "figures": SAY.get(key, _reason)(part) if part else ""}


def _reason(part: Mapping[str, Any]) -> str:
    return str(part.get("reason", ""))


def _guess_chart(subjects: Mapping[str, Any]) -> Markup | None:
    rows = []
    for who, (name, _) in words.SUBJECTS.items():
        part = (subjects.get(who) or {}).get("gating") or {}
        if part.get("guesses"):
            rows.append((name, part["correct"], part["guesses"], part.get("needed_strict")))
    return charts.guess_chart(rows, title="Right guesses, model by model") if rows else None


def _exposure_charts(subjects: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    drawn = []
    for who in ("target", "control"):
        part = (subjects.get(who) or {}).get("exposure") or {}
        if not part.get("histogram") or part.get("mean_bits") is None:
            continue
        marks = []
        if isinstance(part.get("ceiling_bits"), int | float):
            label = f"highest mean allowed: {part['ceiling_bits']:.1f}"
            marks.append(charts.Mark(part["ceiling_bits"], label))
        if isinstance(part.get("threshold_bits"), int | float):
            above = part.get("count_above", 0)
            label = f"threshold {part['threshold_bits']:.0f}: {above} above"
            marks.append(charts.Mark(part["threshold_bits"], label))
        name = words.SUBJECTS[who][0]
        chart = charts.exposure_chart(
            part["histogram"], title=f"Exposure: {name}", mean=part["mean_bits"], marks=marks
        )
        drawn.append((name, chart))
    return drawn


def _epsilon_chart(data: ReportData, claimed: float) -> Markup | None:
    points = [(float(x), float(y)) for x, y in data.epsilon_curve if math.isfinite(y)]
    if len(points) < 2 or math.isinf(claimed):
        return None
    budget = number(data.plan.get("epsilon"))
    limit = charts.Mark(budget, f"budget: {budget:g}") if budget and budget < math.inf else None
    return charts.line_chart(
        points, title="Epsilon spent over steps", x_label="step", y_label="epsilon", limit=limit
    )


def _delta_chart(data: ReportData, claim: Mapping[str, Any]) -> Markup | None:
    if not data.delta_curve or not claim["private"] or not claim["delta"]:
        return None
    claimed = (claim["delta"], claim["epsilon"])
    return charts.delta_chart(data.delta_curve, title="Epsilon over delta", claimed=claimed)


def _private_charts(figures: PrivateFigures | None) -> dict[str, Markup]:
    if figures is None:
        return {}
    drawn = {}
    loss = [(float(x), float(y)) for x, y in figures.loss_curve if math.isfinite(y)]
    if len(loss) >= 2:
        drawn["loss"] = charts.line_chart(
            loss, title="Training loss over steps", x_label="step", y_label="loss (nats a token)"
        )
    if figures.scrubbed:
        rows = sorted(figures.scrubbed.items(), key=lambda row: (-row[1], row[0]))
        drawn["scrubbed"] = charts.bar_list(rows, title="Mentions taken out of the text, by type")
    return drawn
