"""A ledger for a person to read: `dpmlm ledger show`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpmlm.privacy import Ledger


@dataclass(frozen=True)
class Account:
    """Cap, what is spent and left, and every run."""

    ledger: str
    entries: int
    cap: dict[str, Any]
    spent: dict[str, Any]
    left: dict[str, Any]
    runs: list[dict[str, Any]]

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
            entries=len(ledger.entries),
            cap=cap,
            spent=asdict(ledger.spent()),
            left=asdict(ledger.left()),
            runs=[_shown(ledger.summary(name)) for name in names],
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        rows = [f"{self.ledger}: {self.entries} entries, chain intact"]
        for name in ("cap", "spent", "left"):
            parts = ", ".join(f"{key} {value}" for key, value in getattr(self, name).items())
            rows.append(f"{name:<6} {parts}")
        for run in self.runs:
            rows.append("run    " + ", ".join(f"{key} {value}" for key, value in run.items()))
        return "\n".join(rows)


def _shown(summary: dict[str, Any]) -> dict[str, Any]:
    fields = ("run_id", "epsilon", "delta", "reserved_steps", "charged_steps", "committed_steps")
    return {field: summary[field] for field in fields}
