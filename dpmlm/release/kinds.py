"""The kinds of attack that EDPB Opinion 28/2024 names: run or not, and what the tests are worth.

Scope is which attacks of a kind were run, frequency how often, quantity how much was tried, quality
what says that the attack would have worked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpmlm.release import attacks
from dpmlm.release.facts import is_private

KINDS = {
    "membership": "telling whether a text was in the training data",
    "attribute inference": "telling something about a person from the rest of their record",
    "exfiltration": "getting data out by way of the machine that serves the model",
    "regurgitation": "making the model say training text word for word",
    "inversion": "computing training text back from weights or gradients",
    "reconstruction": "putting a person's details together with the model's help",
}
"""Each kind with what it means."""
_ONCE = "once, after training, on one model of one training"


def rows(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a kind, in the order of `KINDS`: attacks that were run, and why others were not."""
    told = attacks.rows(evidence)
    return [_kind(kind, gist, told, evidence) for kind, gist in KINDS.items()]


def _kind(
    kind: str, gist: str, told: Sequence[Mapping[str, Any]], evidence: Mapping[str, Any]
) -> dict[str, Any]:
    mine = [row for row in told if row["kind"] == kind and row.get("evidence") != _CONTROL]
    run = [row for row in mine if row["status"] == "RUN"]
    missing = [f"{row['attack']}: {row['reason']}" for row in mine if row["status"] != "RUN"]
    return {
        "kind": kind,
        "gist": gist,
        "status": "RUN" if run else "NOT RUN",
        "scope": [row["attack"] for row in run],
        "not_run": missing if mine else ["the evidence lists no such attack"],
        "frequency": _frequency(evidence) if run else "",
        "quantity": [f"{_name(row)}: {row['tried']}" for row in run if row["tried"]],
        "quality": [f"{_name(row)}: {_quality(row, evidence)}" for row in run],
    }


_CONTROL = "subjects.control"


def _name(row: Mapping[str, Any]) -> str:
    """The attack without what stands behind it in brackets or after a comma or colon."""
    name = str(row["attack"])
    return min((name.split(sign)[0] for sign in ("(", ",", ":")), key=len).strip()


def _frequency(evidence: Mapping[str, Any]) -> str:
    subjects = evidence.get("subjects") or {}
    names = {"control": "leaky twin", "untrained": "untrained model"}
    others = [said for name, said in names.items() if subjects.get(name)]
    beside = f"; tests of planted secrets on the {' and the '.join(others)} too" if others else ""
    return f"{_ONCE}{beside}"


def _quality(row: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    path = row["evidence"]
    declared = {f"subjects.target.{one}" for one in evidence.get("declared", {}).get("tests", ())}
    if path in declared:
        return _power(path.rpartition(".")[2], evidence)
    if path == "gradients":
        return "held against the plan's own noise, rate and trade-off curve"
    held = "with intervals, against a model that never read the text"
    if not is_private(f"audit.{path}"):
        held = "with intervals, against secrets that were never planted"
    return f"exploratory, outside the error budget, {held}"


def _power(test: str, evidence: Mapping[str, Any]) -> str:
    subjects = evidence.get("subjects") or {}
    control = subjects.get("control")
    if control is None:
        return "not shown: there was no leaky twin to try it on"
    part = control.get(test) or {}
    caught = "it caught the leaky twin" if part.get("rejected") else "it missed the leaky twin"
    untrained = ((subjects.get("untrained") or {}).get(test) or {}).get("rejected")
    spared = {True: "and accused the untrained model", False: "and left the untrained model alone"}
    return f"{caught} {spared[untrained]}" if untrained is not None else caught
