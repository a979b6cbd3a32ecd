"""Inputs to a data protection impact assessment: what a run knows, and what its owner says."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from dpmlm.release.facts import number
from dpmlm.release.gate import Decision
from dpmlm.release.report import words
from dpmlm.release.report.pointers import HELD

OWNERS = "to be filled in by the controller"
"""Stands where no run can know the answer."""


class Input(NamedTuple):
    """One line of the assessment."""

    name: str
    """What it asks."""
    says: str
    """What this run can say, or `OWNERS`."""
    where: tuple[str, ...] = ()
    """Places of the evidence, as in `pointers`."""


def inputs(
    *,
    statement: Mapping[str, Any],
    training: Mapping[str, Any],
    evidence: Mapping[str, Any],
    decision: Decision,
    found: Iterable[str] | None,
) -> tuple[Input, ...]:
    """The table; `found` are the types that scrubbing found, None in the public copy."""
    unit = statement.get("unit", "unit")
    return (
        Input("purpose of the processing", OWNERS),
        Input("legal basis, necessity and proportionality", OWNERS),
        Input("source of the text, and what people were told", OWNERS),
        Input(
            "categories of personal data",
            HELD if found is None else _categories(found),
            ("docs/data.md#what-is-replaced-and-the-log-of-it",),
        ),
        Input(
            "people concerned",
            f"whoever wrote or is named in the text; the promise is about one {unit} at a time. "
            f"Who they are, and whether they are in special need of protection: {OWNERS}",
            ("statement.unit", "statement.details.adjacency"),
        ),
        Input(
            "recipients",
            words.summary(decision),
            ("decision.policy", "manifest.recipients.consumers"),
        ),
        Input(
            "retention",
            "checkpoints are removed when a training is finished; sealed stages stay in the "
            f"workspace until somebody removes them; the ledger is kept. Periods: {OWNERS}",
            ("docs/architecture.md#what-lies-in-a-workspace",),
        ),
        Input("measures", _measures(statement, training), ("plan.digest", "manifest.files")),
        Input(
            "tests of the measures",
            _tests(evidence, decision),
            ("#every-attack", "evidence.power.status"),
        ),
        Input(
            "residual risk",
            _residual(statement, evidence),
            ("#promise", "statement.not_covered", "docs/claim.md#what-is-thin"),
        ),
    )


def _categories(found: Iterable[str]) -> str:
    named = ", ".join(sorted(found))
    beside = f"Kinds that software does not look for, such as health or beliefs: {OWNERS}"
    return f"found by software: {named or 'none'}. {beside}"


def _measures(statement: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    near = training.get("near_duplicates", "kept")
    duplicates = "kept" if near == "kept" else f"removed from a likeness of {near}"
    epsilon = number(statement.get("epsilon"))
    promise = "no differential privacy"
    if epsilon is not None and epsilon < float("inf"):
        promise = f"differential privacy with an epsilon of {words.shown(epsilon)}"
    return (
        f"scrubbing by policy {training.get('scrub_policy', 'not named')}; near-duplicates "
        f"{duplicates}; {promise}; encryption at rest; a gate that hands out the model's key on "
        "PASS alone"
    )


def _tests(evidence: Mapping[str, Any], decision: Decision) -> str:
    listed = evidence.get("attacks") or ()
    run = sum(entry["status"] == "RUN" for entry in listed)
    caught = ((evidence.get("subjects") or {}).get("target") or {}).get("rejected_by") or ()
    beyond = f"beyond the promise by {', '.join(caught)}" if caught else "none beyond the promise"
    tests = f"{run} of {len(listed)} known attacks run, {beyond}" if listed else "none were run"
    return f"{tests}; verdict {decision.verdict}"


def _residual(statement: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    epsilon = number(statement.get("epsilon"))
    delta = number(statement.get("delta")) or 0.0
    untried = sum(entry["status"] != "RUN" for entry in evidence.get("attacks") or ())
    rest = f"{untried} attacks that were not run, and what the promise does not cover"
    if epsilon is None or epsilon == float("inf"):
        return f"no limit on what the model gives away; beside it {rest}"
    after = words.percent(words.posterior(0.5, epsilon, delta))
    return (
        f"somebody who knows all but one {statement.get('unit', 'unit')}, and thinks it an even "
        f"bet that this one is in the text, can become {after} sure at most; beside it {rest}"
    )
