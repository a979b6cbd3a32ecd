"""Sealed artifacts: what the rest of the package reads and writes is encrypted, whole and checked.

Reading order: `chunks` (the encryption format), `identities`, `kms` and `recipients` (who can
open), `sealed` (one file), `folder` (a stage's artifact), `rotation` (changing who can open),
`providers`, `passphrase` and `keys` (where keys are kept), `dsse` (signatures), `merkle` and
`notes` (logs under signed heads),
`tensors` and `models` (a model in a folder, without a plaintext file on the way).

Importing this package does not import torch; what is in `models` does.
"""

from typing import TYPE_CHECKING

from dpmlm.artifacts.atomic import atomic_write
from dpmlm.artifacts.chunks import (
    SealedReader,
    SealedWriter,
    decrypt_bytes,
    decrypt_into,
    encrypt_bytes,
    encrypt_into,
    sealed_size,
)
from dpmlm.artifacts.folder import SealedFolder
from dpmlm.artifacts.identities import CLASSICAL, HYBRID, KMS, Identity, Recipient, new_identity
from dpmlm.artifacts.keys import (
    create_keys,
    load_identity,
    load_recipient,
    load_secret_key,
    load_signing_key,
    load_trusted_keys,
    load_verify_key,
    new_secret_key,
    save_identity,
    save_recipient,
    save_secret_key,
    save_signing_key,
    save_verify_key,
)
from dpmlm.artifacts.recipients import MAX_RECIPIENTS
from dpmlm.artifacts.sealed import open_sealed, seal
from dpmlm.artifacts.signing import SigningKey, VerifyKey, new_signing_key
from dpmlm.canonical import canonical_json, digest
from dpmlm.errors import IntegrityError, UserError
from dpmlm.lazy import lazy_names

if TYPE_CHECKING:
    from dpmlm.artifacts.dsse import open_envelope, sign_envelope
    from dpmlm.artifacts.models import load_model, model_digest, save_model, tokenizer_digest
    from dpmlm.artifacts.tensors import SealedTensors, open_tensors, write_tensors

__all__ = [
    "CLASSICAL",
    "HYBRID",
    "KMS",
    "MAX_RECIPIENTS",
    "Identity",
    "IntegrityError",
    "Recipient",
    "SealedFolder",
    "SealedReader",
    "SealedTensors",
    "SealedWriter",
    "SigningKey",
    "UserError",
    "VerifyKey",
    "atomic_write",
    "canonical_json",
    "create_keys",
    "decrypt_bytes",
    "decrypt_into",
    "digest",
    "encrypt_bytes",
    "encrypt_into",
    "load_identity",
    "load_model",
    "load_recipient",
    "load_secret_key",
    "load_signing_key",
    "load_trusted_keys",
    "load_verify_key",
    "model_digest",
    "new_identity",
    "new_secret_key",
    "new_signing_key",
    "open_envelope",
    "open_sealed",
    "open_tensors",
    "save_identity",
    "save_model",
    "save_recipient",
    "save_secret_key",
    "save_signing_key",
    "save_verify_key",
    "seal",
    "sealed_size",
    "sign_envelope",
    "tokenizer_digest",
    "write_tensors",
]


# These need torch, transformers or securesystemslib.
__getattr__ = lazy_names(
    __name__,
    {
        "dsse": ("open_envelope", "sign_envelope"),
        "models": ("load_model", "model_digest", "save_model", "tokenizer_digest"),
        "tensors": ("SealedTensors", "open_tensors", "write_tensors"),
    },
)
