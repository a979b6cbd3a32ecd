"""What a registry asks of a bundle: that it verifies, and before an alias points to it, a PASS."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dpmlm.errors import UserError
from dpmlm.release.asked import other_policy
from dpmlm.release.consistency import Contents
from dpmlm.release.inventory import release_digest
from dpmlm.release.policy import load_policy
from dpmlm.release.registry.history import PASS
from dpmlm.release.verification import Verification, verify_bundle
from dpmlm.release.waivers import refuse_expired


class NotPassed(UserError):
    """The gate did not say PASS, or said it on a waiver that has expired."""


@dataclass(frozen=True)
class Release:
    """A bundle that verified."""

    folder: Path
    checked: Verification
    """What verifying it found: no finding."""
    contents: Contents
    """Its public files."""

    @property
    def digest(self) -> str:
        """Names the release, whoever can open it."""
        return release_digest(self.checked.manifest["files"])

    @property
    def verdict(self) -> str:
        """PASS, FAIL or INCONCLUSIVE."""
        return str(self.checked.verdict)

    @property
    def run_id(self) -> str:
        """Of the run that made it."""
        return str(self.checked.manifest["run_id"])


def read_release(bundle: Path, trusted_keys: Path, now: datetime) -> Release:
    """Verify a bundle; IntegrityError with its first finding if it does not."""
    checked = verify_bundle(bundle, trusted_keys, now=now)
    checked.insist(bundle)
    if checked.contents is None:
        raise ValueError("a bundle without findings was parsed")
    return Release(Path(bundle), checked, checked.contents)


def refuse_other_policy(release: Release, policy: Path | str) -> None:
    """UserError unless the bundle was judged by that policy."""
    for found in other_policy(release.contents.policy, load_policy(policy)):
        raise UserError(f"bundle {release.folder}, {found.file}", found.what, found.next_step)


def refuse_unpassed(release: Release, now: datetime) -> None:
    """NotPassed unless the gate said PASS, and every waiver it rests on is in force at `now`."""
    if release.verdict != PASS:
        raise NotPassed(
            f"bundle {release.folder} with verdict {release.verdict}",
            "no alias points to what did not pass its gate",
            f"read {release.folder / 'report.html'} to see which rules did not pass",
        )
    try:
        refuse_expired(release.folder, release.contents.decision.waivers, now)
    except UserError as error:
        raise NotPassed(error.given, error.rule, error.next_step) from None
