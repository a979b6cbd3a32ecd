"""Are the figures of a bundle's ledger.json those of the ledger itself?

The ledger is replayed from its first line (`privacy/replay.py`). At the line that ledger.json names
as its head it has to say of the run what ledger.json says, and nothing may be charged to the run
behind that line.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpmlm.artifacts import VerifyKey
from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy.accountants import AccountantFailure
from dpmlm.privacy.balance import Balance
from dpmlm.privacy.journal import Journal, check_signature
from dpmlm.privacy.replay import replay
from dpmlm.privacy.summary import SLACK, summarise
from dpmlm.release.consistency import same
from dpmlm.release.facts import number
from dpmlm.release.inventory import Finding

NAME = "ledger.json"
UNCHECKED = (
    "that its charges are lines of the ledger was not checked: `dpmlm verify BUNDLE --trusted-keys "
    "DIR --ledger LEDGER`"
)
_ASK = "ask the signer for the ledger of this run, or for the bundle again"
_CHARGES = ("charge", "keep", "forgo", "commit")


def check_included(
    told: Mapping[str, Any], path: Path | None, trusted: Mapping[str, VerifyKey]
) -> tuple[list[Finding], list[str]]:
    """Findings and notes on `told`, a bundle's ledger.json, held against the ledger at `path`.

    `trusted` keys (by id) may have signed the ledger's lines. Raises UserError if there is none.
    """
    if path is None:
        return [], [UNCHECKED]
    if not path.is_file():
        raise UserError(f"ledger {path}", "there is no such file", "name the ledger of the corpus")
    try:
        return _compared(told, path, trusted)
    except IntegrityError as error:
        return [Finding(str(path), error.given, error.rule, error.next_step)], []


def _compared(
    told: Mapping[str, Any], path: Path, trusted: Mapping[str, VerifyKey]
) -> tuple[list[Finding], list[str]]:
    head, run_id = told.get("head"), told.get("run_id")
    if not isinstance(head, Mapping) or type(head.get("number")) is not int:
        return [Finding(NAME, "head", "it names no line of a ledger", _ASK)], []
    findings: list[Finding] = []
    length, behind = 0, 0
    balance = Balance(path)
    for entry in Journal(path, lambda entry: None, None).entries():
        replay(entry, balance)
        if balance.key_id is not None:
            check_signature(f"ledger {path}", entry, trusted)
        length = entry["number"]
        if length == head["number"]:
            findings += _at_head(told, entry, balance, path)
        elif length > head["number"]:
            behind += 1
            findings += _charged_later(entry, run_id, path)
    if length < head["number"]:
        what = f"it has {length:,} lines; line {head['number']:,}, the head in {NAME}, is cut off"
        findings.append(Finding(str(path), "end", what, _ASK))
    if findings:
        return findings, []
    signed = f"signed by {balance.key_id}" if balance.key_id else "not signed"
    more = f"; {behind:,} lines of it are newer" if behind else ""
    return [], [f"its charges are lines of ledger {path}, replayed and {signed}{more}"]


def _at_head(
    told: Mapping[str, Any], entry: Mapping[str, Any], balance: Balance, path: Path
) -> list[Finding]:
    """What ledger.json says of the run that the ledger did not say at its head."""
    line = f"line {entry['number']}"
    if entry["hash"] != told["head"].get("hash"):
        what = f"it is not the line that {NAME} names as its head: another ledger, or a new history"
        return [Finding(str(path), line, what, _ASK)]
    if not isinstance(told.get("run_id"), str) or told["run_id"] not in balance.runs:
        what = f"up to there nothing was reserved for run {told.get('run_id')!r:.80}"
        return [Finding(str(path), line, what, _ASK)]
    try:
        replayed = summarise(balance, told["run_id"])
    except AccountantFailure:
        return [Finding(str(path), line, "no claim follows from its lines", _ASK)]
    return [
        Finding(NAME, name, f"it says {told.get(name)}, {path} says {value} at {line}", _ASK)
        for name, value in replayed.items()
        # The accountant's name holds the version of its library, which may be another one here.
        if name != "accountant" and not _agree(name, told.get(name), value)
    ]


def _agree(name: str, told: Any, replayed: Any) -> bool:
    """Equal, but for the fourth digit of an epsilon: another version rounds its grid otherwise."""
    if name == "lineage" and isinstance(told, Mapping):
        rest = {**told, "epsilon": replayed["epsilon"]}
        return _agree("epsilon", told.get("epsilon"), replayed["epsilon"]) and same(rest, replayed)
    one, other = number(told), number(replayed)
    if name == "epsilon" and one is not None and other is not None:
        return one == other or math.isclose(one, other, rel_tol=SLACK)
    return same(told, replayed)


def _charged_later(entry: Mapping[str, Any], run_id: Any, path: Path) -> list[Finding]:
    if entry["kind"] in _CHARGES and entry.get("run_id") == run_id:
        what = f"the run goes on behind the head in {NAME}: {entry['kind']}"
        return [Finding(str(path), f"line {entry['number']}", what, _ASK)]
    return []
