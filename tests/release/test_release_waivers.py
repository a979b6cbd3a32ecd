"""Waivers: one rule, one model, one policy, until a date, by somebody else than the signer."""

import json
import shutil
from dataclasses import replace
from datetime import timedelta

import pytest
from signing_again import payload_of, write_envelope
from variants import rest_in_full

from dpmlm.artifacts import (
    canonical_json,
    create_keys,
    load_identity,
    load_signing_key,
    new_identity,
)
from dpmlm.artifacts.rotation import Change
from dpmlm.errors import UserError
from dpmlm.release import bundle as bundles
from dpmlm.release import (
    decide,
    load_policy,
    load_released,
    model_card,
    render_report,
    verify_bundle,
)
from dpmlm.release.gate import Decision
from dpmlm.release.policy import parse_policy
from dpmlm.release.provenance import timestamp
from dpmlm.release.rewrap import plan_bundle
from dpmlm.release.verification import attest_bundle
from dpmlm.release.waivers import load_waiver, sensible_date, sign_waiver

RULE, REASON = "dp.epsilon", "The partner's contract forbids attacks; reviewed in person."
EXPIRES = timedelta(days=30)


@pytest.fixture
def now(now):
    return now.replace(microsecond=0)


@pytest.fixture(scope="session")
def approver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("approver") / "keys"
    create_keys(folder, roles=["approver"])
    return folder


@pytest.fixture
def policy():
    return load_policy("partner")


@pytest.fixture
def sign(approver, policy, model_digest, now):
    def signed(**changed):
        given = {
            "rule": RULE,
            "policy_digest": policy.digest,
            "model_digest": model_digest,
            "reason": REASON,
            "expires": (now + EXPIRES).isoformat(),
            "key": load_signing_key(approver / "approver.key"),
            "now": now,
        }
        return sign_waiver(**{**given, **changed})

    return signed


@pytest.fixture
def trusted(tmp_path, keys, approver):
    """The reader's trusted keys, with the approver's in a folder of its own."""
    folder = tmp_path / "trusted"
    shutil.copytree(keys.trusted, folder)
    (folder / "approver").mkdir()
    shutil.copy(approver / "approver.pub", folder / "approver")
    return folder


@pytest.fixture
def waived(tmp_path, write, facts, policy, sign, now):
    """A bundle that passes but for a rule that was waived; `changed` alters its decision."""

    def written(*waivers, **changed):
        decision = decide(policy, facts, now=now, waivers=waivers or [sign()])
        decision = replace(decision, **changed)
        return write(tmp_path / "waived", facts, policy=policy, decision=decision)

    return written


def signs_anything(monkeypatch):
    """A signer who does not look at what they sign, and states nothing about it."""
    monkeypatch.setattr(bundles, "_agreeing_contents", lambda folder, predicate: None)
    monkeypatch.setattr(bundles, "write_statements", lambda *given: {})


def test_a_waived_rule_makes_a_pass_that_says_so(facts, policy, sign, now):
    waiver = sign()
    assert decide(policy, facts, now=now).verdict == "FAIL"
    decision = decide(policy, facts, now=now, waivers=[waiver])
    assert decision.verdict == "PASS"
    (rule,) = decision.of("waived")
    assert (rule.id, rule.observed) == (RULE, facts["ledger"]["epsilon"])
    assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision
    for part in (REASON, waiver.approver, (now + EXPIRES).isoformat()):
        assert part in rule.waiver


def test_a_second_broken_rule_still_fails(facts, policy, sign, now):
    facts["ledger"]["delta"] = 1e-4
    decision = decide(policy, facts, now=now, waivers=[sign()])
    assert [rule.id for rule in decision.of("fail")] == ["dp.delta"]
    assert decision.verdict == "FAIL"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"rule": "dp.delta"}, "this one is: pass"),
        ({"rule": "dp.epsilom"}, "did you mean dp.epsilon"),
        ({"policy_digest": "sha256:" + "0" * 64}, "another policy"),
        ({"model_digest": "sha256:" + "0" * 64}, "another model"),
        ({"reason": " "}, "1 to 1000 characters"),
        ({"reason": "two\nlines"}, "one line"),
        ({"reason": "x" * 1001}, "1 to 1000 characters"),
        ({"expires": "soon"}, "such as 2027-01-31"),
        ({"expires": "2026-02-30"}, "such as 2027-01-31"),
        ({"expires": "2027-01-31T00:00:00"}, "with a zone"),
        ({"expires": "1999-01-01"}, "that is over"),
        ({"expires": "9999-12-31"}, "a year at most"),
    ],
)
def test_what_a_waiver_cannot_be(facts, policy, sign, now, changed, says):
    with pytest.raises(UserError, match=says):
        decide(policy, facts, now=now, waivers=[sign(**changed)])


