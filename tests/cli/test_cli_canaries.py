"""`dpmlm audit canaries`: planned for a tokenizer, inserted into a corpus, revealed afterwards."""

import json
import os
import stat

import pytest

from audits.planting.canaries import CanarySet
from audits.planting.families import check_tokenizer
from audits.planting.labels import Labels
from dpmlm.artifacts import SealedFolder, create_keys, load_identity
from dpmlm.tokens import load_tokenizer
from dpmlm.tokens.wordpiece import SPECIALS

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [a + b + c for a in LETTERS[:10] for b in LETTERS[:10] for c in "xyz"]
PLAN = ("audit", "canaries", "plan", "tok", "--out", "c.json", "--commitment", "public.json")
GROUPS = ("--group", "phone:30:4:pipeline", "--group", "rare_suffix:20", "--group", "email:20:16")
INSERT = ("audit", "canaries", "insert", "c.json", "in.jsonl", "out.jsonl")
REVEAL = ("audit", "canaries", "reveal", "c.json", "--commitment", "public.json")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A tokenizer of whole words and characters, public text and a corpus; the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tok").mkdir()
    single = [*LETTERS, *"0123456789()-@.,"]
    pieces = [*SPECIALS, *single, *(f"##{c}" for c in single), *WORDS]
    (tmp_path / "tok/vocab.txt").write_text("\n".join(pieces) + "\n")
    public = [" ".join(WORDS[start : start + 24]) for start in range(0, 280, 3)]
    lines = [json.dumps({"text": text}) for text in public]
    (tmp_path / "public.jsonl").write_text("\n".join(lines) + "\n")
    rows = [{"id": n, "text": f"document {n}", "who": f"p{n}", "more": [n]} for n in range(50)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_planned_inserted_and_revealed(folder, call):
    planned = call(*PLAN, "--count", "40", *GROUPS, "--public", "public.jsonl", "--json")
    assert planned.status == 0, planned.err
    assert json.loads(planned.out)["written"] == ["c.json", "c.labels.json", "public.json"]
    for secret in ("c.json", "c.labels.json"):
        assert stat.S_IMODE(os.stat(secret).st_mode) == 0o600
    secrets = CanarySet.from_json(json.loads((folder / "c.json").read_text()))
    coins = Labels.from_json(json.loads((folder / "c.labels.json").read_text()))
    assert "included" not in (folder / "c.json").read_text()
    whole = secrets.with_labels(coins)
    check_tokenizer(whole, load_tokenizer("tok"))
    public = (folder / "public.json").read_text()
    assert json.loads(public)["commitment"] == whole.commitment
    assert whole.nonce not in public
    assert coins.nonce not in public
    assert all(canary.text[1] not in public for canary in whole.groups[0].canaries)
    inserted = call(*INSERT, "--id", "id", "--person", "who")
    assert inserted.status == 0, inserted.err
    before = (folder / "in.jsonl").read_text().splitlines()
    after = (folder / "out.jsonl").read_text().splitlines()
    assert [line for line in after if line in before] == before
    added = [json.loads(line) for line in after if line not in before]
    exempt = [group for group in whole.every_group if group.arm == "exempt"]
    wanted = {
        f"canary/{canary.id}/{copy}": canary
        for group in exempt
        for canary in coins.included(group.canaries)
        for copy in range(group.copies)
    }
    assert {row["id"] for row in added} == {row["who"] for row in added} == set(wanted)
    assert all(wanted[row["id"]].text[1] in row["text"] for row in added)
    assert {group.copies for group in exempt} == {1, 16}
    places = [place for place, line in enumerate(after) if line not in before]
    assert places != list(range(places[0], places[0] + len(places)))
    assert stat.S_IMODE(os.stat("out.jsonl").st_mode) == 0o600
    first = call(*INSERT[:-1], "raw.jsonl", "--arm", "pipeline", "--id", "id")
    assert first.status == 0, first.err
    raw = [json.loads(line) for line in (folder / "raw.jsonl").read_text().splitlines()]
    phones = coins.included(whole.groups[0].canaries)
    assert sum(str(row["id"]).startswith("canary/g01-") for row in raw) == 4 * len(phones)
    labels = call(*REVEAL, "--json")
    assert labels.status == 0, labels.err
    told = json.loads(labels.out)
    assert told["schema"] == "dpmlm.revealed/1"
    assert {row["id"]: row["included"] for row in told["labels"]} == coins.coins
    assert "phone/4/pipeline" in call(*REVEAL).out
    for text in (planned.out + planned.err, inserted.out + inserted.err, labels.out):
        assert all(canary.text[1] not in text for canary in whole.groups[0].canaries)


def test_a_set_can_be_sealed(folder, call, refused):
    create_keys(folder / "keys")
    sealed = (*PLAN[:5], "sealed", *PLAN[6:], "--count", "4", "--to", "keys/auditor.pub")
    assert call(*sealed).status == 0
    identity = load_identity(folder / "keys/auditor.key")
    whole = CanarySet.read(SealedFolder.open(folder / "sealed", [identity], role="canaries"))
    coins = Labels.read(SealedFolder.open(folder / "sealed", [identity], role="canaries"))
    whole.with_labels(coins)
    for secret in (whole.canaries[0].text[1].encode(), coins.nonce.encode()):
        assert not any(secret in path.read_bytes() for path in (folder / "sealed").iterdir())
    assert not list(folder.glob("*.labels.json"))
    assert "one folder" in refused(*sealed[:5], "other", *sealed[6:], "--labels", "l.json")
    opened = ("--identity", "keys/auditor.key")
    assert call("audit", "canaries", "reveal", "sealed", *REVEAL[4:], *opened).status == 0
    insert = ("audit", "canaries", "insert", "sealed", *INSERT[4:])
    assert call(*insert, *opened).status == 0
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    added = {row["id"].split("/")[1] for row in rows if str(row["id"]).startswith("canary/")}
    assert added == {identifier for identifier, included in coins.coins.items() if included}
    assert all("id" in row for row in rows)
    refused("audit", "canaries", "reveal", "sealed", *REVEAL[4:])


def test_a_set_that_does_not_open_its_commitment_is_refused(folder, call, refused):
    assert call(*PLAN, "--count", "4").status == 0
    value = json.loads((folder / "c.json").read_text())
    value["canaries"][0]["secret"].reverse()
    (folder / "changed.json").write_text(json.dumps(value))
    assert "changed" in refused("audit", "canaries", "reveal", "changed.json", *REVEAL[4:])
    labels = json.loads((folder / "c.labels.json").read_text())
    labels["included"]["c00001"] ^= True
    (folder / "changed.json").write_text(json.dumps(labels))
    other = (*PLAN[:5], "d.json", "--commitment", "other.json")
    assert call(*other, "--count", "5").status == 0
    for verb in (REVEAL, INSERT):
        assert "a label was changed" in refused(*verb, "--labels", "changed.json")
        assert "have 1 of no canary" in refused(*verb, "--labels", "d.labels.json")
        assert "no labels" in refused(*verb, "--labels", "c.json")
        assert "not there" in refused(*verb, "--labels", "nowhere.json")
    assert not (folder / "out.jsonl").exists()
    assert "commitment to" in refused(*REVEAL[:-1], "other.json")


def test_a_commitment_is_the_public_file_and_holds_no_secret(folder, call, refused):
    assert call(*PLAN, "--count", "4").status == 0
    for secret in ("c.json", "c.labels.json"):
        assert "holds secrets or labels" in refused(*REVEAL[:-1], secret)
    (folder / "old.json").write_text(json.dumps({"commitment": "sha256:" + "0" * 64}))
    assert "public file" in refused(*REVEAL[:-1], "old.json")
    for nothing in ("[]", "[1]", "5"):
        (folder / "nothing.json").write_text(nothing)
        assert "public file" in refused(*REVEAL[:-1], "nothing.json")
        assert "no labels" in refused(*REVEAL, "--labels", "nothing.json")
    for words in ((*REVEAL[:3], name, *REVEAL[4:]) for name in ("none.json", "tok")):
        refused(*words)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--group", "iban:5"), "families are"),
        (("--group", "phone"), "FAMILY:COUNT"),
        (("--group", "phone:x"), "FAMILY:COUNT"),
        (("--group", "phone:5:1:exempt:9"), "FAMILY:COUNT"),
        (("--group", "rare_tokens:5:1:pipeline"), "before there is a tokenizer"),
        (("--group", "phone:5", "--group", "phone:6"), "two groups phone/1/exempt"),
        (("--group", "rare_suffix:5"), "public text"),
        (("--to", "none.pub"), "none.pub"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_and_nothing_written(folder, refused, more, named):
    assert named in refused(*PLAN, "--count", "4", *more)
    assert not (folder / "c.json").exists()
    assert not (folder / "public.json").exists()


def test_vocabularies_and_corpora_that_do_not_suffice_are_refused(folder, call, refused):
    pieces = (folder / "tok/vocab.txt").read_text().split("\n")
    (folder / "tok/vocab.txt").write_text("\n".join(pieces[:150]))
    message = refused(*PLAN, "--count", "4")
    assert "words are missing" in message
    (folder / "tok/vocab.txt").write_text("\n".join(pieces))
    assert call(*PLAN, "--count", "4").status == 0
    (folder / "out.jsonl").write_text("mine")
    assert "there already" in refused(*INSERT)
    assert (folder / "out.jsonl").read_text() == "mine"
    assert "there already" in refused(*PLAN, "--count", "4")
    (folder / "in.txt").write_text("text")
    assert "JSON lines" in refused(*INSERT[:4], "in.txt", "o.jsonl")
    (folder / "in.jsonl").write_text('{"id": "canary/c00000/0", "text": "x"}\n')
    assert "such ids" in refused(*INSERT[:5], "o.jsonl", "--id", "id")
    assert "no group of the set has that arm" in refused(
        *INSERT[:5], "o.jsonl", "--arm", "pipeline"
    )
    assert not (folder / "o.jsonl").exists()


@pytest.mark.parametrize(
    "words",
    [
        (*PLAN[:-1], "c.json"),
        (*PLAN[:-1], "./c.labels.json"),
        (*PLAN, "--labels", "c.json"),
        (*PLAN, "--labels", "public.json"),
    ],
)
def test_secrets_labels_and_the_public_file_are_three(folder, refused, words):
    assert "what is secret cannot be public" in refused(*words)
    assert not list(folder.glob("c*.json"))
