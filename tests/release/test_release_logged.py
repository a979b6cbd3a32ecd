"""Bundles in the release log: their own proof, older releases, split views, and the ledger."""

import base64
import json
import shutil

import pytest
from signing_again import sign_manifest

from dpmlm.artifacts import (
    SigningKey,
    canonical_json,
    digest,
    save_signing_key,
    save_verify_key,
)
from dpmlm.artifacts.merkle import root_of
from dpmlm.artifacts.notes import Checkpoint
from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy.journal import GENESIS
from dpmlm.privacy.ledger import Ledger
from dpmlm.release import Outside, load_released, verify_bundle
from dpmlm.release.inventory import MANIFEST, compare, files_of, release_digest, take_inventory
from dpmlm.release.ledger_check import check_included
from dpmlm.release.log.appending import PROOF_FILE, append
from dpmlm.release.log.book import LogCheck, append_bundle, write_proof
from dpmlm.release.log.check import check_logged
from dpmlm.release.log.reading import hashes, read_log
from dpmlm.release.verification import Verification

STRANGER = SigningKey(bytes([9]) * 32)


@pytest.fixture(scope="module")
def made(tmp_path_factory, plan):
    """Two releases of one run in a log, and the ledger; made once, copied by tests."""
    folder = tmp_path_factory.mktemp("logged")
    ledger = Ledger.register(folder / "ledger.jsonl", epsilon=16, delta=1e-5, corpus="notes")
    ledger.reserve("run", plan)
    attempt = ledger.begin_attempt("run")
    for step in range(plan.steps):
        ledger.charge("run", attempt, step)
    ledger.commit("run", plan.steps, attempt)
    return folder


@pytest.fixture
def place(made, tmp_path, write, facts, keys):
    """A folder with ledger, releases.log, the first release and a second one of the same run."""
    if not (made / "first").exists():
        facts["ledger"] = Ledger.open(made / "ledger.jsonl").summary("run")
        for name in ("first", "second"):
            write(made / name, facts, log=made / "releases.log")
            shutil.copy(made / "releases.log.head", made / f"{name}.head")
    folder = tmp_path / "place"
    shutil.copytree(made, folder)
    return folder


@pytest.fixture
def verified(place, keys, now):
    """A function that verifies a bundle of the place beside files of it."""

    def verify(name, **outside):
        beside = Outside(**{what: place / file for what, file in outside.items()})
        return verify_bundle(place / name, keys.trusted, now=now, outside=beside)

    return verify


@pytest.fixture
def seen(place, keys):
    """The same, but for what a bundle says of itself: that takes the accountants half a second."""

    def check(name, **outside):
        bundle, trusted = place / name, keys_of(keys)
        beside = Outside(**{what: place / file for what, file in outside.items()})
        manifest = predicate_of(bundle)
        ledger = json.loads((bundle / "ledger.json").read_text())
        logged, more = check_logged(bundle, manifest, ledger, trusted, beside)
        charged, notes = check_included(ledger, beside.ledger, trusted)
        findings = compare(bundle, manifest["files"]) + logged + charged
        return Verification(not findings, tuple(findings), (*more, *notes), manifest)

    return check


def predicate_of(bundle):
    envelope = json.loads((bundle / MANIFEST).read_bytes())
    return json.loads(base64.b64decode(envelope["payload"]))["predicate"]


def keys_of(keys):
    return {keys.signing.key_id: keys.signing.verify_key}


def whats(found):
    return [finding.what for finding in found.findings]


def test_a_logged_bundle_proves_it_offline(place, verified, keys):
    found = verified("first")
    assert found.ok, found.findings
    proof = json.loads((place / "first" / PROOF_FILE).read_text())
    manifest = found.manifest
    assert PROOF_FILE in manifest["files"]
    assert proof["entry"] == {
        "schema": "dpmlm.log-entry/1",
        "kind": "release",
        "name": "run",
        "run_id": "run",
        "release": release_digest(take_inventory(place / "first")),
        **{field: manifest[field] for field in
           ("model_digest", "plan_digest", "policy_digest", "verdict", "created")},
    }  # fmt: skip
    assert (proof["index"], proof["size"]) == (0, 1)
    assert any("whether a later release superseded it was not checked" in n for n in found.notes)
    load_released(place / "first", identity=keys.consumer, trusted_keys=keys.trusted)


