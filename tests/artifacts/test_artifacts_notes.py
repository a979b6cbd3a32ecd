"""Signed notes and checkpoints, read strictly; `cryptography` alone signs and verifies them too."""

import base64
import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dpmlm.artifacts import SigningKey, VerifyKey
from dpmlm.artifacts.notes import (
    MAX_SIZE,
    Checkpoint,
    key_hash,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
    sign_note,
)
from dpmlm.errors import IntegrityError

VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONnc"
    "AlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
"""The example of the signed-note specification, and its verifier key."""

ORIGIN = "dpmlm-log/0011223344556677"
KEY, OTHER = SigningKey(bytes([1]) * 32), SigningKey(bytes([2]) * 32)
TRUSTED = {KEY.key_id: KEY.verify_key}
HEAD = Checkpoint(ORIGIN, 3, bytes(range(32)))


def by_hand(text: str, name: str, seed: int) -> str:
    """A signature line without any of our code."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    public = private.public_key().public_bytes_raw()
    named = hashlib.sha256(name.encode() + b"\x0a\x01" + public).digest()[:4]
    signature = named + private.sign(text.encode())
    return f"— {name} {base64.b64encode(signature).decode()}\n"


def test_the_specifications_example():
    name, key_id, material = VKEY.split("+", 2)
    key = VerifyKey(base64.b64decode(material)[1:])
    assert key_hash(name, key).hex() == key_id
    note = parse_note(EXAMPLE)
    assert note.text == "This is an example message.\n"
    assert note.signed_by(name, {key.key_id: key}) == (key.key_id,)


def test_a_checkpoint_is_spelled_and_signed_as_another_implementation_does_it():
    text = f"{ORIGIN}\n3\n{base64.b64encode(bytes(range(32))).decode()}\n"
    data = HEAD.sign([KEY])
    assert data.decode() == f"{text}\n{by_hand(text, ORIGIN, 1)}"
    assert open_checkpoint(data, TRUSTED) == (HEAD, (KEY.key_id,))
    signed, _, line = data.decode().rpartition("\n\n")
    signature = base64.b64decode(line.split(" ")[2])[4:]
    public = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32).public_key()
    public.verify(signature, f"{signed}\n".encode())
    with pytest.raises(InvalidSignature):
        public.verify(signature, signed.encode())


def test_signatures_of_others_are_passed_over_and_one_is_needed():
    data = HEAD.sign([OTHER, KEY])
    assert open_checkpoint(data, TRUSTED)[1] == (KEY.key_id,)
    both = {**TRUSTED, OTHER.key_id: OTHER.verify_key}
    assert open_checkpoint(data, both)[1] == (OTHER.key_id, KEY.key_id)
    text = data.decode().rpartition("\n\n")[0] + "\n"
    witness = "— witness.example/w " + base64.b64encode(bytes(4) + b"x" * 4627).decode() + "\n"
    assert open_checkpoint(data + witness.encode(), TRUSTED)[1] == (KEY.key_id,)
    assert open_checkpoint(data + by_hand(text, ORIGIN, 1).encode(), TRUSTED)[1] == (KEY.key_id,)
    with pytest.raises(IntegrityError, match="none of the trusted keys"):
        open_checkpoint(HEAD.sign([OTHER]), TRUSTED)
    with pytest.raises(IntegrityError, match="nobody"):
        open_checkpoint(data, {})
    # Another name, the same key: not a signature of this log.
    with pytest.raises(IntegrityError, match="none of the trusted keys"):
        open_checkpoint(f"{text}\n{by_hand(text, 'other', 1)}".encode(), TRUSTED)


def test_a_wrong_signature_by_a_trusted_key_refuses_the_note_whatever_stands_beside_it():
    both = {**TRUSTED, OTHER.key_id: OTHER.verify_key}
    lines = HEAD.sign([KEY, OTHER]).decode().splitlines()
    name, spoiled = lines[-1].rsplit(" ", 1)
    raw = bytearray(base64.b64decode(spoiled))
    raw[20] ^= 1
    lines[-1] = f"{name} {base64.b64encode(raw).decode()}"
    data = ("\n".join(lines) + "\n").encode()
    assert open_checkpoint(data, TRUSTED)[1] == (KEY.key_id,)
    with pytest.raises(IntegrityError, match="does not match"):
        open_checkpoint(data, both)


def test_every_changed_bit_and_every_cut_of_a_signed_checkpoint_is_refused():
    data = HEAD.sign([KEY])
    for at in range(len(data)):
        for bit in (0, 2, 5, 7):
            other = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises(IntegrityError):
                open_checkpoint(other, TRUSTED)
        with pytest.raises(IntegrityError):
            open_checkpoint(data[:at], TRUSTED)


ROOT = base64.b64encode(bytes(32)).decode()
LINE = by_hand("x\n", "a/b", 1)
BAD_NOTES = {
    "nothing": b"",
    "no signature": b"text\n\n",
    "no empty line": ("text\n" + LINE).encode(),
    "no newline at its end": ("text\n\n" + LINE[:-1]).encode(),
    "carriage return": ("text\r\n\n" + LINE).encode(),
    "tab": ("te\txt\n\n" + LINE).encode(),
    "nul": ("te\0xt\n\n" + LINE).encode(),
    "no UTF-8": b"te\xffxt\n\n" + LINE.encode(),
    "hyphen for a dash": ("text\n\n" + LINE.replace("—", "-")).encode(),
    "a name with a plus": ("text\n\n" + LINE.replace("a/b", "a+b")).encode(),
    "a name with a wide space": ("text\n\n" + LINE.replace("a/b", "a\u3000b")).encode(),
    "no name": ("text\n\n" + LINE.replace("a/b", "")).encode(),
    "four bytes alone": b"text\n\n\xe2\x80\x94 a/b AAAAAA==\n",
    "base64 with a blank": ("text\n\n" + LINE.replace("=", " =")).encode(),
    "base64 that is not padded": ("text\n\n" + LINE.replace("=", "")).encode(),
    "too many": ("text\n\n" + LINE * 101).encode(),
    "too long": b"x" * (1 << 20) + b"\n\n" + LINE.encode(),
}


@pytest.mark.parametrize("data", BAD_NOTES.values(), ids=BAD_NOTES.keys())
def test_what_is_no_note_is_refused(data):
    with pytest.raises(IntegrityError, match="signed note"):
        parse_note(data)


def test_text_may_have_empty_lines_and_16_signatures_are_read():
    note = parse_note(("one\n\ntwo\n\n" + LINE * 16).encode())
    assert (note.text, len(note.signatures)) == ("one\n\ntwo\n", 16)


BAD_CHECKPOINTS = {
    "two lines": "o\n1\n",
    "no origin": f"\n1\n{ROOT}\n",
    "a leading zero": f"o\n01\n{ROOT}\n",
    "a sign": f"o\n+1\n{ROOT}\n",
    "another digit": f"o\n\u0661\n{ROOT}\n",
    "a blank": f"o\n1 \n{ROOT}\n",
    "too large": f"o\n{MAX_SIZE + 1}\n{ROOT}\n",
    "far too large": f"o\n{'9' * 5000}\n{ROOT}\n",
    "a short root": f"o\n1\n{base64.b64encode(bytes(31)).decode()}\n",
    "a hexadecimal root": f"o\n1\n{'00' * 32}\n",
    "base64 for addresses": f"o\n1\n{base64.urlsafe_b64encode(bytes([255]) * 32).decode()}\n",
    "an empty line": f"o\n1\n{ROOT}\n\nmore\n",
}


@pytest.mark.parametrize("text", BAD_CHECKPOINTS.values(), ids=BAD_CHECKPOINTS.keys())
def test_what_is_no_checkpoint_is_refused(text):
    data = f"{text}\n{by_hand(text, 'o', 1)}".encode()
    with pytest.raises(IntegrityError, match="signed note"):
        open_checkpoint(data, TRUSTED)


def test_sizes_of_nothing_and_of_the_most_and_extension_lines_are_read():
    for size in (0, 1, MAX_SIZE):
        text = f"o\n{size}\n{ROOT}\nextension\n"
        data = f"{text}\n{by_hand(text, 'o', 1)}".encode()
        assert open_checkpoint(data, TRUSTED)[0] == Checkpoint("o", size, bytes(32))
        assert parse_checkpoint(data)[0].size == size


@pytest.mark.parametrize(
    ("text", "name"),
    [("text", "o"), ("te\rxt\n", "o"), ("text\n", "o o"), ("text\n", "o+"), ("text\n", "")],
)
def test_nothing_is_signed_that_no_note_can_hold(text, name):
    with pytest.raises(ValueError, match=r"\w"):
        sign_note(text, name, [KEY])
    with pytest.raises(ValueError, match="signature"):
        sign_note("text\n", "o", [])
