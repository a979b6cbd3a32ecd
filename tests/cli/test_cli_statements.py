"""A run's statements, and `dpmlm release attest` and `verify --require` on its bundle."""

import json
import re
import shutil
from pathlib import Path

import pytest
from small_run import KNOWN_SENTENCE
from statements_peer import naive_subject, opened

from dpmlm.artifacts import SealedFolder, load_identity, load_verify_key
from dpmlm.canonical import digest
from dpmlm.config import load_config
from dpmlm.pipeline.workspace import deciding_settings
from dpmlm.privacy import PrivacyPlan

pytestmark = pytest.mark.xdist_group("finished")
DOCS = Path(__file__).parents[2] / "docs"
BUNDLE = ("work/bundle", "--trusted-keys", "keys/trusted")
AUDITOR = ("--role", "auditor", "--signing-key", "keys/auditor-sign.key")
APPROVER = ("--role", "approver", "--signing-key", "approver/approver.key")
NEED = ("--require", "auditor", "--require", "approver")


def test_provenance_names_the_ciphertext_of_every_stage(copy):
    public = load_verify_key(copy / "keys/sign.pub").public
    whole = opened(copy / "work/bundle/attestations/provenance.dsse.json", public)
    assert whole["subject"] == naive_subject(copy / "work/bundle")
    definition = whole["predicate"]["buildDefinition"]
    named = {
        one["name"]: "sha256:" + one["digest"]["sha256"]
        for one in definition["resolvedDependencies"]
        if "name" in one
    }
    identity = load_identity(copy / "keys/trainer.key")
    for stage in ("corpus", "scrub", "dedup", "tokens", "canaries", "training", "audit"):
        folder = SealedFolder.open(copy / "work" / stage, [identity])
        assert named.pop(f"stage:{stage}") == folder.digest
    training = SealedFolder.open(copy / "work/training", [identity]).manifest
    plan = PrivacyPlan.from_json(json.loads((copy / "work/bundle/plan.json").read_text())).digest
    assert named == {"plan": plan, "code": training["code"]}
    settings = digest(deciding_settings(load_config(copy / "run.yaml")))
    assert definition["externalParameters"]["name"] == "small"
    assert definition["externalParameters"]["settings"] == {"sha256": settings[7:]}
    told = json.dumps(whole)
    assert not [word for word in KNOWN_SENTENCE.split() if len(word) > 5 and word in told]


def test_an_auditor_and_an_approver_countersign_a_run(copy, call, refused):
    def verified(*more):
        called = call("verify", *BUNDLE, *more, "--json")
        return called.status, json.loads(called.out)

    status, found = verified(*NEED)
    assert (status, [one["where"] for one in found["findings"]]) == (1, ["auditor", "approver"])
    assert call("release", "attest", *BUNDLE, *AUDITOR).out.endswith(": WARNED\n")
    assert call("keys", "new", "approver", "--role", "approver").status == 0
    assert "nobody trusts it yet" in refused("release", "attest", *BUNDLE, *APPROVER)
    (copy / "keys/trusted/approver").mkdir()
    shutil.copy(copy / "approver/approver.pub", copy / "keys/trusted/approver")
    called = call("release", "attest", *BUNDLE, *APPROVER, "--json")
    (written,) = json.loads(called.out)["written"]
    assert (copy / written).is_file()
    status, found = verified(*NEED)
    assert (status, found["ok"]) == (0, True)
    page = (DOCS / "provenance.md").read_text()
    table = page[page.index("`countersigned`") :]
    fields = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert [set(one) for one in found["countersigned"]] == [set(fields)] * 2
    assert "note: countersigned by the approver" in call("verify", *BUNDLE).out
    assert "rests on attestations/auditor-" in call("release", "attest", *BUNDLE, *AUDITOR).err
    shutil.copy(copy / "work/bundle/policy.yaml", copy / "mine.yaml")
    shutil.copy(copy / "work/bundle/evidence.json", copy / "theirs.json")
    asked = call("verify", *BUNDLE, "--policy", "mine.yaml", "--evidence", "theirs.json")
    assert asked.status == 0
    assert "note: the evidence is what the auditor's key" in asked.out
    asked = call("verify", *BUNDLE, "--policy", "public")
    assert (asked.status, "public/v1" in asked.out) == (1, True)
    assert "public/v1" in refused("release", "attest", *BUNDLE, *APPROVER, "--policy", "public")
    # A run that stands leaves its bundle and what was said about it as they are.
    assert call("run", "run.yaml").status == 0
    assert verified(*NEED)[0] == 0
    # Whoever does not know the approver is told so; the model opens for nobody then.
    shutil.rmtree(copy / "keys/trusted/approver")
    assert "keys/trusted/approver" in call("verify", *BUNDLE).out
    exported = (*BUNDLE, "--identity", "keys/consumer.key", "--plaintext", "--to", "out")
    assert "is not trusted as approver" in refused("release", "export", *exported)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*BUNDLE, "--role", "trainer", "--signing-key", "keys/sign.key"), "trainer"),
        ((*BUNDLE, "--role", "auditor", "--signing-key", "keys/sign.key"), "the auditor's own"),
        ((*BUNDLE, "--role", "approver", *AUDITOR[2:]), "trusted as auditor"),
        ((*BUNDLE, "--role", "auditor", "--signing-key", "keys/auditor.key"), "signing-key"),
        ((*BUNDLE, *AUDITOR, "--evidence", "none.json"), "cannot be read"),
        ((*BUNDLE, *AUDITOR, "--evidence", "keys/sign.pub"), "another plan"),
        (("none", *BUNDLE[1:], *AUDITOR), "no such folder"),
        (("work/bundle", "--trusted-keys", "work", *AUDITOR), "holds no .pub file"),
    ],
)
def test_what_cannot_be_attested_is_refused(copy, refused, words, says):
    before = sorted(copy.rglob("*"))
    assert says in refused("release", "attest", *words)
    assert sorted(copy.rglob("*")) == before