def test_the_log_tells_the_newest_release_from_an_older_one(place, verified, seen):
    newest = verified("second", log="releases.log", head="first.head", ledger="ledger.jsonl")
    assert newest.ok, newest.findings
    assert any("it is entry 2 of 2 of log dpmlm-log/" in note for note in newest.notes)
    assert any("its charges are lines of ledger" in note for note in newest.notes)
    older = seen("first", log="releases.log")
    assert not older.ok
    (what,) = whats(older)
    created = newest.manifest["created"]
    assert what == (f"this is an older release of run run: entry 2 of {created} superseded it")


def test_a_release_of_another_run_supersedes_nothing(place, seen, keys):
    log = read_log(place / "releases.log", keys_of(keys))
    other = log.entries[1] | {"name": "other", "release": "sha256:" + "7" * 64}
    append(place / "releases.log", other, keys.signing, keys_of(keys))
    assert seen("second", log="releases.log").ok


def _again(place, keys, entries, size=None):
    """What the holder of the key can do: write the log anew and sign it."""
    path = place / "releases.log"
    origin = read_log(path, None).checkpoint.origin
    lines = tuple(canonical_json(entry) for entry in entries)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    head = Checkpoint(origin, len(lines), root_of(hashes(lines))).sign([keys.signing])
    path.with_name("releases.log.head").write_bytes(head)


REWRITES = {
    "shrank": (lambda first, second: [first], "the log shrank: it has 1 entry, and had 2"),
    "split": (
        lambda first, second: [first, second | {"verdict": "FAIL"}],
        "the view is split: two heads of 2 entries",
    ),
    "rewritten": (
        lambda first, second: [second, first, second | {"release": "sha256:" + "8" * 64}],
        "the history was rewritten: the first 2 entries",
    ),
}


@pytest.mark.parametrize("case", REWRITES)
def test_a_log_that_was_written_anew_is_found_against_noted_heads(place, seen, keys, case):
    edit, sentence = REWRITES[case]
    path, noted = place / "releases.log", place / "second.head"
    checked = LogCheck.of(path, keys.trusted, [place / "first.head", noted])
    assert (checked.intact, checked.heads, checked.problems) == (True, 2, [])
    _again(place, keys, edit(*read_log(path, None).entries))
    assert LogCheck.of(path, keys.trusted).intact  # without a noted head nobody sees it
    checked = LogCheck.of(path, keys.trusted, [noted])
    assert not checked.intact
    assert sentence in checked.problems[0]
    # The bundle's own head is a noted one, and so is one that its reader noted.
    found = seen("second", log="releases.log")
    assert any(sentence in what for what in whats(found))
    found = seen("first", log="releases.log", head="second.head")
    assert any(sentence in what for what in whats(found))


def test_a_noted_head_alone_is_held_against_the_bundles(place, seen, keys, now):
    assert seen("second", head="second.head").ok
    for bundle, head in (("first", "second.head"), ("second", "first.head")):
        found = seen(bundle, head=head)
        assert found.ok
        assert any("can only be checked with the log" in note for note in found.notes)
    trusted = keys_of(keys)
    origin = read_log(place / "releases.log", trusted).checkpoint.origin
    for head, sentence in (
        (Checkpoint(origin, 2, bytes(32)).sign([keys.signing]), "the view is split"),
        (Checkpoint("dpmlm-log/ffff", 2, bytes(32)).sign([keys.signing]), "is of log dpmlm-log/f"),
        (Checkpoint(origin, 2, bytes(32)).sign([STRANGER]), "none of the trusted keys"),
        (b"a letter\n", "no empty line"),
    ):
        (place / "noted").write_bytes(head)
        found = seen("second", head="noted")
        assert not found.ok
        assert sentence in whats(found)[0]
        checked = LogCheck.of(place / "releases.log", keys.trusted, [place / "noted"])
        assert not checked.intact


def test_files_that_are_not_there_are_the_readers_to_mend(seen):
    for option in ("log", "head", "proof", "ledger"):
        with pytest.raises(UserError, match="there is no such"):
            seen("second", **{option: "nothing"})


