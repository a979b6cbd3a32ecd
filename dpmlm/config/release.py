"""`release:` and `keys:` in a run file: who may open what."""

from pathlib import Path

from pydantic import Field

from dpmlm.config.section import Section, speed


class KeysConfig(Section):
    """Key files; `dpmlm keys new` writes them."""

    identity: Path
    """Private identity of the trainer: opens and seals the workspace. Mode 0600."""
    signing: Path
    """Ed25519 key that signs the bundle's manifest. Mode 0600."""
    scrub: Path
    """32-byte secret behind pseudonyms, unit ids, splits and masks. Mode 0600."""


class ReleaseConfig(Section):
    """Who may open the result, and under which policy."""

    policy: str = "internal"
    """Name of a shipped policy or path of a YAML file."""
    intended_use: str = ""
    """What the model is for, in a sentence for its card; empty: what the policy says of a PASS."""
    recipients: list[Path] = Field(min_length=1)
    """Public keys of the consumers; they get the model's key on PASS only."""
    auditors: list[Path] = Field(default_factory=list)
    """Public keys that may always open the model, the evidence and the full report."""
    waivers: list[Path] = Field(default_factory=list)
    """Waivers of rules that do not hold, as `dpmlm gate waive` signs them."""
    approvers: list[Path] = Field(default_factory=list)
    """Public keys of those who may sign waivers; never the run's own signing key."""
    log: Path | None = speed(None)
    """Append-only log that the release is entered in, its signed head beside it (docs/log.md)."""
