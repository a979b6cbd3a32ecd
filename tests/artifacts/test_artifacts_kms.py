"""Keys that stay in AWS KMS, against the server of moto on this machine.

moto wraps, unwraps and holds encryption contexts as the service does. It goes on unwrapping under a
disabled key, so that a key's policy shuts somebody out is the service's promise and not shown here.
"""

import base64
import hashlib
import json
import logging
import socket
import sys
from pathlib import Path

import pytest

from dpmlm.artifacts import (
    CLASSICAL,
    HYBRID,
    KMS,
    IntegrityError,
    SealedFolder,
    UserError,
    canonical_json,
    load_identity,
    load_recipient,
    new_identity,
)
from dpmlm.artifacts.recipients import WrappedKey
from dpmlm.artifacts.rotation import Change, plan_folder

pytestmark = pytest.mark.xdist_group("kms-server")

KEY = bytes(range(32))
CONTEXT = b"tests/kms"
ARN = "arn:aws:kms:eu-west-1:123456789012:key/0a1b2c3d-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def server():
    """Address of a running server."""
    reason = "moto is not installed (pip install 'moto[server]' boto3): KMS is not tested"
    pytest.importorskip("boto3", reason=reason)
    moto = pytest.importorskip("moto.server", reason=reason)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture(scope="module")
def client(server):
    """The service itself, asked past our code."""
    import boto3

    session = boto3.session.Session("testing", "testing", region_name="eu-west-1")
    return session.client("kms", endpoint_url=server)


@pytest.fixture(scope="module")
def two_keys(client) -> list[str]:
    """ARNs of two keys of one account."""
    return [client.create_key()["KeyMetadata"]["Arn"] for _ in range(2)]