def test_a_bundle_that_no_log_holds_is_found_and_can_be_entered(place, seen, keys, write, facts):
    facts["ledger"] = Ledger.open(place / "ledger.jsonl").summary("run")
    write(place / "third", facts)
    assert PROOF_FILE not in files_of(place / "third")
    found = seen("third")
    assert found.ok
    assert any("it holds no proof of a release log" in note for note in found.notes)
    found = seen("third", log="releases.log")
    assert whats(found) == ["it has 2 entries, and none is about this bundle"]
    with pytest.raises(UserError, match="has 2 entries, and none is about it"):
        write_proof(place / "releases.log", place / "third", place / "proof.json")
    signing = keys.folder / "sign.key"
    for added in (True, False):
        entered = append_bundle(place / "releases.log", place / "third", signing, keys.trusted)
        assert (entered.index, entered.size, entered.added) == (2, 3, added)
        assert (entered.signer, entered.former_signers) == (keys.signing.key_id, [])
    save_signing_key(place / "next.key", STRANGER)
    shutil.copytree(keys.trusted, place / "both")
    save_verify_key(place / "both/next.pub", STRANGER.verify_key)
    args = (place / "releases.log", place / "third")
    entered = append_bundle(*args, place / "next.key", place / "both")
    assert f"head signed anew by {STRANGER.key_id}, was {keys.signing.key_id}" in entered.text()
    assert "anew" in append_bundle(*args, signing, place / "both").text()
    assert seen("third", log="releases.log").ok
    write_proof(place / "releases.log", place / "third", place / "proof.json")
    assert seen("third", proof="proof.json").ok
    assert "entry's release" in " ".join(whats(seen("second", proof="proof.json")))
    assert any("superseded" in what for what in whats(seen("second", log="releases.log")))


def test_only_a_bundle_that_verifies_and_a_trusted_key_are_taken(place, keys, tmp_path):
    log, signing = place / "releases.log", keys.folder / "sign.key"
    before = log.read_bytes()
    (place / "second/plan.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"plan\.json"):
        append_bundle(log, place / "second", signing, keys.trusted)
    (tmp_path / "others").mkdir()
    save_verify_key(tmp_path / "others/other.pub", STRANGER.verify_key)
    with pytest.raises(UserError, match="not among the trusted keys"):
        append_bundle(log, place / "first", signing, tmp_path / "others")
    (tmp_path / "twice/approver").mkdir(parents=True)
    for file in ("one.pub", "approver/one.pub"):
        save_verify_key(tmp_path / "twice" / file, keys.signing.verify_key)
    with pytest.raises(UserError, match="it is trusted as"):
        LogCheck.of(log, tmp_path / "twice")
    with pytest.raises(UserError, match="it is trusted as"):
        append_bundle(log, place / "first", signing, tmp_path / "twice")
    assert log.read_bytes() == before


def test_a_bundle_is_not_made_where_its_log_is_broken(place, write, facts):
    log = place / "releases.log"
    log.write_bytes(log.read_bytes().replace(b"PASS", b"FAIL", 1))
    with pytest.raises(IntegrityError, match="not those that its head"):
        write(place / "third", facts, log=log)
    assert not (place / "third").exists()


def test_a_kill_between_entry_and_bundle_leaves_an_entry_that_harms_nobody(
    place, seen, write, facts, monkeypatch
):
    def killed(*_arguments):
        raise KeyboardInterrupt

    facts["ledger"] = Ledger.open(place / "ledger.jsonl").summary("run")
    with monkeypatch.context() as patch:
        patch.setattr("dpmlm.release.bundle._sign", killed)
        with pytest.raises(KeyboardInterrupt):
            write(place / "third", facts, log=place / "releases.log")
    assert not (place / "third").exists()
    assert len(read_log(place / "releases.log", None).entries) == 3
    write(place / "third", facts, log=place / "releases.log")
    found = seen("third", log="releases.log", head="second.head", ledger="ledger.jsonl")
    assert found.ok, found.findings
    assert any("entry 4 of 4" in note for note in found.notes)


LIES = {
    "another entry": (lambda proof: proof["entry"].update(verdict="FAIL"), "does not lead"),
    "another place": (lambda proof: proof.update(index=1), "does not lead"),
    "no proof": (lambda proof: proof.pop("proof"), "no whole dpmlm.log-proof/1"),
}


@pytest.mark.parametrize("case", [*LIES, "of another bundle", "of a strangers log"])
def test_a_signer_whose_proof_does_not_hold_is_found(place, seen, verified, keys, case):
    file = place / "first" / PROOF_FILE
    if case == "of another bundle":
        shutil.copy(place / "second" / PROOF_FILE, file)
        sentence = "its entry's release is"
    elif case == "of a strangers log":
        entry = read_log(place / "releases.log", None).entries[0]
        log, index, _ = append(
            place / "own.log", entry, STRANGER, {STRANGER.key_id: STRANGER.verify_key}
        )
        file.write_text(json.dumps(log.prove(index)))
        sentence = "none of the trusted keys"
    else:
        edit, sentence = LIES[case]
        proof = json.loads(file.read_text())
        edit(proof)
        file.write_text(json.dumps(proof))
    assert not seen("first").ok  # as the file is not what was signed
    sign_manifest(place / "first", keys.signing)
    found = verified("first") if case == "no proof" else seen("first")
    assert not found.ok
    assert any(sentence in what for what in whats(found)), found.findings


def test_the_ledger_holds_what_the_bundle_says_of_it(place, seen, plan):
    found = seen("second", ledger="ledger.jsonl")
    assert found.ok, found.findings
    assert any("its charges are lines of ledger" in note for note in found.notes)
    assert any("--ledger LEDGER" in note for note in seen("second").notes)
    ledger = Ledger.open(place / "ledger.jsonl")
    ledger.choose(["run"], label="public")
    found = seen("second", ledger="ledger.jsonl")
    assert found.ok
    assert any("1 lines of it are newer" in note for note in found.notes)
    ledger.charge("run", ledger.begin_attempt("run", 3), 3)
    found = seen("second", ledger="ledger.jsonl")
    assert whats(found) == ["the run goes on behind the head in ledger.json: charge"]


def _cut(path, last):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:last]))


