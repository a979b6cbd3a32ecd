"""Whatever a signer signs, verifying the bundle ends in findings, never in an exception."""

import json
import math
import random
import shutil
from copy import deepcopy

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner
from signing_again import payload_of, sign_manifest, write_envelope

from dpmlm.artifacts import canonical_json
from dpmlm.artifacts.dsse import _public
from dpmlm.canonical import read_json
from dpmlm.release.attestations import PROVENANCE
from dpmlm.release.inventory import MANIFEST, PAYLOAD_TYPE, RECIPIENTS

ODD = (None, True, -1, "x", [], [1], {}, 10**30, [[{}]], 1e-320)
UNSPELLABLE = (math.inf, math.nan, 10**400, "\ud800")
"""Values that only the files that are not signed themselves can hold."""
JSON_FILES = (
    "decision.json",
    "ledger.json",
    "training.json",
    "plan.json",
    "evidence.json",
    "statement.json",
    "bom.cdx.json",
    "model/recipients.json",
)
DEEP = b"[" * 200_000


def places(value, depth=4):
    """Paths to the parts of a JSON value; of a list to its first alone."""
    pairs = value.items() if isinstance(value, dict) else list(enumerate(value))[:1]
    for name, part in pairs:
        yield (name,)
        if depth > 1 and isinstance(part, dict | list):
            yield from ((name, *rest) for rest in places(part, depth - 1))


def changed(value, path, odd):
    whole = deepcopy(value)
    part = whole
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = odd
    return whole


def sign_bytes(path, data, key):
    """Sign a payload that no writer of ours writes."""
    envelope = Envelope(data, PAYLOAD_TYPE, {})
    private = ed25519.Ed25519PrivateKey.from_private_bytes(key.private)
    envelope.sign(CryptoSigner(private, _public(key.verify_key)))
    path.write_bytes(canonical_json(envelope.to_dict()))


def _odd_manifests(bundle, keys, check, most):
    payload = payload_of(bundle / MANIFEST)
    files = payload["predicate"]["files"]
    files_kept = ("plan.json", "model/weights.sealed")
    short = {**payload, "subject": payload["subject"][:1]}
    short["predicate"] = {
        **payload["predicate"],
        "files": {name: files[name] for name in files_kept},
    }
    cases = [(path, odd) for path in places(short) for odd in ODD]
    for path, odd in random.Random(1).sample(cases, min(most, len(cases))):
        write_envelope(bundle / MANIFEST, changed(payload, path, odd), keys.signing)
        found = check(bundle)
        # Locators of blocks only say where a changed file differs.
        assert not found.ok or path[-1] == "blocks", (path, odd)


def _odd_files(bundle, keys, check, most):
    cases = []
    for name in JSON_FILES:
        value = json.loads((bundle / name).read_text())
        paths = list(places(value))
        random.Random(name).shuffle(paths)
        cases += [(name, value, p, odd) for p in paths[:60] for odd in (*ODD, *UNSPELLABLE)]
    for name, value, path, odd in random.Random(2).sample(cases, min(most, len(cases))):
        before = (bundle / name).read_bytes()
        (bundle / name).write_text(json.dumps(changed(value, path, odd)))
        sign_manifest(bundle, keys.signing)
        found = check(bundle)
        unspellable = any(odd is each for each in UNSPELLABLE)
        assert not (found.ok and unspellable), (name, path, odd)
        (bundle / name).write_bytes(before)


def test_odd_values_in_the_manifest(bundle, keys, check):
    _odd_manifests(bundle, keys, check, 150)


@pytest.mark.full
def test_odd_values_in_the_files(bundle, keys, check):
    _odd_files(bundle, keys, check, 25)


@pytest.mark.full
def test_all_odd_values(bundle, keys, check, tmp_path):
    shutil.copytree(bundle, tmp_path / "other")
    _odd_manifests(bundle, keys, check, 10**6)
    _odd_files(tmp_path / "other", keys, check, 600)


