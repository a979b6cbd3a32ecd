"""A ledger for a person to read: `dpmlm ledger show` and `dpmlm ledger verify`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpmlm.errors import IntegrityError
from dpmlm.privacy import Ledger


@dataclass(frozen=True)
class Account:
    """Cap, what is spent and left, and every run."""

    ledger: str
    """Where it lies."""
    corpus: str
    """Public name of the corpus."""
    entries: int
    """Lines, the registration included."""
    cap: dict[str, Any]
    """Epsilon and delta that all runs share."""
    spent: dict[str, Any]
    """As `Budget`: epsilon, delta, rdp."""
    left: dict[str, Any]
    """As `Budget`."""
    runs: list[dict[str, Any]]
    """Each with run_id, epsilon, delta and its reserved, charged and committed steps."""

    @classmethod
    def of(cls, path: Path) -> "Account":
        """Read a ledger, its chain checked."""
        ledger = Ledger.open(path)
        ledger.verify()
        epsilon, delta = ledger.cap
        cap = {"epsilon": epsilon, "delta": delta}
        names = dict.fromkeys(e["run_id"] for e in ledger.entries if e["kind"] == "reserve")
        return cls(
            ledger=str(path),
            corpus=ledger.corpus,
            entries=len(ledger.entries),
            cap=cap,
            spent=asdict(ledger.spent()),
            left=asdict(ledger.left()),
            runs=[_shown(ledger.summary(name)) for name in names],
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        rows = [f"{self.ledger}: corpus {self.corpus}, {self.entries} entries, chain intact"]
        rows.append(f"cap    {budget_text(self.cap)}")
        rows.append(f"spent  {budget_text(self.spent)}")
        rows.append(f"left   {budget_text(self.left)}")
        for run in self.runs:
            rows.append(
                f"run    {run['run_id']}: {budget_text(run)}; steps {run['reserved_steps']} "
                f"reserved, {run['charged_steps']} charged, {run['committed_steps']} in the model"
            )
        return "\n".join(rows)


@dataclass(frozen=True)
class LedgerCheck:
    """Whether a ledger's chain holds."""

    ledger: str
    """Where it lies."""
    intact: bool
    """True if every line follows from the one before and makes sense there."""
    entries: int | None
    """Lines; None if the chain is broken."""
    problem: str | None
    """The line that is broken, and how."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        if self.problem:
            return f"NOT INTACT\n  {self.problem}"
        return f"{self.ledger}: {self.entries} entries, chain intact"


def check_ledger(path: Path) -> LedgerCheck:
    """Read a ledger from its first byte; a broken one is an answer, a missing one an error."""
    try:
        ledger = Ledger.open(path)
        ledger.verify()
    except IntegrityError as broken:
        return LedgerCheck(str(path), False, None, str(broken))
    return LedgerCheck(str(path), True, len(ledger.entries), None)


def budget_text(amount: Mapping[str, Any]) -> str:
    """Epsilon, delta and, where it is known, the divergence that the ledger adds up."""
    epsilon = amount["epsilon"]
    shown = epsilon if isinstance(epsilon, str) else f"{epsilon:.4g}"
    text = f"epsilon {shown}, delta {amount['delta']:.3g}"
    return f"{text} (Renyi divergence {amount['rdp']:.4g})" if "rdp" in amount else text


def _shown(summary: dict[str, Any]) -> dict[str, Any]:
    fields = ("run_id", "epsilon", "delta", "reserved_steps", "charged_steps", "committed_steps")
    return {field: summary[field] for field in fields}
