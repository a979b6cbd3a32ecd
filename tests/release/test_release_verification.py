"""A bundle that was touched, signed by a stranger or contradicts itself is refused, by name."""

import base64
import json
import random
import shutil
from datetime import timedelta

import pytest

from dpmlm.artifacts import (
    SealedFolder,
    canonical_json,
    load_identity,
    new_identity,
    new_signing_key,
    sign_envelope,
)
from dpmlm.artifacts.chunks import HEADER_BYTES, SEALED_CHUNK_BYTES
from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy.statement import statement
from dpmlm.release import load_policy, load_released, verify_bundle
from dpmlm.release.facts import Missing, find
from dpmlm.release.gate import not_covered
from dpmlm.release.inventory import MANIFEST, PAYLOAD_TYPE, files_of, take_inventory

FILES = [
    "MODEL_CARD.md",
    "bom.cdx.json",
    "decision.json",
    "evidence.json",
    "ledger.json",
    "manifest.dsse.json",
    "model/config.sealed",
    "model/manifest.sealed",
    "model/recipients.json",
    "model/tokenizer.sealed",
    "model/weights.sealed",
    "plan.json",
    "policy.yaml",
    "report.html",
    "statement.json",
    "training.json",
]


def _flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << (offset % 7)
    path.write_bytes(data)


def _sign_again(folder, key, edit=lambda predicate: None):
    """What a signer does who means it: list the files as they are now and sign."""
    envelope = json.loads((folder / MANIFEST).read_bytes())
    payload = json.loads(base64.b64decode(envelope["payload"]))
    files = take_inventory(folder)
    payload["predicate"]["files"] = files
    payload["subject"] = [
        {"name": name, "digest": {"sha256": record["digest"].removeprefix("sha256:")}}
        for name, record in sorted(files.items())
    ]
    edit(payload["predicate"])
    (folder / MANIFEST).write_bytes(canonical_json(sign_envelope(payload, PAYLOAD_TYPE, [key])))


def _edit_json(path, edit):
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def test_the_files_of_a_bundle(bundle):
    assert files_of(bundle) == sorted(FILES)


