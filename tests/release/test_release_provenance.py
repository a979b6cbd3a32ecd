"""The trainer's statements: as their specifications say, as the bundle says, and no other."""

import json
import shutil
from dataclasses import replace
from itertools import product

import pytest
from signing_again import payload_of, sign_manifest, write_envelope
from statements_peer import naive_subject, opened

from audits.verdict import power_of_tests
from dpmlm.artifacts import load_identity, new_identity, new_signing_key
from dpmlm.artifacts.rotation import Change
from dpmlm.release import BuildInputs, verify_bundle
from dpmlm.release.attestations import misstated
from dpmlm.release.consistency import read_contents
from dpmlm.release.gate import Decision
from dpmlm.release.inventory import MANIFEST, release_digest, take_inventory
from dpmlm.release.provenance import STAGES, outcomes, result_of, timestamp
from dpmlm.release.rewrap import plan_bundle

FOLDER = "attestations"
PROVENANCE, RESULT, SUMMARY = (
    f"{FOLDER}/{kind}.dsse.json" for kind in ("provenance", "test-result", "summary")
)

REQUIRED = {
    PROVENANCE: {
        # slsa.dev/spec/v1.0/provenance: what Build L1 asks for; a stricter reader asks for no more.
        "buildDefinition": dict,
        "buildDefinition.buildType": str,
        "buildDefinition.externalParameters": dict,
        "runDetails": dict,
        "runDetails.builder": dict,
        "runDetails.builder.id": str,
    },
    RESULT: {
        # github.com/in-toto/attestation, spec/predicates/test-result.md
        "result": str,
        "configuration": list,
    },
    SUMMARY: {
        # slsa.dev/spec/v1.0/verification_summary
        "verifier": dict,
        "verifier.id": str,
        "timeVerified": str,
        "resourceUri": str,
        "policy": dict,
        "policy.uri": str,
        "verificationResult": str,
        "verifiedLevels": list,
    },
}
"""Fields that each specification requires of its predicate, read from it and typed here."""
OPTIONAL = {
    PROVENANCE: {"buildDefinition.resolvedDependencies", "runDetails.builder.version",
                 "runDetails.metadata", "runDetails.metadata.invocationId",
                 "runDetails.metadata.finishedOn"},
    RESULT: {"passedTests", "warnedTests", "failedTests", "urn:dpmlm:evidence:1"},
    SUMMARY: {"policy.digest", "inputAttestations", "slsaVersion"},
}  # fmt: skip
RESOURCES = {
    PROVENANCE: "buildDefinition.resolvedDependencies",
    RESULT: "configuration",
    SUMMARY: "inputAttestations",
}
"""Where resource descriptors stand: each has a URI, a digest or its content."""
TYPES = {
    PROVENANCE: "https://slsa.dev/provenance/v1",
    RESULT: "https://in-toto.io/attestation/test-result/v0.1",
    SUMMARY: "https://slsa.dev/verification_summary/v1",
}


def at(value, path):
    for name in path.split("."):
        value = value[name]
    return value


def paths(value, prefix="", depth=3):
    """Dotted names of all objects' fields down to a depth, lists and digests apart."""
    found = set()
    for name, inner in value.items():
        found.add(prefix + name)
        if isinstance(inner, dict) and depth > 1 and name not in ("digest", "externalParameters"):
            found |= paths(inner, f"{prefix}{name}.", depth - 1)
    return found


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("verdict", ["bundle", "failed"])
def test_a_statement_is_what_its_specification_says(request, keys, name, verdict):
    folder = request.getfixturevalue(verdict)
    whole = opened(folder / name, keys.signing.verify_key.public)
    assert set(whole) == {"_type", "subject", "predicateType", "predicate"}
    assert whole["_type"] == "https://in-toto.io/Statement/v1"
    assert whole["predicateType"] == TYPES[name]
    assert whole["subject"] == naive_subject(folder)
    predicate = whole["predicate"]
    for path, kind in REQUIRED[name].items():
        assert isinstance(at(predicate, path), kind), path
        assert at(predicate, path), path
    free = ("runDetails.builder.version.", "urn:dpmlm:evidence:1.")
    extra = {path for path in paths(predicate) if path.startswith(free)}
    assert paths(predicate) - extra - set(REQUIRED[name]) <= OPTIONAL[name]
    for resource in at(predicate, RESOURCES[name]):
        assert resource.keys() & {"uri", "digest", "content"}
        assert set(resource) <= {"name", "uri", "digest"}
        assert all(len(value) == 64 for value in resource.get("digest", {}).values())


