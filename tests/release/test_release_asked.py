"""Whose policy a bundle was judged by: its digest decides, whatever it calls itself."""

import json
import shutil

import pytest

from dpmlm.errors import IntegrityError, UserError
from dpmlm.pipeline.wording import verification_text
from dpmlm.release import Outside, load_policy, load_released, verify_bundle
from dpmlm.release.asked import told_policy
from dpmlm.release.policy import parse_policy, policy_names
from dpmlm.release.verification import attest_bundle

ONE_RULE = b"""policy: internal/v1
summary: Anybody may open it.
require:
  - {id: dp.unit, title: t, metric: plan.unit, equals: person, why: w}
"""


@pytest.fixture
def lenient():
    """A policy of one rule that bears the name of a shipped one."""
    return parse_policy(ONE_RULE, name="p")


@pytest.fixture
def posing(tmp_path, write, facts, lenient):
    """A bundle that was judged by it, signed and sound else."""
    return write(tmp_path / "posing", facts, policy=lenient)


def test_the_policy_is_named_with_its_digest(bundle, check):
    found, internal = check(bundle), load_policy("internal")
    assert (found.policy, found.warnings) == ("internal/v1", ())
    told = json.loads(json.dumps(found.to_json()))
    assert (told["policy"], told["policy_digest"]) == ("internal/v1", internal.digest)
    assert told["run_id"] == "run"
    statement = json.loads((bundle / "decision.json").read_text())
    assert statement["policy"] == told["policy"]
    assert f"judged by policy internal/v1, {internal.digest}" in verification_text(found)


def test_a_policy_that_bears_a_shipped_name_only_is_told_aloud(posing, check, keys, lenient):
    found = check(posing)
    assert (found.ok, found.verdict) == (True, "PASS")
    (warning,) = found.warnings
    assert "calls itself internal/v1, and is another" in warning
    assert lenient.digest in warning
    assert f"WARNING: {warning}" in verification_text(found)
    with pytest.warns(UserWarning, match="calls itself internal/v1, and is another"):
        load_released(posing, identity=keys.consumer, trusted_keys=keys.trusted)


def test_a_policy_of_ones_own_is_a_note_and_shipped_ones_are_none():
    own = parse_policy(ONE_RULE.replace(b"internal/v1", b"hospital/v3"), name="p")
    warnings, (note,) = told_policy(own)
    assert not warnings
    assert "hospital/v3 is none of those that are shipped" in note
    assert own.digest in note
    for name in policy_names():
        assert told_policy(load_policy(name)) == ([], [])


def test_whoever_asks_for_a_policy_gets_that_one(posing, bundle, keys, now, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_bytes(ONE_RULE)

    def asked(folder, policy):
        return verify_bundle(folder, keys.trusted, now=now, outside=Outside(policy=policy))

    assert asked(bundle, "internal").ok
    assert asked(posing, own).ok
    for folder, policy in ((posing, "internal"), (bundle, own), (bundle, "partner")):
        (finding,) = asked(folder, policy).findings
        assert finding.file == "policy.yaml"
        assert "is asked for" in finding.what
    with pytest.raises(UserError, match="neither a file nor one of"):
        asked(bundle, "internl")
    with pytest.raises(IntegrityError, match="is asked for"):
        load_released(posing, identity=keys.consumer, trusted_keys=keys.trusted, policy="internal")


def test_nobody_countersigns_another_policy_than_they_ask_for(posing, keys, now, tmp_path):
    from dpmlm.artifacts import create_keys, load_signing_key

    create_keys(tmp_path / "approver", roles=["approver"])
    trusted = shutil.copytree(keys.trusted, tmp_path / "trusted")
    (trusted / "approver").mkdir()
    shutil.copy(tmp_path / "approver/approver.pub", trusted / "approver")
    key = load_signing_key(tmp_path / "approver/approver.key")
    with pytest.raises(IntegrityError, match="is asked for"):
        attest_bundle(posing, "approver", key, trusted_keys=trusted, now=now, policy="internal")
    assert len(list((posing / "attestations").iterdir())) == 3
