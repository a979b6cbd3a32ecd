"""What page and model card are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dpmlm.release.gate import Decision


@dataclass(frozen=True)
class PrivateFigures:
    """Figures computed from private text; for the auditor."""

    loss_curve: Sequence[tuple[int, float]] = ()
    """(step, training loss in nats a token); here and below NaN where a step has no number."""
    norm_curve: Sequence[tuple[int, float]] = ()
    """(step, median gradient norm of the units drawn, before clipping)."""
    clipped_curve: Sequence[tuple[int, float]] = ()
    """(step, share of the units drawn that were clipped)."""
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
    base: str = ""
    """What the model was trained from; empty: from random weights."""
    intended_use: str = ""
    """The releaser's words; empty: what the policy says."""
    private: PrivateFigures | None = field(default=None, repr=False)
    """Figures for the auditor alone."""