def test_provenance_names_the_run_and_everything_it_came_through(bundle, check):
    said = payload_of(bundle / PROVENANCE)["predicate"]
    definition, details = said["buildDefinition"], said["runDetails"]
    named = {one.get("name"): one for one in definition["resolvedDependencies"]}
    manifest = payload_of(bundle / MANIFEST)["predicate"]
    assert [name for name in named if name and name.startswith("stage:")] == [
        f"stage:{stage}" for stage in STAGES
    ]
    assert "sha256:" + named["plan"]["digest"]["sha256"] == manifest["plan_digest"]
    assert definition["buildType"] == "urn:dpmlm:run:1"
    assert definition["externalParameters"]["policy"]["name"] == "internal/v1"
    bill = json.loads((bundle / "bom.cdx.json").read_text())
    packages = [one["uri"] for one in definition["resolvedDependencies"] if "name" not in one]
    assert packages == sorted(one["purl"] for one in bill["components"])
    ledger = json.loads((bundle / "ledger.json").read_text())
    assert details["metadata"]["invocationId"] == ledger["run_id"] == manifest["run_id"]
    assert details["metadata"]["finishedOn"] == timestamp(manifest["created"])
    assert check(bundle).manifest["run_id"] == ledger["run_id"]


def test_nothing_private_is_stated(bundle, facts):
    """Field names are known, digests are digests: what is left are names that the bundle shows."""
    told = json.dumps([payload_of(bundle / name) for name in TYPES])
    for part in ("verbatim", "mcnemar", "0.3125", "membership", "seconds"):
        assert part not in told


def test_results_of_a_pass_a_fail_and_an_undecided_run(bundle, failed, tmp_path, write, facts):
    def told(folder):
        result, summary = (payload_of(folder / name)["predicate"] for name in (RESULT, SUMMARY))
        return result, summary["verificationResult"], summary["verifiedLevels"]

    # One audit found nothing and was not shown to notice a leak: it passes with a warning.
    result, verdict, levels = told(bundle)
    assert (verdict, levels) == ("PASSED", ["SLSA_BUILD_LEVEL_0"])
    assert result["result"] == ("WARNED" if result["warnedTests"] else "PASSED")
    assert "gate:dp.epsilon" in result["passedTests"]
    assert not result["failedTests"]
    result, verdict, levels = told(failed)
    assert (result["result"], verdict, levels) == ("FAILED", "FAILED", ["FAILED"])
    assert {"gate:audit.extraction", "audit:canary_extraction"} <= set(result["failedTests"])
    audit = facts["audit"]
    audit["subjects"]["control"] = dict(audit["subjects"]["untrained"])
    audit["power"] = power_of_tests(audit["subjects"])
    result, verdict, _ = told(write(tmp_path / "unclear", facts))
    assert (result["result"], verdict) == ("FAILED", "FAILED")
    assert result["failedTests"] == ["gate:audit.power"]
    assert set(result["warnedTests"]) == {f"audit:{test}" for test in power_of_tests(
        audit["subjects"])["tests"]}  # fmt: skip


def naive_outcomes(rule, status, rejected, power):
    """Twin of `outcomes`, for one rule and one audit."""
    lists = {"passedTests": [], "warnedTests": [], "failedTests": []}
    if status == "pass":
        lists["passedTests"].append(f"gate:{rule}")
    elif status == "waived":
        lists["warnedTests"].append(f"gate:{rule}")
    else:
        lists["failedTests"].append(f"gate:{rule}")
    if rejected:
        lists["failedTests"].append("audit:gating")
    elif rejected is not None:
        lists["passedTests" if power else "warnedTests"].append("audit:gating")
    return lists


def test_outcomes_against_a_table(bundle):
    whole = Decision.from_json(json.loads((bundle / "decision.json").read_text()))
    statuses = ("pass", "waived", "fail", "inconclusive", "error", "odd")
    for status, rejected, power in product(statuses, (None, False, True), (None, False, True)):
        decision = replace(whole, rules=(replace(whole.rules[0], status=status),))
        evidence = {
            "subjects": {"target": {"gating": {"rejected": rejected}}},
            "power": {"tests": {"gating": {"power": power}}},
        }
        expected = naive_outcomes(whole.rules[0].id, status, rejected, power)
        assert outcomes(decision, evidence) == expected
        order = ("failedTests", "warnedTests", "passedTests")
        worst = next(kind for kind in order if expected[kind])
        assert result_of(expected) == worst.removesuffix("Tests").upper()
    assert result_of({kind: [] for kind in order}) == "FAILED"


