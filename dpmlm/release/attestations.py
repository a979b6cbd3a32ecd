"""The trainer's three statements in a bundle: written when it is made, and read against the rest.

    attestations/provenance.dsse.json    what the release was made from
    attestations/test-result.dsse.json   what each rule of the gate, and each audit, came to
    attestations/summary.dsse.json       what the gate decided, on which statements

Each is a DSSE envelope by the key that signs the manifest, and the manifest lists all three. They
are about the release (`release_digest`), so they stay when its recipients change.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SigningKey, atomic_write, canonical_json
from dpmlm.artifacts.signing import VerifyKey
from dpmlm.errors import IntegrityError
from dpmlm.release import provenance as said
from dpmlm.release.consistency import SIGNER_ERRED, Contents
from dpmlm.release.inventory import ATTESTATIONS, GET_ORIGINAL, PAYLOAD_TYPE, Finding, take_record
from dpmlm.release.signed import open_signed
from dpmlm.release.trust import TRAINER

PROVENANCE, TEST_RESULT, SUMMARY = (
    f"{ATTESTATIONS}/{name}.dsse.json" for name in ("provenance", "test-result", "summary")
)
STATEMENTS = (PROVENANCE, TEST_RESULT, SUMMARY)
MAX_BYTES = 1 << 20
"""Of one statement's file; a real one has a few kilobytes."""
_SHOWN = 100


def write_statements(
    folder: Path,
    manifest: Mapping[str, Any],
    contents: Contents,
    inputs: said.BuildInputs,
    key: SigningKey,
) -> dict[str, dict[str, Any]]:
    """Sign and write the three statements into a bundle that has all else; returns their records.

    `manifest` are the fields that will be signed, with "files" of everything written so far.
    """
    (folder / ATTESTATIONS).mkdir(exist_ok=True)
    files = dict(manifest["files"])
    written = {}
    for name in STATEMENTS:
        whole = {**manifest, "files": files}
        write_signed(folder / name, _expected(name, whole, contents, inputs, key.key_id), key)
        with open(folder / name, "rb") as file:
            files[name] = written[name] = take_record(file, name)
    return written


def write_signed(path: Path, payload: Mapping[str, Any], key: SigningKey) -> None:
    """Write a statement as a signed envelope, in one step."""
    from dpmlm.artifacts import sign_envelope

    with atomic_write(path) as file:
        file.write(canonical_json(sign_envelope(payload, PAYLOAD_TYPE, [key])))


def misstated(
    folder: Path,
    manifest: Mapping[str, Any],
    contents: Contents,
    signers: Mapping[str, VerifyKey],
) -> list[Finding]:
    """Where the trainer's statements do not say what manifest, plan, decision and evidence give.

    `signers` are the keys that signed the manifest; the bytes were compared with it before.
    """
    findings: list[Finding] = []
    for name in STATEMENTS:
        if name not in manifest["files"]:
            findings.append(Finding(name, "whole file", "the signer left it out", SIGNER_ERRED))
            continue
        try:
            found, (signer,) = open_signed(folder / name, signers, most=MAX_BYTES)
        except IntegrityError as error:
            findings.append(Finding(name, error.given, error.rule, SIGNER_ERRED))
            continue
        except ValueError:
            findings.append(Finding(name, "signatures", "one is expected", SIGNER_ERRED))
            continue
        findings += _differs(name, found, manifest, contents, signer)
    return findings


def _differs(
    name: str,
    found: Mapping[str, Any],
    manifest: Mapping[str, Any],
    contents: Contents,
    signer: str,
) -> list[Finding]:
    if wrong := about_another(name, found, _KINDS[name], manifest):
        return wrong
    try:
        inputs = said.inputs_of(found["predicate"]) if name == PROVENANCE else None
        expected = _expected(name, manifest, contents, inputs, signer)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        told = f"it has not the form of its kind ({error})" if str(error) else "it has another form"
        return [Finding(name, "predicate", told, SIGNER_ERRED)]
    return compared(name, expected, found)


_KINDS = {PROVENANCE: said.PROVENANCE, TEST_RESULT: said.TEST_RESULT, SUMMARY: said.SUMMARY}


def about_another(
    name: str, found: Mapping[str, Any], kind: str, manifest: Mapping[str, Any]
) -> list[Finding]:
    """A statement of another kind, or about other bytes than this release's."""
    if found.get("_type") != said.STATEMENT or found.get("predicateType") != kind:
        what = f"it is {shown(found.get('predicateType'))}, and {kind} belongs here"
        return [Finding(name, "predicateType", what, GET_ORIGINAL)]
    if found.get("subject") != said.subject_of(manifest["files"]):
        what = "it is about another release than this bundle's"
        return [Finding(name, "subject", what, GET_ORIGINAL)]
    return []


def compared(
    name: str, expected: Mapping[str, Any], found: Mapping[str, Any], ask: str = SIGNER_ERRED
) -> list[Finding]:
    """A finding for the first place where a statement is not what the bundle gives."""
    for where, ours, theirs in _differences(expected, found, ""):
        what = f"it says {shown(theirs)}, the rest of the bundle gives {shown(ours)}"
        return [Finding(name, where, what, ask)]
    return []


def shown(value: Any) -> str:
    """A value of a statement for a message, on one line and not too long."""
    text = str(value) if isinstance(value, str | int | float) else repr(value)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _expected(
    name: str,
    manifest: Mapping[str, Any],
    contents: Contents,
    inputs: said.BuildInputs | None,
    signer: str,
) -> dict[str, Any]:
    """The statement that belongs into a file of this bundle."""
    decision, files = contents.decision, manifest["files"]
    if name == PROVENANCE and inputs is not None:
        predicate = said.provenance(inputs, manifest, decision, contents.packages, signer)
    elif name == TEST_RESULT:
        evidence = said.evidence_digest(contents.evidence)
        tests = said.outcomes(decision, contents.evidence)
        predicate = said.test_result(tests, manifest, decision, evidence)
    else:
        rests_on = (PROVENANCE, TEST_RESULT)
        predicate = said.summary(TRAINER, signer, manifest, decision, rests_on, decision.decided)
    return said.statement(_KINDS[name], files, predicate)


def _differences(ours: Any, theirs: Any, path: str) -> list[tuple[str, Any, Any]]:
    """Places where two JSON values differ, with both; "nothing" stands for what is not there."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return [
            found
            for key in sorted({*ours, *theirs})
            for found in _differences(
                ours.get(key, "nothing"), theirs.get(key, "nothing"), f"{path}.{key}".lstrip(".")
            )
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            found
            for number, pair in enumerate(zip(ours, theirs, strict=True))
            for found in _differences(*pair, f"{path}.{number}")
        ]
    return [] if type(ours) is type(theirs) and ours == theirs else [(path, ours, theirs)]
