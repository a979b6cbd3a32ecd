"""A run's ledger, and a ledger for a person to read: `dpmlm ledger show` and `ledger verify`."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpmlm.artifacts import load_trusted_keys
from dpmlm.config import LedgerConfig, shortened
from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy import Ledger, Signer, rounded_up


@dataclass(frozen=True)
class Account:
    """Cap, what is spent and left, and every run."""

    ledger: str
    """Where it lies."""
    corpus: str
    """Public name of the corpus."""
    entries: int
    """Lines, the registration included."""
    head: str
    """Number and hash of the last line: noted elsewhere, a file that was cut is found."""
    signed_by: str | None
    """Id of the key that signs every line; None for an unsigned ledger."""
    cap: dict[str, Any]
    """Epsilon and delta that all runs share."""
    spent: dict[str, Any]
    """As `Budget`: epsilon, delta, rdp."""
    left: dict[str, Any]
    """As `Budget`."""
    imports: list[dict[str, Any]]
    """Releases that runs continue: digests of the release, its weights and its plan; run_id and
    corpus; epsilon and delta; and whether its run is one of this ledger (here), so that it was
    charged nothing more."""
    runs: list[dict[str, Any]]
    """Each with run_id; plan, the epsilon and delta it was reserved with; epsilon and delta that
    may be claimed for it, and whether by its own plan or by the filter over all runs (basis);
    its reserved, charged and committed steps; whether every choice among runs of the corpus is
    charged (choices_charged)."""

    @classmethod
    def of(cls, path: Path) -> "Account":
        """Read a ledger, its chain checked."""
        ledger = Ledger.open(path)
        ledger.verify()
        epsilon, delta = ledger.cap
        cap = {"epsilon": epsilon, "delta": delta}
        plans = {e["run_id"]: e["plan"] for e in ledger.entries if e["kind"] == "reserve"}
        return cls(
            ledger=str(path),
            corpus=ledger.corpus,
            entries=len(ledger.entries),
            head=f"{ledger.head['number']}:{ledger.head['hash']}",
            signed_by=ledger.key_id,
            cap=cap,
            spent=asdict(ledger.spent()),
            left=asdict(ledger.left()),
            imports=ledger.imports,
            runs=[_shown(ledger.summary(name), plan) for name, plan in plans.items()],
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        rows = [f"{self.ledger}: corpus {self.corpus}, {self.entries} entries, chain intact"]
        rows.append(f"head   {self.head}, {_signature(self.signed_by)}")
        rows.append(f"cap    {budget_text(self.cap)}")
        rows.append(f"spent  {budget_text(self.spent)}")
        rows.append(f"left   {left_text(self.left)}")
        for one in self.imports:
            how = "charged here as a run" if one["here"] else f"charged to corpus {one['corpus']}"
            rows.append(
                f"from   release {one['release'][:23]}, {how}: epsilon "
                f"{rounded_up(one['epsilon'], 4)}, delta {rounded_up(one['delta'], 3)}"
            )
        for run in self.runs:
            whose = ", of all runs together" if run["basis"] == "filter" else ""
            if not run["choices_charged"]:
                whose += ", NOT counting a choice among runs by private text"
            rows.append(
                f"run    {run['run_id']}: plan {budget_text(run['plan'])}; "
                f"claim {budget_text(run)}{whose}; steps {run['reserved_steps']} "
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
    signed_by: str | None
    """Id of the trusted key whose signature every line carries; None where none was asked for."""
    problem: str | None
    """The line that is broken, and how."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        if self.problem:
            return f"NOT INTACT\n  {self.problem}"
        signed = f", {_signature(self.signed_by)}" if self.signed_by else ""
        return f"{self.ledger}: {self.entries} entries, chain intact{signed}"


def check_ledger(
    path: Path, *, trusted_keys: Path | None = None, head: str | None = None
) -> LedgerCheck:
    """Read a ledger from its first byte; a broken one is an answer, a missing one an error.

    With `trusted_keys`, a folder of public keys, one of them must have signed every line; with
    `head`, as `Account` tells it, that line must still stand.
    """
    trusted = load_trusted_keys(trusted_keys) if trusted_keys else None
    noted = _noted(head) if head is not None else None
    try:
        ledger = Ledger.open(path)
        ledger.verify(trusted=trusted, head=noted)
    except IntegrityError as broken:
        return LedgerCheck(str(path), False, None, None, str(broken))
    signed_by = ledger.key_id if trusted else None
    return LedgerCheck(str(path), True, len(ledger.entries), signed_by, None)


def _noted(head: str) -> dict[str, Any]:
    number, _, found = head.partition(":")
    if not re.fullmatch(r"[0-9]{1,15}:sha256:[0-9a-f]{64}", head):
        raise UserError(
            f"head {shortened(head)}",
            "a head is NUMBER:sha256:HASH",
            "copy it from `dpmlm ledger show`",
        )
    return {"number": int(number), "hash": found}


def _signature(key_id: str | None) -> str:
    return f"every line signed by {key_id}" if key_id else "not signed"


def open_ledger(config: LedgerConfig, signer: Signer | None = None) -> Ledger:
    """The registered ledger of the corpus, whose cap must be the run file's.

    `signer` signs what is written to it, if it was registered signed.
    """
    if not config.path.exists():
        raise UserError(
            f"ledger {config.path}",
            "no corpus is registered there, and a cap is set before the first run",
            f"`dpmlm ledger register {config.path} --epsilon {config.cap.epsilon:g} "
            f"--delta {config.cap.delta:g}`, or `dpmlm init` in the run file's folder",
        )
    ledger = Ledger.open(config.path)
    if ledger.cap != (config.cap.epsilon, config.cap.delta):
        raise UserError(
            f"ledger.cap of epsilon {config.cap.epsilon:g}, delta {config.cap.delta:g}",
            f"{config.path} was registered with epsilon {ledger.cap[0]:g}, "
            f"delta {ledger.cap[1]:g}, and a cap is never edited",
            "write the registered cap into the run file",
        )
    return ledger.sign_with(signer) if signer else ledger


def budget_text(amount: Mapping[str, Any]) -> str:
    """Epsilon, delta and, where it is known, the divergence that the ledger adds up."""
    epsilon = amount["epsilon"]
    text = f"epsilon {epsilon if isinstance(epsilon, str) else rounded_up(epsilon, 4)}"
    if "delta" in amount:
        text += f", delta {rounded_up(amount['delta'], 3)}"
    return f"{text} (Renyi divergence {amount['rdp']:.4g})" if "rdp" in amount else text


def left_text(amount: Mapping[str, Any]) -> str:
    """What is left of a cap; no run spends its delta column, whatever the run's own delta."""
    text = budget_text({"epsilon": amount["epsilon"], "rdp": amount["rdp"]})
    return f"{text}; delta {amount['delta']:.3g} for selection by a threshold"


def _shown(summary: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    fields = ("run_id", "epsilon", "delta", "basis", "choices_charged")
    steps = ("reserved_steps", "charged_steps", "committed_steps")
    own = {"epsilon": plan["epsilon"], "delta": plan["delta"]}
    return {
        **{field: summary[field] for field in fields},
        "plan": own,
        **{field: summary[field] for field in steps},
    }