def lie(path, key, edit, *more):
    """A statement that its signer changed."""
    payload = payload_of(path)
    edited = edit(payload)
    write_envelope(path, payload if edited is None else edited, key, *more)


def put(path, value):
    """An edit that sets a dotted path of the payload; numbers pick of a list."""

    def edit(payload):
        *walk, last = [int(part) if part.isdecimal() else part for part in path.split("/")]
        for part in walk:
            payload = payload[part]
        payload[last] = value

    return edit


def swapped(payload):
    one, other = payload["subject"][1:3]
    one["digest"], other["digest"] = other["digest"], one["digest"]


def passed(payload):
    said = payload["predicate"]
    said["passedTests"] = sorted(said["passedTests"] + said.pop("failedTests"))
    said |= {"failedTests": [], "result": "PASSED"}


BUILD, RUN = "predicate/buildDefinition", "predicate/runDetails"
HEX = "0" * 64
LIES = {
    "swapped subjects": (PROVENANCE, swapped, "subject"),
    "another release": (RESULT, put("subject/0/digest/sha256", HEX), "subject"),
    "a subject left out": (SUMMARY, lambda payload: payload["subject"].clear(), "subject"),
    "no subject": (SUMMARY, put("subject", None), "subject"),
    "old provenance": (
        PROVENANCE, put("predicateType", "https://slsa.dev/provenance/v0.2"), "predicateType"),
    "old result": (RESULT, put("predicateType", TYPES[RESULT][:-1] + "2"), "predicateType"),
    "old summary": (
        SUMMARY, put("predicateType", "https://slsa.dev/verification_summary/v0.2"),
        "predicateType"),
    "old statement": (
        SUMMARY, put("_type", "https://in-toto.io/Statement/v0.1"), "predicateType"),
    "another run": (
        PROVENANCE, put(f"{RUN}/metadata/invocationId", "other-1"), "invocationId"),
    "another build": (PROVENANCE, put(f"{BUILD}/buildType", "urn:dpmlm:run:2"), "buildType"),
    "another builder": (PROVENANCE, put(f"{RUN}/builder/id", "urn:x"), "runDetails.builder.id"),
    "another version": (
        PROVENANCE, put(f"{RUN}/builder/version/dpmlm-framework", "9"), "builder.version"),
    "another time": (
        PROVENANCE, put(f"{RUN}/metadata/finishedOn", "2020-01-01T00:00:00Z"), "finishedOn"),
    "another plan": (
        PROVENANCE, put(f"{BUILD}/resolvedDependencies/7/digest/sha256", HEX),
        "resolvedDependencies.7"),
    "another library": (
        PROVENANCE, put(f"{BUILD}/resolvedDependencies/9/uri", "pkg:pypi/torch@1"),
        "resolvedDependencies.9"),
    "a stage left out": (
        PROVENANCE, lambda payload: payload["predicate"]["buildDefinition"][
            "resolvedDependencies"].__delitem__(0), "predicate"),
    "no digest": (
        PROVENANCE, put(f"{BUILD}/resolvedDependencies/0/digest/sha256", "the text"), "predicate"),
    "another policy": (
        PROVENANCE, put(f"{BUILD}/externalParameters/policy/digest/sha256", HEX), "policy"),
    "something more": (PROVENANCE, put(f"{BUILD}/note", "said in passing"), "note"),
    "no name": (PROVENANCE, put(f"{BUILD}/externalParameters/name", ""), "predicate"),
    "a list": (PROVENANCE, put("predicate", []), "predicate"),
    "nothing": (RESULT, put("predicate", None), "predicate"),
    "an empty statement": (SUMMARY, lambda payload: {}, "predicateType"),
    "another rule": (RESULT, put("predicate/passedTests/0", "gate:x"), "passedTests.0"),
    "another evidence": (
        RESULT, put("predicate/urn:dpmlm:evidence:1/digest/sha256", HEX), "evidence"),
    "a level": (
        SUMMARY, put("predicate/verifiedLevels", ["SLSA_BUILD_LEVEL_3"]), "verifiedLevels.0"),
    "another input": (
        SUMMARY, put("predicate/inputAttestations/0/digest/sha256", HEX), "inputAttestations.0"),
    "decided at another time": (
        SUMMARY, put("predicate/timeVerified", "2020-01-01T00:00:00Z"), "timeVerified"),
}  # fmt: skip


