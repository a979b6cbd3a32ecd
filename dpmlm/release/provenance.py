"""What is said about a release, as in-toto v1 statements of three published kinds.

* provenance: SLSA provenance v1 (https://slsa.dev/spec/v1.0/provenance)
* test result: in-toto test-result v0.1 (github.com/in-toto/attestation, spec/predicates)
* verification summary: SLSA VSA v1 (https://slsa.dev/spec/v1.0/verification_summary)

Stages are named by digests of their *ciphertext*. A digest of the text itself would let anyone who
guesses a document, or holds another copy of the corpus, confirm it; sealing draws a new key each
time, so the same text sealed twice has two digests, and neither says anything of it. Nothing else
here is computed from private text but results of gate rules that the bundle shows anyway.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from audits.subject import TESTS
from dpmlm.canonical import digest
from dpmlm.release.facts import find
from dpmlm.release.gate import Decision
from dpmlm.release.inventory import SEALED_MODEL, release_digest
from dpmlm.release.log.entry import name_of

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
SUMMARY = "https://slsa.dev/verification_summary/v1"
BUILD_TYPE = "urn:dpmlm:run:1"
EVIDENCE = "urn:dpmlm:evidence:1"
"""Field that we add to a test result: which evidence its audits are from."""
NO_LEVEL = "SLSA_BUILD_LEVEL_0"
"""All that is claimed of the build: it ran on the trainer's own machine, which nobody attests."""
LISTS = ("passedTests", "warnedTests", "failedTests")
STAGES = {
    "corpus": "text, read and split",
    "scrub": "identifiers replaced",
    "dedup": "repeats removed",
    "tokens": "cut into tokens",
    "canaries": "made-up secrets drawn",
    "training": "the model",
    "audit": "attacks on the model",
}
"""What each stage is or does, in a few words."""
_FRAMEWORK = "dpmlm-framework"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class BuildInputs:
    """What a run was made from, as far as no other file of its bundle says it; all of it public."""

    settings: str
    """Digest of every setting that decides results."""
    code: str
    """Digest of the source files that trained."""
    stages: Mapping[str, str]
    """Stage to the digest of its ciphertext, in the order that the model came through them."""

    def __post_init__(self) -> None:
        """Raises ValueError for anything but digests, and every stage."""
        if set(self.stages) != set(STAGES):
            raise ValueError(f"the stages are not {', '.join(STAGES)}")
        for value in (self.settings, self.code, *self.stages.values()):
            if not is_digest(value):
                raise ValueError("a digest is sha256: and 64 hexadecimal digits")


def is_digest(value: Any) -> bool:
    """Whether it is spelled as a SHA-256 digest is in every file of a bundle."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def subject_of(files: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The release under its one digest, and each sealed file of the model."""
    sealed = [n for n in files if n.startswith(f"{SEALED_MODEL}/") and n.endswith(".sealed")]
    return [
        {"name": "release", "digest": digest_set(release_digest(files))},
        *({"name": name, "digest": digest_set(files[name]["digest"])} for name in sorted(sealed)),
    ]


def statement(
    kind: str, files: Mapping[str, Mapping[str, Any]], predicate: Mapping[str, Any]
) -> dict[str, Any]:
    """An in-toto statement about the release that has these files."""
    return {
        "_type": STATEMENT,
        "subject": subject_of(files),
        "predicateType": kind,
        "predicate": dict(predicate),
    }


def provenance(
    inputs: BuildInputs,
    manifest: Mapping[str, Any],
    decision: Decision,
    packages: Sequence[str],
    signer: str,
) -> dict[str, Any]:
    """Predicate of SLSA provenance v1: how the release came about.

    `manifest` are the signed fields of the bundle, `packages` package URLs of the libraries,
    `signer` the key id of whoever ran it and says so.
    """
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "name": name_of(manifest["run_id"]),
                "settings": digest_set(inputs.settings),
                "policy": {"name": decision.policy, "digest": digest_set(decision.policy_digest)},
            },
            "resolvedDependencies": [
                *(_resource(f"stage:{name}", value) for name, value in inputs.stages.items()),
                _resource("plan", manifest["plan_digest"]),
                _resource("code", inputs.code),
                *({"uri": package} for package in packages),
            ],
        },
        "runDetails": {
            "builder": {
                "id": identity("trainer", signer),
                "version": dict(map(_version, filter(_is_ours, packages))),
            },
            "metadata": {
                "invocationId": manifest["run_id"],
                "finishedOn": timestamp(manifest["created"]),
            },
        },
    }