@pytest.fixture
def environment(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")


@pytest.fixture
def arns(environment, two_keys) -> list[str]:
    return two_keys


def unwrap(data: bytes, *where: str) -> bytes:
    wrapped = WrappedKey.parse(data, name="r.json")
    identities = [load_identity(f"kms:{arn}") for arn in where]
    return wrapped.unwrap(identities, context=CONTEXT, name="r.json")


def test_a_kms_key_opens_what_was_sealed_to_it_and_no_other_does(tmp_path, arns):
    first, second = (load_identity(f"kms:{arn}") for arn in arns)
    folder = SealedFolder.create(tmp_path / "f", [first.recipient], role="notes")
    folder.write_bytes("a", b"text")
    folder.finish({})
    assert SealedFolder.open(tmp_path / "f", [first]).read_bytes("a") == b"text"
    with pytest.raises(UserError, match="only the keys"):
        SealedFolder.open(tmp_path / "f", [second])
    with pytest.raises(UserError, match="only the keys"):
        SealedFolder.open(tmp_path / "f", [new_identity()])


def test_a_key_pair_and_a_kms_key_take_each_others_place(tmp_path, arns):
    pair, held = new_identity(), load_identity(f"kms:{arns[0]}")
    folder = SealedFolder.create(tmp_path / "f", [pair.recipient], role="notes")
    folder.finish({})
    change = Change(replace=((pair.key_id, held.recipient),))
    plan_folder(folder.path, [pair], change).write()
    SealedFolder.open(folder.path, [held])
    with pytest.raises(UserError, match="only the keys"):
        SealedFolder.open(folder.path, [pair])
    back = Change(replace=((held.key_id, pair.recipient),))
    plan_folder(folder.path, [held], back).write()
    SealedFolder.open(folder.path, [pair])


@pytest.mark.parametrize("kem", [HYBRID, CLASSICAL])
def test_kms_keys_stand_beside_key_pairs(arns, kem):
    pair = new_identity(kem)
    recipients = [load_recipient(f"kms:{arns[0]}"), pair.recipient]
    data = WrappedKey.wrap(KEY, recipients, label="notes", context=CONTEXT).to_bytes()
    fields = json.loads(data)
    assert (fields["format"], fields["kem"]) == ("dpmlm.recipients/2", kem)
    assert unwrap(data, arns[0]) == KEY
    wrapped = WrappedKey.parse(data, name="r.json")
    assert wrapped.unwrap([pair], context=CONTEXT, name="r.json") == KEY
    alone = wrapped.rewrap(KEY, keep=[wrapped.key_ids[0]], add=(), context=CONTEXT)
    assert alone.kem == KMS
    assert unwrap(alone.to_bytes(), arns[0]) == KEY
    none = wrapped.rewrap(KEY, keep=[pair.key_id], add=(), context=CONTEXT)
    assert json.loads(none.to_bytes())["format"] == "dpmlm.recipients/1"


def test_the_service_is_told_label_and_context_and_holds_to_them(arns, client):
    recipient = load_recipient(f"kms:{arns[0]}")
    data = WrappedKey.wrap(KEY, [recipient], label="notes", context=CONTEXT).to_bytes()
    blob = base64.b64decode(json.loads(data)["recipients"][0]["wrapped"])
    digest = hashlib.sha256(b"dpmlm recipients/1\x00" + CONTEXT).hexdigest()
    told = {"dpmlm": "notes", "context": digest}
    assert client.decrypt(CiphertextBlob=blob, EncryptionContext=told)["Plaintext"] == KEY
    wrapped = WrappedKey.parse(data, name="r.json")
    identity = load_identity(f"kms:{arns[0]}")
    with pytest.raises(IntegrityError, match="another context"):
        wrapped.unwrap([identity], context=b"other", name="r.json")
    renamed = {**json.loads(data), "label": "corpus"}
    with pytest.raises(IntegrityError, match="does not open"):
        unwrap(canonical_json(renamed) + b"\n", arns[0])


def test_changed_entries_are_found(arns):
    recipients = [load_recipient(f"kms:{arn}") for arn in arns]
    data = WrappedKey.wrap(KEY, recipients, label="notes", context=CONTEXT).to_bytes()
    good = json.loads(data)

    def changed(**fields: object) -> bytes:
        rows = [{**good["recipients"][0], **fields}, *good["recipients"][1:]]
        return canonical_json({**good, "recipients": rows}) + b"\n"

    for fields in (
        {"kms": arns[1]}, {"kms": ""}, {"kms": "alias/x"}, {"key_id": "0" * 16},
        {"wrapped": ""}, {"wrapped": base64.b64encode(bytes(6145)).decode()}, {"more": 1},
    ):  # fmt: skip
        with pytest.raises(IntegrityError):  # without a key, as verifying does
            WrappedKey.parse(changed(**fields), name="r.json")
    old = canonical_json({**good, "format": "dpmlm.recipients/1"}) + b"\n"
    with pytest.raises(IntegrityError):
        WrappedKey.parse(old, name="r.json")
    with pytest.raises(IntegrityError, match="MAC"):
        unwrap(canonical_json({**good, "recipients": good["recipients"][:1]}) + b"\n", arns[0])
    junk = changed(wrapped=base64.b64encode(bytes(60)).decode())
    with pytest.raises(IntegrityError, match="does not open"):
        unwrap(junk, arns[0])


def test_another_region_has_no_such_key(arns):
    elsewhere = arns[0].replace("eu-west-1", "us-east-2")
    with pytest.raises(UserError, match=r"us-east-2.*refused to encrypt.*NotFoundException"):
        load_recipient(f"kms:{elsewhere}").wrap(KEY, info=b"")


def test_a_service_that_is_down_is_named(server, environment, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    with pytest.raises(UserError, match=rf"{address} could not be asked \(EndpointConnectionErr"):
        load_recipient(f"kms:{ARN}").wrap(KEY, info=b"")


def test_without_credentials_it_says_so(server, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.replace("127.0.0.1", "localhost"))
    with pytest.raises(UserError, match=r"NoCredentialsError.*credentials"):
        load_recipient(f"kms:{ARN}").wrap(KEY, info=b"")


def test_without_boto3_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)
    with pytest.raises(UserError, match=r"pip install 'dpmlm-framework\[kms\]'"):
        load_identity(f"kms:{ARN}").unwrap(b"x", info=b"")


@pytest.mark.parametrize("endpoint", ["http://kms.example.org", "http://10.0.0.7:4566", "nowhere"])
def test_keys_do_not_travel_in_clear(monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(UserError, match="TLS"):
        load_recipient(f"kms:{ARN}").wrap(KEY, info=b"")


@pytest.mark.parametrize(
    "name",
    ["", "alias/notes", "arn:aws:kms:eu-west-1:123456789012:alias/notes", ARN + "\n", ARN[:-40],
     "arn:aws:s3:::bucket", ARN.replace("123456789012", "12"), "0a1b2c3d"],
)  # fmt: skip
def test_what_is_no_key_of_the_service_is_refused(name):
    with pytest.raises(UserError, match="KeyArn"):
        load_identity(f"kms:{name}")
    with pytest.raises(UserError, match="KeyArn"):
        load_recipient(f"kms:{name}")


def test_a_kms_recipient_may_be_a_file(tmp_path: Path) -> None:
    from dpmlm.artifacts import Recipient, save_recipient

    save_recipient(tmp_path / "team.pub", Recipient(KMS, ARN.encode(), "auditor"))
    assert load_recipient(tmp_path / "team.pub") == load_recipient(f"kms:{ARN}")
    fields = json.loads((tmp_path / "team.pub").read_text())
    (tmp_path / "bad.pub").write_text(json.dumps({**fields, "key": "AAAA"}))
    with pytest.raises(UserError, match="not a whole"):
        load_recipient(tmp_path / "bad.pub")
