"""The ledgers of tests/formats/ledger: what each comes to, and those that must be refused."""

import json
import re
from pathlib import Path

import pytest

from dpmlm.errors import IntegrityError
from dpmlm.privacy import Ledger, PartitionSelection
from dpmlm.privacy.balance import _KINDS

FILES = sorted((Path(__file__).parents[1] / "formats/ledger").glob("*.json"))
PAGE = Path(__file__).parents[2] / "docs/ledger.md"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_is_read_as_it_says(path: Path, file: Path) -> None:
    vector = json.loads(file.read_text())
    path.write_text(vector["ledger"])
    if not vector["valid"]:
        with pytest.raises(IntegrityError, match=f"(?s){vector['error']}"):
            Ledger.open(path).verify()
        return
    summary = Ledger.open(path).summary(vector["run"])
    for field in ("claimed_steps", "charged_steps"):
        assert summary[field] == vector[field], field


def lines(file: Path) -> list[dict[str, object]]:
    """Of a ledger that has every field."""
    vector = json.loads(file.read_text())
    sound = vector["valid"] and file.stem != "without-from-attempt"
    return [json.loads(line) for line in vector["ledger"].splitlines()] if sound else []


def test_both_sorts_are_there() -> None:
    valid = [json.loads(file.read_text())["valid"] for file in FILES]
    assert min(valid.count(True), valid.count(False)) > 5


def test_the_page_has_a_row_for_each_kind_with_its_fields(ledger: Ledger) -> None:
    rows = {
        line.split("`")[1]: set(re.findall("`([a-z_]+)`", line.rpartition(" | ")[2]))
        for line in PAGE.read_text().splitlines()
        if line.startswith("| `")
    }
    assert sorted(rows) == sorted(_KINDS)
    selection = PartitionSelection(epsilon=1.0, delta=1e-6, words_per_unit=10)
    ledger.spend("metric", epsilon=0.1)
    ledger.spend_selection("words", selection, unit="document", scope="source corpus")
    ledger.choose([], label="public")
    ledger.note_tombstones(2, "sha256:2")
    with ledger.path.open("a") as file:
        file.write('{"kind"')
    written = [*Ledger.open(ledger.path).entries, *(one for file in FILES for one in lines(file))]
    every = {"kind", "number", "previous", "time", "hash"}
    told = {entry["kind"]: set(entry) - every for entry in written}
    assert sorted(set(rows) - set(told)) == ["import"]
    assert {kind: rows[kind] for kind in told} == told
