"""What guidance asks of such a report, clause by clause, and where the answer stands.

A pointer is a dotted path into the public facts of a release (plan, ledger, audit, statement) or a
section of the report. Where nothing in a release answers a clause, the row says so. The list is an
index for a reader; it is no finding about any law.
"""

from typing import NamedTuple


class Clause(NamedTuple):
    """One thing that is asked for."""

    source: str
    """Document that asks."""
    asks: str
    """What for, in a few words."""
    where: tuple[str, ...]
    """Paths of facts, or "#section" of the report; empty where nothing answers it."""
    note: str = ""
    """What the pointer does not say by itself, or who has to answer."""


_NIST = "NIST SP 800-226"
_EDPB = "EDPB Opinion 28/2024"
_HIPAA = "45 CFR 164.514(b)"
_AI_ACT = "EU AI Act, annex IV"

CLAUSES = (
    Clause(_NIST, "epsilon, delta and variant", ("plan.epsilon", "plan.delta", "plan.accountant")),
    Clause(
        _NIST,
        "parameters to convert the promise into another variant",
        ("plan.noise_multiplier", "plan.sample_rate", "plan.steps"),
    ),
    Clause(_NIST, "unit, adjacency, contribution bound", ("plan.unit", "plan.max_grad_norm")),
    Clause(
        _NIST,
        "other releases from the same data",
        ("ledger.epsilon",),
        "Deduplication counts and held-out figures stay with the auditor.",
    ),
    Clause(_NIST, "sampling assumption", ("plan.sampler", "plan.units")),
    Clause(_NIST, "randomness", ("plan.noise_source",)),
    Clause(_NIST, "libraries and versions", ("audit.versions",)),
    Clause(_NIST, "memorisation", ("audit.subjects", "#attacks")),
    Clause(
        _NIST,
        "utility, and its effect on subgroups",
        ("#training",),
        "Held-out figures are in the auditor's copy; subgroups are not measured.",
    ),
    Clause(
        _NIST,
        "why the unit fits text that mentions third parties",
        (),
        "Whoever owns the corpus has to say it: a person who is named in others' documents is not "
        "a unit of their own.",
    ),
    Clause(_NIST, "encryption, keys, access", ("#digests",)),
    Clause(_EDPB, "each attack, run or not run, with its scope", ("audit.attacks", "#attacks")),
    Clause(
        _EDPB,
        "frequency, quantity and quality of tests",
        ("audit.declared", "audit.power"),
        "Tests are evidence of resistance to the attacks that were run.",
    ),
    Clause(_EDPB, "context of release", ("#rules",), "The policy says who may open the model."),
    Clause(
        _HIPAA,
        "the 18 identifiers, with recall of scrubbing",
        (),
        "dpmlm scrub --gold measures it on your text; the auditor's copy shows it. Input to an "
        "expert's determination, and not the determination.",
    ),
    Clause(
        _AI_ACT,
        "training data, test metrics, dated signed logs, limits, changes",
        ("audit.versions", "#digests"),
        "The description of the corpus is its owner's.",
    ),
    Clause("NIST AI RMF, MEASURE 2.10", "privacy risk, examined", ("audit.power", "#attacks")),
)
