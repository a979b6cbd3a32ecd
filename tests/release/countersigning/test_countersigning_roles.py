"""Nobody signs in two roles, or in one in which nobody trusts them."""

import shutil

import pytest
from signing_again import payload_of, write_envelope

from dpmlm.errors import IntegrityError, UserError
from dpmlm.release import load_released, verify_bundle


@pytest.mark.parametrize("role", ["auditor", "approver"])
def test_nobody_signs_in_another_role(bundle, sign, judge, people, keys, role):
    findings = judge(bundle)
    others = [key for name, key in people.keys.items() if name != role]
    for key in others:
        with pytest.raises(UserError, match=f"as {role}: it is trusted as ") as refusal:
            sign(bundle, role, key=key)
        assert f"sign with a key of the {role}'s own" in str(refusal.value)
        assert ".pub" not in str(refusal.value)
    with pytest.raises(UserError, match="nobody trusts it yet") as refusal:
        sign(bundle, "approver", key=people.keys["approver"], trusted=keys.trusted)
    assert str(keys.trusted / "approver") in str(refusal.value)
    assert len(list((bundle / "attestations").iterdir())) == 3
    # And whoever writes such a file by hand is found.
    payload = payload_of(bundle / sign(bundle, role).file)
    for key in others:
        path = bundle / f"attestations/{role}-{key.key_id}.dsse.json"
        write_envelope(path, payload, key)
        (finding,) = findings()
        assert finding.file == f"attestations/{path.name}"
        assert "signs nothing as" in finding.what
        path.unlink()
    path = bundle / f"attestations/{role}-{people.keys[role].key_id}.dsse.json"
    write_envelope(path, payload, *others)  # under the name of the right key
    (finding,) = findings()
    assert "envelope signed by" in finding.where
    write_envelope(path, payload, people.keys[role], others[0])
    assert findings()


def test_a_reader_who_trusts_nobody_in_the_role_is_told_where_to_put_the_key(signed, keys, now):
    findings = verify_bundle(signed.folder, keys.trusted, now=now).findings
    (finding,) = [one for one in findings if one.file.endswith(signed.approver.name)]
    assert str(keys.trusted / "approver") in finding.next_step
    with pytest.raises(IntegrityError, match="is not trusted as approver"):
        load_released(signed.folder, identity=keys.consumer, trusted_keys=keys.trusted)


@pytest.mark.parametrize(("one", "other"), [("", "auditor"), ("", "approver"),
                                            ("auditor", "approver")])  # fmt: skip
def test_one_key_in_two_roles_is_refused(bundle, people, tmp_path, now, one, other):
    trusted = shutil.copytree(people.trusted, tmp_path / "trusted")
    shutil.copy(next((trusted / one).glob("*.pub")), trusted / other / "again.pub")
    with pytest.raises(UserError, match=r"it is trusted as (trainer|auditor) and as "):
        verify_bundle(bundle, trusted, now=now)
