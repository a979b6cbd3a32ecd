"""Statements as somebody reads them who has the specifications and not our code."""

import base64
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def opened(path, public: bytes) -> dict:
    """A statement by the DSSE protocol alone, without our code: signature over PAE, then JSON."""
    envelope = json.loads(path.read_bytes())
    assert set(envelope) == {"payload", "payloadType", "signatures"}
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    (signature,) = envelope["signatures"]
    body, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    signed = b" ".join([b"DSSEv1", b"%d" % len(kind), kind, b"%d" % len(body), body])
    Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(signature["sig"]), signed)
    assert signature["keyid"] == hashlib.sha256(public).hexdigest()[:16]
    return json.loads(body)


def naive_subject(folder) -> list:
    """Twin of `subject_of`, from the bytes on disk."""
    digests = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    left_out = {"manifest.dsse.json", "model/recipients.json"}
    named = ",".join(
        f'"{name}":"sha256:{digests[name]}"'
        for name in sorted(digests)
        if name not in left_out and not name.startswith("attestations/")
    )
    release = hashlib.sha256(b"{" + named.encode() + b"}").hexdigest()
    sealed = sorted(name for name in digests if name.endswith(".sealed"))
    return [
        {"name": "release", "digest": {"sha256": release}},
        *({"name": name, "digest": {"sha256": digests[name]}} for name in sealed),
    ]
