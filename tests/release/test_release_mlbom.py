"""The bill of materials: valid, complete, public, and the same bytes for the same bundle."""

import hashlib
import json
import os
import subprocess
import sys
from email.message import Message
from importlib.metadata import version
from pathlib import Path

import pytest
from signing_again import edit_json, sign_manifest
from variants import rest_in_full

from dpmlm.release import decide, load_policy, mlbom

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bom(bundle):
    return json.loads((bundle / mlbom.NAME).read_bytes())


def _validator():
    """A strict validator of CycloneDX 1.6 JSON: None if valid, else what is wrong."""
    reason = "the bill was held against no schema: install cyclonedx-python-lib[json-validation]"
    json_validation = pytest.importorskip("cyclonedx.validation.json", reason=reason)
    from cyclonedx.exception import MissingOptionalDependencyException
    from cyclonedx.schema import SchemaVersion

    validator = json_validation.JsonStrictValidator(SchemaVersion.V1_6)
    try:
        validator.validate_str("{}")
    except MissingOptionalDependencyException:
        pytest.skip(reason)
    return validator.validate_str


def test_the_schema_holds(bom):
    validate = _validator()
    assert validate(json.dumps(bom)) is None
    del bom["metadata"]["component"]["name"]
    assert validate(json.dumps(bom)) is not None


def test_hashes_are_those_of_the_encrypted_files(bom, bundle):
    files = bom["metadata"]["component"]["components"]
    assert [file["name"] for file in files] == [
        f"model/{name}.sealed" for name in ("answers", "config", "manifest", "tokenizer", "weights")
    ]
    for file in files:
        content = hashlib.sha256((bundle / file["name"]).read_bytes()).hexdigest()
        assert file["hashes"] == [{"alg": "SHA-256", "content": content}]


def test_every_dependency_has_a_version_and_says_its_license(bom):
    found = {entry["name"]: entry for entry in bom["components"]}
    assert {"torch", "transformers", "cryptography", "opacus"} <= set(found)
    for name, entry in found.items():
        assert entry["version"] == version(name)
        assert ("licenses" in entry) != ("properties" in entry)
    assert "licenses" in found["transformers"]
    references = {entry["ref"]: entry for entry in bom["dependencies"]}
    assert references["model"]["dependsOn"] == sorted(e["bom-ref"] for e in found.values())
    assert set(references) == {"model", *references["model"]["dependsOn"]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("License-Expression", "MIT OR X")], {"licenses": [{"expression": "MIT OR X"}]}),
        ([("License", "BSD-3")], {"licenses": [{"license": {"name": "BSD-3"}}]}),
        (
            [("License", "Text\nof it"), ("Classifier", "License :: OSI Approved :: MIT License")],
            {"licenses": [{"license": {"name": "MIT License"}}]},
        ),
        ([], {"properties": [{"name": "dpmlm:license", "value": mlbom.UNKNOWN}]}),
    ],
)
def test_what_a_package_says_of_its_license(fields, expected):
    known = Message()
    for name, value in fields:
        known[name] = value
    assert mlbom._licenses(known) == expected


def test_a_package_that_is_not_installed_is_left_out():
    assert mlbom._library("a-package-that-nobody-made") is None


def test_the_card_has_the_promise_the_verdict_and_what_is_not_covered(bom, claim, check, bundle):
    card = bom["metadata"]["component"]["modelCard"]
    figures = {f["type"]: f["value"] for f in card["quantitativeAnalysis"]["performanceMetrics"]}
    fields = claim.to_json()
    assert figures == {"epsilon": str(fields["epsilon"]), "delta": str(fields["delta"])}
    assert card["considerations"]["technicalLimitations"] == list(fields["not_covered"])
    assert {"name": "dpmlm:verdict", "value": "PASS"} in card["properties"]
    assert bom["metadata"]["component"]["version"] == check(bundle).manifest["model_digest"]


def test_it_is_signed_for(bundle, check):
    path = bundle / mlbom.NAME
    path.write_text(path.read_text().replace("PASS", "pass"))
    assert [finding.file for finding in check(bundle).findings] == [mlbom.NAME]


CONTRADICTIONS = [
    ("version", lambda model: model.update(version="sha256:" + "0" * 64)),
    ("components", lambda model: model["components"][0]["hashes"][0].update(content="0" * 64)),
    ("components", lambda model: model["components"].pop()),
    ("modelCard.properties", lambda model: model["modelCard"]["properties"].pop()),
    (
        "modelCard.quantitativeAnalysis",
        lambda model: model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"].pop(),
    ),
    ("", lambda model: model.update(modelCard=7)),
]


@pytest.mark.parametrize(("place", "edit"), rest_in_full(CONTRADICTIONS, CONTRADICTIONS[::2]))
def test_a_bill_that_the_bundle_contradicts_is_found(bundle, check, keys, place, edit):
    edit_json(bundle / mlbom.NAME, lambda bill: edit(bill["metadata"]["component"]))
    sign_manifest(bundle, keys.signing)
    (finding,) = check(bundle).findings
    assert finding.file == mlbom.NAME
    assert finding.where == f"metadata.component.{place}".rstrip(".")


def test_a_failed_bundle_says_so(failed):
    text = (failed / mlbom.NAME).read_text()
    assert '"FAIL"' in text
    assert '"PASS"' not in text


def test_nothing_private_is_in_it(bundle):
    text = (bundle / mlbom.NAME).read_text()
    for trace in ("verbatim", "mcnemar", "aspirin", "vocab_size", "recipients"):
        assert trace not in text


def test_the_order_of_the_files_does_not_matter(bundle, claim, facts, now):
    decision = decide(load_policy("internal"), facts, now=now)
    paths = [(f"model/{path.name}", path) for path in (bundle / "model").glob("*.sealed")]
    ways = [
        mlbom.bill_of_materials(
            model_digest="sha256:1",
            sealed=dict(order),
            statement=claim.to_json(),
            decision=decision,
        )
        for order in (paths, paths[::-1])
    ]
    assert json.dumps(ways[0]) == json.dumps(ways[1])


@pytest.mark.full
def test_the_same_bytes_in_every_process(bundle, claim, tmp_path):
    facts = tmp_path / "facts.json"
    decision = json.loads((bundle / "decision.json").read_text())
    facts.write_text(json.dumps({"claim": claim.to_json(), "decision": decision}))
    program = """
import json, sys
from pathlib import Path
from dpmlm.release import mlbom
from dpmlm.release.gate import Decision
facts = json.loads(Path(sys.argv[2]).read_text())
sealed = {"model/" + path.name: path for path in Path(sys.argv[1], "model").glob("*.sealed")}
print(json.dumps(mlbom.bill_of_materials(
    model_digest="sha256:1", sealed=sealed, statement=facts["claim"],
    decision=Decision.from_json(facts["decision"]))))
"""

    def once(seed):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", program, str(bundle), str(facts)]
        return subprocess.run(command, capture_output=True, check=True, env=environment).stdout

    assert once("1") == once("2")
