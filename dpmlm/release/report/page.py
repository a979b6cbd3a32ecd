"""The report: one HTML page that somebody who never heard of epsilon can read to its end.

Self-contained (no script, no font, no request) and in two variants: with the private figures for
the auditor, and without them for everybody else.
"""

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from dpmlm.release import assessment, attacks, kinds
from dpmlm.release.facts import number, public_evidence, spelled
from dpmlm.release.gate import Decision
from dpmlm.release.report import charts, curves, fields, identifiers, lineage, words
from dpmlm.release.report.card import card
from dpmlm.release.report.clauses import GUIDANCE
from dpmlm.release.report.data import PrivateFigures, ReportData
from dpmlm.release.report.figures import noticing, promise, tested
from dpmlm.release.report.pointers import Pointer, pointer
from dpmlm.release.report.templates import environment


def render_report(data: ReportData, *, private: bool) -> str:
    """The page as HTML; `private` decides whether private figures are in it.

    Raises ValueError if `private` is asked for and `data.private` is None.
    """
    if private and data.private is None:
        raise ValueError("there are no private figures to show")
    figures = data.private if private else None
    evidence = spelled(data.evidence or {}) if private else public_evidence(data.evidence or {})
    decision = data.decision if private else data.decision.public()
    claim = promise(data)
    page = environment().get_template("page.html.j2")
    return page.render(
        data=data,
        decision=decision,
        headline=words.headline(decision),
        summary=words.summary(decision),
        open_rules=words.unmet(decision),
        claim=claim,
        card=card(data),
        plan_rows=fields.plan_rows(data.plan, data.training),
        text_rows=fields.rows(figures.documents, fields.TEXT) if figures else [],
        seconds_rows=fields.seconds(figures.seconds) if figures else [],
        evaluation_rows=fields.compared(figures.evaluation) if figures else [],
        audit=_audit(evidence),
        epsilon_chart=_epsilon_chart(data, claim["epsilon"]),
        delta_chart=_delta_chart(data, claim),
        lineage=lineage.draw(data.digests),
        private=figures,
        recall_rows=words.recall_rows(figures.recall) if figures else [],
        charts=_private_charts(figures),
        curves=_curves(figures, data.plan),
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
        "power": evidence.get("power", {}),
        "tested": tested(evidence),
        "noticing": noticing(evidence),
        "silent": [attacks.title(t) for t in tested(evidence) if t not in noticing(evidence)],
        "guess_chart": _guess_chart(subjects),
        "exposure_charts": _exposure_charts(subjects),
    }


def _cell(subjects: Mapping[str, Any], key: str, who: str) -> dict[str, str]:
    part: Mapping[str, Any] | None = (subjects.get(who) or {}).get(key)
    word, kind = attacks.on_target(subjects, key) if who == "target" else words.outcome(part, who)
    said = _said(key, part, who) if part else ""
    return {"who": words.SUBJECTS[who][0], "word": word, "kind": kind, "figures": said}


_LIMITS = ("needed_strict", "ceiling_bits", "applicable")


def _said(key: str, part: Mapping[str, Any], who: str) -> str:
    """The figures of a test; its limits stand beside the released model alone, which made the
    promise."""
    own = part if who == "target" else {k: v for k, v in part.items() if k not in _LIMITS}
    say = words.SAY.get(key)
    return say(own) if say else str(part.get("reason", ""))


def _guess_chart(subjects: Mapping[str, Any]) -> Markup | None:
    rows = []
    for who, (name, _) in words.SUBJECTS.items():
        part = (subjects.get(who) or {}).get("gating") or {}
        if part.get("guesses"):
            rows.append((name, part["correct"], part["guesses"], part.get("needed_strict")))
    return charts.guess_chart(rows, title="Right guesses, model by model") if rows else None


def _exposure_charts(subjects: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(Model, its drawing with a sentence) of each model whose secrets were ranked."""
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
        drawn.append((name, {"drawn": chart, "says": words.exposure_shown(part, who)}))
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


def _curves(figures: PrivateFigures | None, plan: Mapping[str, Any]) -> list[curves.Curve]:
    if figures is None:
        return []
    recorded = figures.loss_curve, figures.norm_curve, figures.clipped_curve
    return curves.draw(*recorded, clip_norm=plan["max_grad_norm"])


def _private_charts(figures: PrivateFigures | None) -> dict[str, Markup]:
    if figures is None:
        return {}
    drawn = {}
    if figures.scrubbed:
        rows = sorted(figures.scrubbed.items(), key=lambda row: (-row[1], row[0]))
        drawn["scrubbed"] = charts.bar_list(rows, title="Mentions taken out of the text, by type")
    return drawn
