"""Keys that stay in AWS KMS: wrapping and unwrapping are calls to the service.

Who may open is then decided at each call, by the key's policy, and every call is in the service's
log. Both name the artifact: the encryption context is {"dpmlm": its label, "context": SHA-256 of
what it is bound to}, and the service refuses to unwrap under another one.

Endpoint and credentials are boto3's: AWS_ENDPOINT_URL, AWS_PROFILE, an instance's role.
"""

import functools
import hashlib
import os
import re
from typing import Any

from dpmlm.artifacts.endpoints import refuse_clear
from dpmlm.errors import UserError

MAX_WRAPPED_BYTES = 6144
"""Longest ciphertext that the service takes."""
_ARN = re.compile(r"arn:aws[a-z-]{0,16}:kms:([a-z0-9-]{1,32}):\d{12}:key/[A-Za-z0-9-]{1,64}")
_NOT_OURS = {"InvalidCiphertextException", "IncorrectKeyException"}
_SECONDS = 10


def is_arn(name: str) -> bool:
    """Whether it names one KMS key. An alias does not: what it points to changes."""
    return _ARN.fullmatch(name) is not None


def check_arn(arn: str) -> str:
    """`arn`; UserError if it is no key's."""
    if not is_arn(arn):
        raise UserError(
            f"kms:{arn}",
            "a KMS key is named by its ARN, arn:aws:kms:REGION:ACCOUNT:key/ID; an alias is none",
            "take the KeyArn that `aws kms describe-key` prints",
        )
    return arn


def wrap(arn: str, key: bytes, *, info: bytes, label: str) -> bytes:
    """`key` encrypted by the service; UserError if it cannot be reached or refuses."""
    context = _encryption_context(info, label)
    return bytes(_call(arn, "encrypt", Plaintext=key, EncryptionContext=context)["CiphertextBlob"])


def unwrap(arn: str, wrapped: bytes, *, info: bytes, label: str) -> bytes | None:
    """The key, or None if it was not wrapped by this key for this context.

    UserError if the service cannot be reached or does not let the caller use the key.
    """
    context = _encryption_context(info, label)
    answer = _call(arn, "decrypt", CiphertextBlob=wrapped, EncryptionContext=context)
    return bytes(answer["Plaintext"]) if answer else None


def _encryption_context(info: bytes, label: str) -> dict[str, str]:
    return {"dpmlm": label, "context": hashlib.sha256(info).hexdigest()}


def _call(arn: str, verb: str, **fields: Any) -> dict[str, Any]:
    """The service's answer; empty where it says that the ciphertext is none of this key's."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_KMS") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:  # a wrapped key's plaintext travels to the service and back
        refuse_clear(f"AWS_ENDPOINT_URL={endpoint}", endpoint, "keys travel")
    try:
        from botocore.exceptions import BotoCoreError, ClientError

        client = _client(_region(arn), endpoint)
    except ImportError:
        raise UserError(
            f"kms:{arn}",
            "keys of AWS KMS need boto3, which is not installed",
            "run `pip install 'dpmlm-framework[kms]'`",
        ) from None
    try:
        answer: dict[str, Any] = getattr(client, verb)(KeyId=arn, **fields)
        return answer
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "?"))
        if verb == "decrypt" and code in _NOT_OURS:
            return {}
        raise UserError(
            f"kms:{arn}",
            f"{client.meta.endpoint_url} refused to {verb} with it ({code})",
            "check that the key exists in that region, and that its policy lets you use it",
        ) from None
    except BotoCoreError as error:
        raise UserError(
            f"kms:{arn}",
            f"{client.meta.endpoint_url} could not be asked ({type(error).__name__})",
            "check the network, AWS_ENDPOINT_URL and your credentials, then repeat",
        ) from None


@functools.cache
def _client(region: str, endpoint: str | None) -> Any:
    """Keyed by the endpoint too: boto3 reads it from the environment when a client is made."""
    import boto3
    from botocore.config import Config

    patience = Config(
        connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"total_max_attempts": 2}
    )
    try:
        return boto3.session.Session().client("kms", region_name=region, config=patience)
    except ValueError:
        raise UserError(
            f"AWS_ENDPOINT_URL={endpoint}", "it is no address", "name an https:// endpoint"
        ) from None


def _region(arn: str) -> str:
    return check_arn(arn).split(":")[3]