def test_a_promise_to_the_public_cannot_be_waived(facts, sign, now):
    policy = load_policy("public")
    with pytest.raises(UserError, match="lets nobody waive it"):
        decide(policy, facts, now=now, waivers=[sign(policy_digest=policy.digest)])


def test_a_day_ends_with_its_last_second_in_utc(now):
    day = (now + timedelta(days=2)).date().isoformat()
    assert sensible_date(day, now).isoformat() == f"{day}T23:59:59+00:00"


def test_what_is_missing_or_undecided_cannot_be_waived(facts, policy, sign, now):
    facts["audit"]["power"]["status"] = "not shown"
    del facts["ledger"]["epsilon"]
    for rule, status in (("audit.power", "inconclusive"), (RULE, "fail")):
        with pytest.raises(UserError, match=f"this one is: {status}"):
            decide(policy, facts, now=now, waivers=[sign(rule=rule)])


def test_it_is_in_force_until_it_expires_and_not_before_it_was_signed(facts, policy, sign, now):
    waiver = sign()
    for days in (0, 30):
        at = now + timedelta(days=days)
        assert decide(policy, facts, now=at, waivers=[waiver]).verdict == "PASS"
    with pytest.raises(UserError, match="it expired at"):
        decide(policy, facts, now=now + EXPIRES + timedelta(seconds=1), waivers=[waiver])
    with pytest.raises(UserError, match="later"):
        decide(policy, facts, now=now - timedelta(days=2), waivers=[waiver])
    with pytest.raises(UserError, match="there are two"):
        decide(policy, facts, now=now, waivers=[waiver, waiver])


def test_a_reader_who_trusts_the_approver_is_told_who_waived_what(waived, trusted, keys, now):
    folder = waived()
    found = verify_bundle(folder, trusted, now=now)
    assert found.ok, found.findings
    assert found.verdict == "PASS"
    (note,) = found.warnings
    assert note.startswith(f"rule {RULE} does not hold. Waived until ")
    assert REASON in note
    assert "expired" not in note
    later = verify_bundle(folder, trusted, now=now + timedelta(days=31))
    assert later.ok
    assert later.warnings[0].endswith("It has expired since.")


def test_an_approver_decides_again_and_refuses_an_expired_waiver(waived, trusted, approver, now):
    folder, late = waived(), now + EXPIRES + timedelta(days=1)
    key = load_signing_key(approver / "approver.key")
    with pytest.raises(UserError, match="it expired at"):
        attest_bundle(folder, "approver", key, trusted_keys=trusted, now=late)
    passed = attest_bundle(folder, "approver", key, trusted_keys=trusted, now=now)
    assert passed.result == "PASSED"
    # What was decided while the waiver was in force holds afterwards.
    assert verify_bundle(folder, trusted, now=late).ok
    edited = payload_of(folder / passed.file)
    edited["predicate"]["timeVerified"] = timestamp(late.isoformat())
    write_envelope(folder / passed.file, edited, key)
    (finding,) = verify_bundle(folder, trusted, now=late).findings
    assert finding.where == "predicate.timeVerified"
    assert "it expired at" in finding.what


def test_a_reader_who_does_not_trust_the_approver_refuses(waived, trusted, keys, now, approver):
    folder = waived()
    found = verify_bundle(folder, keys.trusted, now=now)
    assert [finding.where for finding in found.findings] == ["waivers"]
    assert "no key is trusted" in found.findings[0].what
    # An approver's key among those that sign bundles could excuse its own.
    shutil.copy(approver / "approver.pub", trusted)
    with pytest.raises(UserError, match="trusted as trainer and as approver"):
        verify_bundle(folder, trusted, now=now)


def test_nobody_waives_a_rule_for_a_bundle_they_sign(waived, trusted, keys, sign, now):
    folder = waived(sign(key=keys.signing))
    (finding,) = verify_bundle(folder, trusted, now=now).findings
    assert "excuses none of its rules" in finding.what
    shutil.copy(keys.trusted / "sign.pub", trusted / "approver")
    with pytest.raises(UserError, match="trusted as trainer and as approver"):
        verify_bundle(folder, trusted, now=now)


def test_a_signed_waiver_that_was_changed_is_found(waived, trusted, sign, now, monkeypatch):
    waiver, other = sign(), sign(reason="Another.")
    forged = {**other.envelope, "signatures": waiver.envelope["signatures"]}
    folder = waived(replace(other, envelope=forged))
    (finding,) = verify_bundle(folder, trusted, now=now).findings
    assert "a signature does not match" in finding.what


