"""Whom a reader trusts, and with what: one folder of public keys, with folders for other roles.

    DIR/*.pub             trainers: they sign manifests, and the statements listed in them
    DIR/auditor/*.pub     auditors: they sign test results
    DIR/approver/*.pub    approvers: they sign verification summaries, and waivers
    DIR/registry/*.pub    keepers of a registry: they sign its lines, as trainers and approvers may

What a key may sign follows from where it lies. A key in two places could vouch for itself, so it is
refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dpmlm.artifacts import load_trusted_keys
from dpmlm.artifacts.signing import VerifyKey
from dpmlm.errors import UserError

TRAINER, AUDITOR, APPROVER, REGISTRY = "trainer", "auditor", "approver", "registry"
COUNTERSIGNERS = (AUDITOR, APPROVER)
"""Roles whose statements come after the manifest."""


@dataclass(frozen=True)
class Trust:
    """Public keys by role."""

    folder: Path
    """Where they were read from."""
    keys: Mapping[str, Mapping[str, VerifyKey]]
    """Role to its keys, by key id; without trainers there is no trust."""

    def role_of(self, key_id: str) -> str | None:
        """The one role that a key is trusted in."""
        return next((role for role, keys in self.keys.items() if key_id in keys), None)

    def place(self, role: str) -> Path:
        """The folder for keys of a role."""
        return self.folder if role == TRAINER else self.folder / role


def load_trust(folder: Path) -> Trust:
    """Read a folder of trusted keys.

    Raises UserError if it has no trainer's key, or one key lies in two roles.
    """
    folder = Path(folder)
    keys = {TRAINER: load_trusted_keys(folder)}
    for role in (*COUNTERSIGNERS, REGISTRY):
        below = folder / role
        keys[role] = load_trusted_keys(below) if any(below.glob("*.pub")) else {}
    seen: dict[str, str] = {}
    for role, found in keys.items():
        for key_id in found:
            if key_id in seen:
                raise UserError(
                    f"trusted keys {folder}, key {key_id}",
                    f"it is trusted as {seen[key_id]} and as {role}, and nobody countersigns "
                    "or excuses what they signed themselves",
                    "leave its .pub file in one of the folders",
                )
            seen[key_id] = role
    return Trust(folder, keys)