@pytest.mark.parametrize(
    ("path", "odd", "says"),
    [
        (("predicate", "recipients", "keep"), None, "recipients"),
        (("predicate", "recipients", "keep"), [1], "recipients"),
        (("predicate", "files", "plan.json", "size"), "x", "files"),
        (("predicate", "files", "plan.json", "size"), None, "files"),
        (("predicate", "files", "plan.json", "blocks"), 7, "files"),
        (("predicate", "tokenizer_digest"), "anything", "tokenizer_digest"),
        (("predicate", "model_digest"), None, "model_digest"),
        (("predicate", "created"), 2026, "created"),
        (("_type",), "other", "type"),
        (("predicateType",), "other", "type"),
    ],
)
def test_a_part_of_the_manifest_of_another_form_is_named(bundle, keys, check, path, odd, says):
    payload = changed(payload_of(bundle / MANIFEST), path, odd)
    write_envelope(bundle / MANIFEST, payload, keys.signing)
    (finding,) = check(bundle).findings
    assert f"its {says} is not of the form" in finding.what


@pytest.mark.parametrize(
    "payload", [DEEP, b"\xff\xfe", b"NaN", b"", b'{"a":' + b"9" * 5000 + b"}", b'{"a":1,"a":2}']
)
def test_payloads_that_nobody_can_read(bundle, keys, check, payload):
    sign_bytes(bundle / MANIFEST, payload, keys.signing)
    (finding,) = check(bundle).findings
    assert (finding.file, finding.what) == (MANIFEST, "it is not a JSON object")


def test_a_payload_in_another_spelling(bundle, keys, check):
    whole = json.dumps(payload_of(bundle / MANIFEST), indent=1).encode()
    sign_bytes(bundle / MANIFEST, whole, keys.signing)
    (finding,) = check(bundle).findings
    assert "one spelling" in finding.what


@pytest.mark.parametrize(
    ("name", "path", "odd"),
    [
        ("decision.json", ("rules", 0, "metric"), 7),
        ("decision.json", ("decided",), None),
        ("decision.json", ("waivers",), ["x"]),
        ("ledger.json", ("claimed_steps",), math.inf),
        ("ledger.json", ("claimed_steps",), 10**400),
        ("plan.json", ("scope",), "\ud800"),
    ],
)
def test_files_that_cannot_be_read_are_named(bundle, keys, check, name, path, odd):
    value = json.loads((bundle / name).read_text())
    (bundle / name).write_text(json.dumps(changed(value, path, odd)))
    sign_manifest(bundle, keys.signing)
    assert [finding.file for finding in check(bundle).findings] == [name]


@pytest.mark.parametrize(
    "data",
    [b"NaN", b"-Infinity", b"1e400", b"9" * 400, b'{"a":1,"a":1}', b'"\\ud800"', b"\xff", DEEP],
)
def test_what_the_strict_reader_refuses(data):
    with pytest.raises(ValueError, match=r"\w"):
        read_json(data)


def test_what_the_strict_reader_reads():
    value = {"a": [1, -2.5, 1e-320, None, True, "\u00e4\U0001f600"], "b": {}}
    assert read_json(canonical_json(value)) == read_json(json.dumps(value).encode()) == value


def test_a_provenance_under_another_name_than_the_runs(bundle, keys, check):
    path = bundle / PROVENANCE
    payload = payload_of(path)
    parameters = payload["predicate"]["buildDefinition"]["externalParameters"]
    assert parameters["name"] == "run"
    parameters["name"] = "hospital-notes-2031"
    write_envelope(path, payload, keys.signing)
    sign_manifest(bundle, keys.signing)
    finding, *_ = check(bundle).findings
    assert finding.file == PROVENANCE
    assert finding.where == "predicate.buildDefinition.externalParameters.name"


def test_a_reader_is_told_what_nobody_checked(bundle, check):
    notes = " ".join(check(bundle).notes)
    for part in ("tokenizer_digest", "report.html", "MODEL_CARD.md"):
        assert part in notes


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda fields: fields.update(kem="ROT13"), "it is no wrapped key of kind ROT13"),
        (lambda fields: fields["recipients"][0].update(wrapped="%"), "it is not a recipients file"),
        (lambda fields: fields["recipients"].append(fields["recipients"][0]), "has two entries"),
        (lambda fields: fields["recipients"].clear(), "it has 1 to 64 recipients"),
    ],
)
def test_a_recipients_file_without_the_form_of_one(bundle, keys, check, edit, says):
    fields = json.loads((bundle / RECIPIENTS).read_bytes())
    edit(fields)
    (bundle / RECIPIENTS).write_bytes(canonical_json(fields) + b"\n")
    sign_manifest(bundle, keys.signing)
    (finding,) = check(bundle).findings
    assert finding.file == RECIPIENTS
    assert says in finding.what