def test_verifying_needs_no_decryption_key(bundle, check, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a private key was asked for")

    monkeypatch.setattr("dpmlm.artifacts.keys.load_identity", refuse)
    monkeypatch.setattr("dpmlm.artifacts.identities.Identity.unwrap", refuse)
    assert check(bundle).ok


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_in_any_file_is_found_and_named(name, bundle, check):
    path = bundle / name
    whole = path.read_bytes()
    generator = random.Random(name)
    for offset in {0, len(whole) // 2, len(whole) - 1, generator.randrange(len(whole))}:
        _flip(path, offset)
        findings = check(bundle).findings
        assert [finding.file for finding in findings] == [name]
        _assert_place(findings[0].where, name, offset)
        path.write_bytes(whole)
    assert check(bundle).ok


def _assert_place(where, name, offset):
    """The range that a finding names holds the byte that was changed."""
    if name == MANIFEST:
        return
    first, last = where.split("bytes ")[1].split(" (")[0].split(" to ")
    assert int(first) <= offset <= int(last)
    if name.endswith(".sealed"):
        chunk = (offset - HEADER_BYTES) // SEALED_CHUNK_BYTES
        assert where.startswith("header" if offset < HEADER_BYTES else f"chunk {chunk},")


def test_every_header_byte_of_every_sealed_file(bundle, check):
    for path in sorted((bundle / "model").glob("*.sealed")):
        whole = path.read_bytes()
        for offset in range(HEADER_BYTES):
            _flip(path, offset)
            findings = check(bundle).findings
            assert [finding.file for finding in findings] == [f"model/{path.name}"]
            assert findings[0].where == f"header, bytes 0 to {HEADER_BYTES - 1}"
            path.write_bytes(whole)


def test_every_byte_of_the_manifest(bundle, check):
    path = bundle / MANIFEST
    whole = path.read_bytes()
    offsets = [*range(40), *range(len(whole) - 200, len(whole))]
    offsets += random.Random(1).sample(range(len(whole)), 60)
    for offset in offsets:
        for bit in (1, 0x20):  # 0x20 turns a blank into NUL and letters into their other case
            changed = bytearray(whole)
            changed[offset] ^= bit
            path.write_bytes(changed)
            assert [finding.file for finding in check(bundle).findings] == [MANIFEST], offset
    for more in (b" ", b"\n", b"{}"):
        path.write_bytes(whole + more)
        assert not check(bundle).ok


@pytest.mark.parametrize(
    ("changes", "cuts"), [(36, 4), pytest.param(10_000, 1_000, marks=pytest.mark.full)]
)
def test_random_changes_and_truncations(bundle, check, changes, cuts):
    seed = 20261120
    print(f"seed {seed}")
    generator = random.Random(seed)
    sizes = {name: (bundle / name).stat().st_size for name in FILES}
    for number in range(changes + cuts):
        name = generator.choices(FILES, weights=[sizes[name] for name in FILES])[0]
        whole = (bundle / name).read_bytes()
        offset = generator.randrange(len(whole))
        if number < changes:
            _flip(bundle / name, offset)
        else:
            (bundle / name).write_bytes(whole[:offset])
        findings = check(bundle).findings
        assert [finding.file for finding in findings] == [name], (name, offset)
        if number < changes:
            _assert_place(findings[0].where, name, offset)
        (bundle / name).write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_removed_truncated_and_renamed_files(name, bundle, check):
    path = bundle / name
    whole = path.read_bytes()
    path.unlink()
    assert name in [finding.file for finding in check(bundle).findings]
    path.write_bytes(whole[: len(whole) // 2])
    assert name in [finding.file for finding in check(bundle).findings]
    path.write_bytes(whole + b"x")
    assert name in [finding.file for finding in check(bundle).findings]
    path.write_bytes(whole)
    path.rename(path.with_name("other.json"))
    named = [finding.file for finding in check(bundle).findings]
    assert name in named
    if name != MANIFEST:
        assert str(path.with_name("other.json").relative_to(bundle)) in named


def test_added_files_folders_and_links(bundle, check, tmp_path):
    (bundle / "extra.txt").write_text("hello")
    assert [finding.file for finding in check(bundle).findings] == ["extra.txt"]
    (bundle / "extra.txt").unlink()
    (bundle / "model" / "empty").mkdir()
    assert [finding.file for finding in check(bundle).findings] == ["model/empty"]
    (bundle / "model" / "empty").rmdir()
    outside = tmp_path / "plan.json"
    shutil.move(bundle / "plan.json", outside)
    (bundle / "plan.json").symlink_to(outside)
    assert [finding.file for finding in check(bundle).findings] == ["plan.json"]
    (bundle / "plan.json").unlink()
    shutil.move(outside, bundle / "plan.json")
    assert check(bundle).ok
    (bundle / "link").symlink_to(tmp_path)
    assert [finding.file for finding in check(bundle).findings] == ["link"]


def test_swapped_files(bundle, check):
    one, other = bundle / "model/config.sealed", bundle / "model/tokenizer.sealed"
    config, tokenizer = one.read_bytes(), other.read_bytes()
    one.write_bytes(tokenizer)
    other.write_bytes(config)
    assert {finding.file for finding in check(bundle).findings} == {
        "model/config.sealed",
        "model/tokenizer.sealed",
    }


def test_a_bundle_signed_again_by_a_stranger_is_refused(bundle, check, keys):
    stranger = new_signing_key()
    _sign_again(bundle, stranger)
    findings = check(bundle).findings
    assert [finding.file for finding in findings] == [MANIFEST]
    assert stranger.key_id in findings[0].where
    with pytest.raises(IntegrityError):
        load_released(bundle, identity=keys.consumer, trusted_keys=keys.trusted)


def test_a_stranger_under_the_signers_key_id_is_refused(bundle, check, keys):
    _sign_again(bundle, new_signing_key())
    path = bundle / MANIFEST
    envelope = json.loads(path.read_bytes())
    envelope["signatures"][0]["keyid"] = keys.signing.key_id
    path.write_bytes(canonical_json(envelope))
    assert [finding.file for finding in check(bundle).findings] == [MANIFEST]


def test_an_envelope_without_signatures_is_refused(bundle, check):
    path = bundle / MANIFEST
    envelope = json.loads(path.read_bytes())
    envelope["signatures"] = []
    path.write_bytes(canonical_json(envelope))
    assert not check(bundle).ok


def test_a_decision_edited_to_pass_is_found_even_when_the_signer_signs_it(failed, check, keys):
    def lie(decision):
        decision["verdict"] = "PASS"
        for rule in decision["rules"]:
            if rule["id"] == "audit.extraction":
                rule |= {"status": "pass", "observed": 0}

    _edit_json(failed / "decision.json", lie)
    assert [finding.file for finding in check(failed).findings] == ["decision.json"]
    _sign_again(failed, keys.signing, lambda predicate: predicate.update(verdict="PASS"))
    findings = check(failed).findings
    assert {finding.file for finding in findings} == {"decision.json"}
    assert any(finding.where == "verdict" for finding in findings)
    assert any("audit.extraction" in finding.where for finding in findings)


@pytest.mark.parametrize(
    ("file", "edit", "found_in"),
    [
        ("plan.json", lambda plan: plan.update(epsilon=2.0), "plan.json"),
        ("ledger.json", lambda ledger: ledger.update(epsilon=2.0), "statement.json"),
        ("ledger.json", lambda ledger: ledger.update(charged_steps=5), "decision.json"),
        ("ledger.json", lambda ledger: ledger.update(plan_digest="x"), "ledger.json"),
        ("statement.json", lambda claim: claim.update(epsilon=1.0), "statement.json"),
        ("statement.json", lambda claim: claim.update(unit="document"), "statement.json"),
        ("statement.json", lambda claim: claim["not_covered"].pop(1), "statement.json"),
        ("statement.json", lambda claim: claim["not_covered"].append("rain"), "statement.json"),
        ("statement.json", lambda claim: claim.update(not_covered=7), "statement.json"),
        (
            "statement.json",
            lambda claim: claim["epsilon_by_accountant"].update(rdp=0.5),
            "statement.json",
        ),
        ("statement.json", lambda claim: claim.update(charged_steps=7), "statement.json"),
        ("statement.json", lambda claim: claim["lineage"].update(runs=9), "statement.json"),
        ("statement.json", lambda claim: claim["details"].update(adjacency="x"), "statement.json"),
        (
            "statement.json",
            lambda claim: claim["details"]["renyi"][0].update(divergence=0.1),
            "statement.json",
        ),
        ("statement.json", lambda claim: claim.update(sentence="All is well."), "statement.json"),
        ("evidence.json", lambda audit: audit["power"].update(status="no"), "decision.json"),
        ("evidence.json", lambda audit: audit["claim"].update(plan_digest="x"), "evidence.json"),
        (
            "evidence.json",
            lambda audit: audit["subjects"]["target"].update(model_digest="x"),
            "evidence.json",
        ),
        ("evidence.json", lambda audit: audit.clear(), "decision.json"),
        ("decision.json", lambda decision: decision["rules"].pop(), "decision.json"),
        ("decision.json", lambda decision: decision.update(policy="kind/v1"), "decision.json"),
        (
            "decision.json",
            lambda decision: decision["rules"][1]["threshold"].update(max=80.0),
            "decision.json",
        ),
        (
            "decision.json",
            lambda decision: decision["rules"][0].update(private=True),
            "decision.json",
        ),
        ("decision.json", lambda decision: decision.update(more=1), "decision.json"),
    ],
)
def test_contradictions_that_the_signer_signed(bundle, check, keys, file, edit, found_in):
    _edit_json(bundle / file, edit)
    _sign_again(bundle, keys.signing)
    assert found_in in {finding.file for finding in check(bundle).findings}


def fewer_steps(ledger):
    """Of a run whose plan and ledger have more."""
    ledger.update(committed_steps=1, charged_steps=1, reserved_steps=1)


def several_runs(ledger):
    ledger["lineage"]["runs"] = 2


@pytest.mark.parametrize(
    ("edit", "epsilon"),
    [
        (lambda ledger: None, 2.0),
        (fewer_steps, 2.0),
        (several_runs, 2.0),
        (lambda ledger: ledger.update(committed_steps=10**6), None),
        (lambda ledger: ledger.pop("lineage"), None),
        (lambda ledger: ledger.update(basis="filter"), None),
    ],
)
def test_an_epsilon_that_plan_and_ledger_do_not_give_is_found(bundle, check, keys, edit, epsilon):
    """Even where sentence, fields and ledger agree on it and the signer signed it."""
    ledger, claim = (json.loads((bundle / f"{part}.json").read_text())
                     for part in ("ledger", "statement"))  # fmt: skip
    told = f"{claim['epsilon']:.4f}"

    def tell(part):
        part["epsilon"] = epsilon or part["epsilon"]
        if "sentence" in part:
            part["sentence"] = part["sentence"].replace(told, f"{part['epsilon']:.4f}")

    _edit_json(bundle / "ledger.json", edit)
    for part in ("ledger", "statement"):
        _edit_json(bundle / f"{part}.json", tell)
    _sign_again(bundle, keys.signing)
    found = {finding.file for finding in check(bundle).findings}
    assert "ledger.json" in found
    assert ledger["epsilon"] != epsilon


def test_another_policy_under_the_same_decision_is_found(bundle, check, keys):
    path = bundle / "policy.yaml"
    path.write_text(path.read_text().replace("max: 8.0", "max: 80.0"))
    _sign_again(bundle, keys.signing)
    assert not check(bundle).ok


def test_an_added_recipient_is_found(bundle, check, keys):
    auditor = keys.folder / "auditor.key"
    stranger = new_identity()
    sealed = SealedFolder.open(bundle / "model", [load_identity(auditor)])
    sealed.rewrap([*keys.keep, keys.consumer_pub, stranger.recipient])
    assert [finding.file for finding in check(bundle).findings] == ["model/recipients.json"]
    _sign_again(bundle, keys.signing)
    findings = check(bundle).findings
    assert [finding.file for finding in findings] == ["model/recipients.json"]
    assert stranger.key_id in findings[0].what


def test_consumers_listed_without_a_pass_are_found(failed, check, keys):
    sealed = SealedFolder.open(failed / "model", [load_identity(keys.folder / "auditor.key")])
    sealed.rewrap([*keys.keep, keys.consumer_pub])
    edit = {"consumers": [keys.consumer_pub.key_id]}
    _sign_again(failed, keys.signing, lambda predicate: predicate["recipients"].update(edit))
    assert "FAIL" in check(failed).findings[0].what


def test_a_bundle_from_the_future_is_found(bundle, check, now):
    assert check(bundle).ok
    findings = check(bundle, now - timedelta(days=36500)).findings
    assert [finding.where for finding in findings] == ["created"]


PRIVATE = {
    "audit.verbatim.hits.train": "max: 20",
    "audit.gradients.rejected_by": "equals: []",
    "audit.gradients.lower_bound.fdp_one_run": "max: 5",
    "audit.membership.record_level.leaks": "equals: []",
    "audit.identifiers.training.extractable.hits": "max: 90000",
    "audit.survival.groups.1.whole": "max: 90000",
}
"""Metrics of every attack on private figures, and a rule on each that holds."""
NUMBERS = (3.14159265, 31337, 27182)
"""Of the evidence below; no copy for consumers may hold them."""


@pytest.fixture
def asking_privately(facts):
    """A policy with rules on private figures, on facts that have them."""
    from dpmlm.release.policy import parse_policy

    bound, hits, whole = NUMBERS
    facts["audit"] |= {
        "gradients": {
            "label": "private", "applicable": True, "rejected_by": [],
            "lower_bound": {"fdp_one_run": bound},
        },
        "membership": {"label": "private", "record_level": {"leaks": []}},
        "identifiers": {"label": "private", "training": {"extractable": {"hits": hits}}},
        "survival": {
            "label": "private",
            "groups": [{"label": "private", "whole": 0}, {"label": "private", "whole": whole}],
        },
    }  # fmt: skip
    rules = "".join(
        f"  # private\n  - id: mine.{number}\n    title: t\n    why: w\n"
        f"    metric: {metric}\n    {comparison}\n"
        for number, (metric, comparison) in enumerate(PRIVATE.items())
    )
    return parse_policy((load_policy("internal").text + rules).encode(), name="mine")


@pytest.fixture
def said_so(plan, ledger_summary, asking_privately):
    """The statement that names those rules."""
    beyond = not_covered(asking_privately.require)
    return statement(
        plan, what="the weights of the model", summary=ledger_summary, not_covered=beyond
    )


def test_rules_on_private_figures_decide_and_are_noted_as_the_signers(
    tmp_path, write, facts, check, asking_privately, said_so
):
    named = ", ".join(f"mine.{number}" for number in range(len(PRIVATE)))
    assert f"private figures ({named})" in said_so.sentence
    folder = write(tmp_path / "private", facts, policy=asking_privately, statement=said_so)
    found = check(folder)
    assert found.ok, found.findings
    assert found.verdict == "PASS"
    assert len(found.notes) == len(PRIVATE)
    rules = json.loads((folder / "decision.json").read_text())["rules"][-len(PRIVATE) :]
    assert all((rule["status"], rule["observed"]) == ("pass", None) for rule in rules)
    released = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    assert not [number for number in NUMBERS if str(number).encode() in released]
    facts["audit"]["survival"]["groups"][1]["whole"] = 90001
    folder = write(tmp_path / "failed", facts, policy=asking_privately, statement=said_so)
    assert check(folder).verdict == "FAIL"


def test_a_statement_that_does_not_name_private_rules_is_refused(
    tmp_path, write, facts, asking_privately
):
    with pytest.raises(UserError, match="it leaves out: the verdict, as rules of its policy"):
        write(tmp_path / "silent", facts, policy=asking_privately)


def test_what_is_labelled_private_is_found_by_no_other_path(facts, now):
    facts["audit"]["groups"] = [{"label": "private", "claimed_epsilon": 31337}]
    found = find(facts, "audit.groups.0.claimed_epsilon")
    assert isinstance(found, Missing)
    assert "private" in found.reason
    assert find(facts, "audit.attacks.1.status") == "RUN"


def test_no_folder_and_no_keys(tmp_path, keys, now):
    with pytest.raises(UserError, match="no such folder"):
        verify_bundle(tmp_path / "nothing", keys.trusted, now=now)
    with pytest.raises(UserError):
        verify_bundle(tmp_path, tmp_path / "nothing", now=now)
    findings = verify_bundle(tmp_path, keys.trusted, now=now).findings
    assert [finding.file for finding in findings] == [MANIFEST]
