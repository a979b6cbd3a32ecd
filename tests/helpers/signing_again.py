"""What a signer does who means it: state and sign a bundle as it lies there, or lie about it."""

import base64
import json

from dpmlm.artifacts import canonical_json, sign_envelope
from dpmlm.release.bundle import _sign
from dpmlm.release.consistency import read_contents
from dpmlm.release.countersigning import Bundle
from dpmlm.release.inventory import MANIFEST, PAYLOAD_TYPE, take_inventory
from dpmlm.release.provenance import inputs_of


def payload_of(path) -> dict:
    """The statement in an envelope, its signature not checked."""
    return json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))


def write_envelope(path, payload, *keys) -> None:
    """Sign whatever is given."""
    path.write_bytes(canonical_json(sign_envelope(payload, PAYLOAD_TYPE, keys)))


def sign_manifest(folder, key, edit=lambda predicate: None) -> None:
    """List the files as they are now and sign the manifest; statements stay as they are."""
    payload = payload_of(folder / MANIFEST)
    files = take_inventory(folder)
    payload["predicate"]["files"] = files
    payload["subject"] = [
        {"name": name, "digest": {"sha256": record["digest"].removeprefix("sha256:")}}
        for name, record in sorted(files.items())
    ]
    edit(payload["predicate"])
    write_envelope(folder / MANIFEST, payload, key)


def sign_anew(folder, key, **fields) -> None:
    """Sign statements and manifest again; `fields` change the manifest."""
    predicate = payload_of(folder / MANIFEST)["predicate"] | fields
    del predicate["files"]
    inputs = inputs_of(payload_of(folder / "attestations/provenance.dsse.json")["predicate"])
    contents, findings = read_contents(folder)
    assert not findings
    _sign(folder, predicate, contents, inputs, key)


def edit_json(path, edit) -> None:
    """Change a JSON file in place; nothing signs that."""
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def parsed(folder) -> Bundle:
    """A bundle whose rest is taken to be sound, which spares the time to look at it again."""
    manifest, (contents, _) = payload_of(folder / MANIFEST)["predicate"], read_contents(folder)
    return Bundle(folder, manifest, contents)