@pytest.mark.parametrize(
    "fault",
    rest_in_full(["late", "undated", "none", "twice", "another", "sentence"], ["none"]),
)
def test_a_decision_that_its_waivers_do_not_make_is_found(
    waived, trusted, facts, policy, sign, now, monkeypatch, fault
):
    waiver = sign()
    rules = decide(policy, facts, now=now, waivers=[waiver]).rules
    lied = tuple(replace(rule, waiver="Waived." if rule.waiver else None) for rule in rules)
    changed = {
        "late": {"decided": (now + timedelta(days=31)).isoformat()},
        "undated": {"decided": "yesterday"},
        "none": {"waivers": ()},
        "twice": {"waivers": (waiver.envelope,) * 2},
        "another": {"waivers": (sign(model_digest="sha256:" + "0" * 64).envelope,)},
        "sentence": {"rules": lied},
    }[fault]
    with pytest.raises(UserError, match=r"decision\.json"):
        waived(waiver, **changed)
    signs_anything(monkeypatch)
    found = verify_bundle(waived(waiver, **changed), trusted, now=now)
    assert found.findings
    assert {finding.file for finding in found.findings} == {"decision.json"}


def test_a_private_rule_can_be_waived_and_its_figure_stays_withheld(
    tmp_path, write, facts, sign, trusted, now, monkeypatch
):
    text = load_policy("internal").text + (
        "  # Recall.\n  - id: scrub.all\n    title: t\n    metric: scrub.recall.all\n"
        "    min_rate: 0.9\n    why: w\n"
    )
    policy = parse_policy(text.encode(), name="p")
    facts["scrub"] = {"recall": {"all": {"found": 10, "of": 400}}}
    waiver = sign(rule="scrub.all", policy_digest=policy.digest)
    decision = decide(policy, facts, now=now, waivers=[waiver])
    assert decision.verdict == "PASS"
    (rule,) = decision.public().of("waived")
    assert rule.observed is None
    assert rule.waiver == waiver.sentence
    # The claim of the fixtures excludes no verdict, which is found as well.
    signs_anything(monkeypatch)
    for waivers, files in ((decision.waivers, set()), ((), {"decision.json"})):
        told = replace(decision, waivers=waivers)
        folder = write(tmp_path / f"b{len(waivers)}", facts, policy=policy, decision=told)
        found = verify_bundle(folder, trusted, now=now).findings
        assert {finding.file for finding in found} - {"statement.json"} == files


def test_the_pages_name_each_waiver(report_data, facts, policy, sign, now):
    waiver = sign()
    decision = decide(policy, facts, now=now, waivers=[waiver])
    data = report_data(decision=decision)
    for page in (render_report(data, private=False), model_card(data)):
        assert "rules hold; 1 does not, and an approver waived it" in page
        assert waiver.approver in page
        assert waiver.expires.isoformat() in page
        assert "reviewed in person" in page
    plain = render_report(report_data(), private=False)
    assert "approver waived it for this model. The" not in plain
    assert "where none is named there, none was given" in " ".join(plain.split())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-2],
        lambda data: data + b" ",
        lambda data: b"[" * 60000,
        lambda data: b"\n" * 1_000_000,
        lambda data: b'{"payload": "e30="}\n',
        lambda data: b"null\n",
        lambda data: b"\xff",
        lambda data: data.replace(b'"payload":"', b'"payload":"A'),
    ],
)
def test_a_file_that_is_no_waiver_is_refused(tmp_path, sign, spoil):
    path = tmp_path / "w.json"
    data = canonical_json(dict(sign().envelope)) + b"\n"
    path.write_bytes(data)
    assert load_waiver(path).rule == RULE
    path.write_bytes(spoil(data))
    with pytest.raises(UserError, match="no whole waiver"):
        load_waiver(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_waiver(tmp_path / "none.json")


def test_nobody_new_gets_a_model_whose_waiver_expired(waived, trusted, keys, now):
    folder, late = waived(), now + EXPIRES + timedelta(seconds=1)
    trainer, more = load_identity(keys.folder / "trainer.key"), new_identity(role="consumer")
    added = Change(add=(more.recipient,))
    with pytest.raises(UserError, match=rf"waiver of {RULE} that expired"):
        plan_bundle(folder, [trainer], added, keys.signing, now=late)
    # Whoever has it keeps it, under another key too.
    heir = Change(replace=((keys.consumer.key_id, more.recipient),))
    for change in (heir, Change(add=(keys.consumer_pub,))):
        plan_bundle(folder, [trainer], change, keys.signing, now=late)
    decision = (folder / "decision.json").read_bytes()
    told = json.loads(decision) | {"waivers": []}
    (folder / "decision.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="not what was signed"):
        plan_bundle(folder, [trainer], added, keys.signing, now=late)
    (folder / "decision.json").write_bytes(decision)
    plan_bundle(folder, [trainer], added, keys.signing, now=now).write()
    with pytest.warns(UserWarning, match=rf"rule {RULE} does not hold. Waived until"):
        load_released(folder, identity=more, trusted_keys=trusted)