def inputs_of(predicate: Mapping[str, Any]) -> BuildInputs:
    """The inputs that a provenance predicate names.

    Raises KeyError, TypeError, AttributeError or ValueError where it has another form.
    """
    definition = predicate["buildDefinition"]
    parameters = definition["externalParameters"]
    named = {
        one["name"]: f"sha256:{one['digest']['sha256']}"
        for one in definition["resolvedDependencies"]
        if "name" in one
    }
    code = named.pop("code")
    stages = {k.removeprefix("stage:"): v for k, v in named.items() if k.startswith("stage:")}
    settings = f"sha256:{parameters['settings']['sha256']}"
    return BuildInputs(settings, code, stages)


def outcomes(decision: Decision, evidence: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of tests by what became of them: `gate:` and a rule's id, `audit:` and a test's.

    A rule that was waived, and an audit that rejected nothing but was not shown to notice a leak,
    pass with a warning. What could not be decided failed. An audit that was not run is in no list.
    """
    found: dict[str, list[str]] = {name: [] for name in LISTS}
    ends = {"pass": "passedTests", "waived": "warnedTests"}
    for rule in decision.rules:
        found[ends.get(rule.status, "failedTests")].append(f"gate:{rule.id}")
    for test in TESTS:
        rejected = find({"audit": evidence}, f"audit.subjects.target.{test}.rejected")
        power = find({"audit": evidence}, f"audit.power.tests.{test}.power")
        if rejected is True:
            found["failedTests"].append(f"audit:{test}")
        elif rejected is False:
            found["passedTests" if power is True else "warnedTests"].append(f"audit:{test}")
    return found


def result_of(tests: Mapping[str, Sequence[str]]) -> str:
    """FAILED if any test failed, else WARNED if any warns, else PASSED; no test is no pass."""
    if tests["failedTests"] or not any(tests[name] for name in LISTS):
        return "FAILED"
    return "WARNED" if tests["warnedTests"] else "PASSED"


def test_result(
    tests: Mapping[str, Sequence[str]],
    manifest: Mapping[str, Any],
    decision: Decision,
    evidence: str | None,
) -> dict[str, Any]:
    """Predicate of a test result: gate and audits. `evidence` is its digest (`evidence_digest`)."""
    more = {} if evidence is None else {EVIDENCE: {"digest": digest_set(evidence)}}
    return {
        "result": result_of(tests),
        "configuration": [
            _resource(f"policy:{decision.policy}", decision.policy_digest),
            _resource("plan", manifest["plan_digest"]),
        ],
        **{name: sorted(tests[name]) for name in LISTS},
        **more,
    }


def evidence_digest(public: Mapping[str, Any]) -> str | None:
    """Digest of the public part of evidence (canonical JSON); None where there is none."""
    return digest(dict(public)) if public else None


def summary(
    role: str,
    signer: str,
    manifest: Mapping[str, Any],
    decision: Decision,
    inputs: Sequence[str],
    when: str,
) -> dict[str, Any]:
    """Predicate of a verification summary: the gate's decision, by whoever decided it (again).

    `inputs` are files of `manifest["files"]` with the statements it rests on, `when` ISO 8601.
    """
    passed = decision.verdict == "PASS"
    files = manifest["files"]
    return {
        "verifier": {"id": identity(role, signer)},
        "timeVerified": timestamp(when),
        "resourceUri": f"urn:dpmlm:release:{release_digest(files)}",
        "policy": {
            "uri": f"urn:dpmlm:policy:{decision.policy}",
            "digest": digest_set(decision.policy_digest),
        },
        "inputAttestations": [
            {"uri": name, "digest": digest_set(files[name]["digest"])} for name in inputs
        ],
        "verificationResult": "PASSED" if passed else "FAILED",
        "verifiedLevels": [NO_LEVEL if passed else "FAILED"],
        "slsaVersion": "1.0",
    }


def identity(role: str, key_id: str) -> str:
    """URI of whoever holds a key in a role."""
    return f"urn:dpmlm:{role}:{key_id}"


def digest_set(value: str) -> dict[str, str]:
    """`sha256:HEX` as in-toto spells it."""
    algorithm, _, hexadecimal = value.partition(":")
    return {algorithm: hexadecimal}


def timestamp(moment: str) -> str:
    """ISO 8601 with a zone as RFC 3339 in UTC, ending in Z. Raises ValueError for any other."""
    parsed = datetime.fromisoformat(moment)
    if parsed.tzinfo is None:
        raise ValueError("no zone")
    return parsed.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_ours(package: str) -> bool:
    return package.startswith(f"pkg:pypi/{_FRAMEWORK}@")


def _version(package: str) -> tuple[str, str]:
    return _FRAMEWORK, package.rpartition("@")[2]


def _resource(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "uri": f"urn:dpmlm:{name}", "digest": digest_set(value)}
