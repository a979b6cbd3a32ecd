"""What a reader holds a bundle against that is not in it: log, ledger, policy, audits."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outside:
    """Files of the reader's own, or of the signer's; None for what is not there to compare."""

    log: Path | None = None
    """The release log, with its head beside it."""
    head: Path | None = None
    """A head of the log that was noted earlier, elsewhere."""
    proof: Path | None = None
    """What `dpmlm log prove` wrote, for a bundle that was logged after it was signed."""
    ledger: Path | None = None
    """The ledger of the corpus."""
    policy: Path | str | None = None
    """The policy by which it has to be judged, a shipped one by name."""
    continues: Path | None = None
    """The bundle of the release that it continues."""
    evidence: Path | None = None
    """An auditor's own evidence, as they handed it over."""