def test_what_the_signer_states_beside_the_rest_is_found(bundle, keys):
    """Each file alone; that the bytes are those of the manifest is checked before."""
    manifest, (contents, _) = payload_of(bundle / MANIFEST)["predicate"], read_contents(bundle)
    signers = {keys.signing.key_id: keys.signing.verify_key}
    assert misstated(bundle, manifest, contents, signers) == []
    for case, (name, edit, where) in LIES.items():
        whole = (bundle / name).read_bytes()
        lie(bundle / name, keys.signing, edit)
        (found,) = misstated(bundle, manifest, contents, signers)
        assert found.file == name, case
        assert where in found.where, case
        says = {"predicateType": "belongs here", "subject": "another release"}
        assert says.get(where, "") in found.what, case
        assert found.next_step, case
        (bundle / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "edit", "where"),
    [
        (RESULT, passed, "predicate.failedTests"),
        pytest.param(
            RESULT, put("predicate/result", "PASSED"), "predicate.result", marks=pytest.mark.full
        ),
        pytest.param(
            RESULT, put("predicate/result", "WARNED"), "predicate.result", marks=pytest.mark.full
        ),
        (SUMMARY, put("predicate/verificationResult", "PASSED"), "predicate.verificationResult"),
    ],
)
def test_passed_stated_of_a_fail_is_found(failed, check, keys, name, edit, where):
    assert check(failed).ok
    lie(failed / name, keys.signing, edit)
    sign_manifest(failed, keys.signing)
    findings = [one for one in check(failed).findings if one.file == name]
    assert any(where.startswith(one.where) or one.where.startswith(where) for one in findings)


def test_a_statement_left_out_or_signed_by_another_is_found(bundle, check, keys, tmp_path):
    whole = shutil.copytree(bundle, tmp_path / "whole")
    (bundle / RESULT).unlink()
    sign_manifest(bundle, keys.signing)
    assert (RESULT, "the signer left it out") in [(f.file, f.what) for f in check(bundle).findings]
    stranger = new_signing_key()
    lie(whole / PROVENANCE, keys.signing, lambda payload: None, stranger)
    sign_manifest(whole, keys.signing)
    (finding,) = [one for one in check(whole).findings if one.file == PROVENANCE]
    assert stranger.key_id in finding.where
    for data in (b"", b"[]", b"{}", b"[" * 100_000, b" " * (2 << 20)):
        (whole / PROVENANCE).write_bytes(data)
        manifest = payload_of(whole / MANIFEST)["predicate"]
        signers = {keys.signing.key_id: keys.signing.verify_key}
        found = misstated(whole, manifest, read_contents(whole)[0], signers)
        assert PROVENANCE in [one.file for one in found]


def test_another_run_id_in_manifest_or_ledger_is_found(bundle, check, keys):
    sign_manifest(bundle, keys.signing, lambda predicate: predicate.update(run_id="other"))
    assert ("ledger.json", "run_id") in [(f.file, f.where) for f in check(bundle).findings]
    sign_manifest(bundle, keys.signing, lambda predicate: predicate.pop("run_id"))
    (finding,) = check(bundle).findings
    assert (finding.file, finding.where) == (MANIFEST, "payload")
    sign_manifest(bundle, keys.signing, lambda predicate: predicate.update(schema="dpmlm.bundle/1"))
    assert "`dpmlm run`" in check(bundle).findings[0].next_step


def test_statements_survive_a_rotation(bundle, check, keys):
    before = {name: (bundle / name).read_bytes() for name in TYPES}
    release = release_digest(take_inventory(bundle))
    trainer = load_identity(keys.folder / "trainer.key")
    change = Change(add=(new_identity(role="consumer").recipient,))
    plan_bundle(bundle, [trainer], change, keys.signing).write()
    assert check(bundle).ok
    assert {name: (bundle / name).read_bytes() for name in TYPES} == before
    assert release_digest(take_inventory(bundle)) == release


@pytest.mark.parametrize(
    "changed",
    [{"settings": 3}, {"settings": "x"}, {"code": "sha256:" + "G" * 64}, {"stages": {}}],
)
def test_inputs_are_digests(changed):
    good = {
        "settings": "sha256:" + HEX, "code": "sha256:" + HEX,
        "stages": dict.fromkeys(STAGES, "sha256:" + HEX),
    }  # fmt: skip
    BuildInputs(**good)
    with pytest.raises(ValueError, match=r"digest|stages"):
        BuildInputs(**{**good, **changed})


def test_keys_of_other_roles_sign_no_manifest(bundle, keys, tmp_path, now):
    from dpmlm.artifacts import load_signing_key

    auditor = load_signing_key(keys.folder / "auditor-sign.key")
    sign_manifest(bundle, auditor)
    (finding,) = verify_bundle(bundle, keys.trusted, now=now).findings
    assert finding.file == MANIFEST
    assert auditor.key_id in finding.where
