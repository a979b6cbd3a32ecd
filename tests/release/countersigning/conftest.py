"""Auditor and approver, and ways to sign, look and judge."""

import shutil
from types import SimpleNamespace

import pytest
from signing_again import parsed

from dpmlm.artifacts import create_keys, load_signing_key
from dpmlm.release import countersigning, verify_bundle
from dpmlm.release.countersigning import (
    check_countersignatures,
)
from dpmlm.release.trust import load_trust
from dpmlm.release.verification import attest_bundle


@pytest.fixture(scope="session")
def people(keys, tmp_path_factory):
    """Keys of everybody, and a folder of trusted ones that knows each in one role."""
    folder = tmp_path_factory.mktemp("people")
    create_keys(folder / "approver", roles=["approver"])
    shutil.copytree(keys.trusted, folder / "trusted")
    (folder / "trusted/approver").mkdir()
    shutil.copy(folder / "approver/approver.pub", folder / "trusted/approver")
    found = {
        "trainer": keys.signing,
        "auditor": load_signing_key(keys.folder / "auditor-sign.key"),
        "approver": load_signing_key(folder / "approver/approver.key"),
    }
    return SimpleNamespace(trusted=folder / "trusted", keys=found)


@pytest.fixture
def attest(people, now):
    """A function by which somebody countersigns a bundle in a role."""

    def by(folder, role, **changed):
        given = {"key": people.keys[role], "trusted_keys": people.trusted, "now": now} | changed
        return attest_bundle(folder, role, given.pop("key"), **given)

    return by


@pytest.fixture
def look(people, now):
    """A function that verifies a bundle for a reader who trusts all of them."""
    return lambda folder, at=now, **more: verify_bundle(folder, people.trusted, now=at, **more)


@pytest.fixture
def sign(people, now):
    """A function that countersigns as `attest` does, without verifying first."""

    def by(folder, role, *, key=None, trusted=people.trusted, evidence=None):
        given = (parsed(folder), role, key or people.keys[role], load_trust(trusted))
        return countersigning.attest(*given, now=now, evidence=evidence)

    return by


@pytest.fixture
def judge(people, now):
    """A function that judges the countersignatures of a bundle, and nothing else of it."""

    def of(folder):
        bundle, trust = parsed(folder), load_trust(people.trusted)
        return lambda: check_countersignatures(bundle, trust, now)[0]

    return of


@pytest.fixture
def signed(bundle, sign):
    """A bundle that both have countersigned, and their files."""
    files = {role: bundle / sign(bundle, role).file for role in ("auditor", "approver")}
    return SimpleNamespace(folder=bundle, **files)