def _another(path, plan):
    path.unlink()
    ledger = Ledger.register(path, epsilon=16, delta=1e-5, corpus="notes")
    ledger.reserve("run", plan)
    attempt = ledger.begin_attempt("run")
    for step in range(plan.steps):
        ledger.charge("run", attempt, step)
    ledger.commit("run", plan.steps, attempt)


LEDGERS = {
    "cut": (lambda path, plan: _cut(path, 20), "the head in ledger.json, is cut off"),
    "changed": (
        lambda path, plan: path.write_bytes(path.read_bytes().replace(b'"step":4', b'"step":5', 1)),
        "the chain is broken",
    ),
    "another": (_another, "another ledger, or a new history"),
}


@pytest.mark.parametrize("case", LEDGERS)
def test_a_ledger_that_does_not_hold_the_charges_is_found(place, seen, plan, case):
    edit, sentence = LEDGERS[case]
    edit(place / "ledger.jsonl", plan)
    found = seen("second", ledger="ledger.jsonl")
    assert not found.ok
    assert any(sentence in what for what in whats(found)), found.findings


FIGURES = {
    "charged_steps": 19,
    "run_id": "other",
    "plan_digest": "sha256:" + "0" * 64,
    "epsilon": 7.0,
    "attempts": 2,
    "head": None,
    "lineage": {"runs": 1},
}


@pytest.mark.parametrize("field", FIGURES)
def test_figures_that_the_ledger_does_not_say_are_found(place, keys, field):
    told = json.loads((place / "second/ledger.json").read_text())
    path = place / "ledger.jsonl"
    assert check_included(told, path, keys_of(keys))[0] == []
    told[field] = FIGURES[field]
    findings, _ = check_included(told, path, keys_of(keys))
    assert findings
    assert field in {finding.where for finding in findings} or "run 'other'" in findings[0].what


def test_a_ledger_is_replayed_and_not_only_its_chain(place, keys):
    """What somebody without a key can do to an unsigned ledger: halve a cost, hash every line."""
    path = place / "ledger.jsonl"
    told = json.loads((place / "second/ledger.json").read_text())
    head, out = GENESIS, b""
    for line in path.read_bytes().splitlines():
        body = {key: value for key, value in json.loads(line).items() if key != "hash"}
        if body["kind"] == "reserve":
            body["divergence"] /= 2
        body["previous"] = head
        body["hash"] = head = digest(body)
        out += canonical_json(body) + b"\n"
    path.write_bytes(out)
    findings, _ = check_included(told | {"head": told["head"] | {"hash": head}}, path, {})
    assert "the amounts recorded are not those of its plan" in findings[0].what


def test_a_signed_ledger_is_signed_by_a_trusted_key(tmp_path, plan, keys):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger.register(path, epsilon=16, delta=1e-5, corpus="notes", signer=keys.signing)
    ledger.reserve("run", plan)
    told = ledger.summary("run")
    findings, notes = check_included(told, path, keys_of(keys))
    assert findings == []
    assert f"signed by {keys.signing.key_id}" in notes[0]
    findings, _ = check_included(told, path, {STRANGER.key_id: STRANGER.verify_key})
    assert "is not trusted" in findings[0].what
