"""What every stage of a run shares: the run file, the keys, the workspace, the progress."""

from dataclasses import dataclass, field
from typing import Any

from dpmlm.artifacts import (
    Identity,
    Recipient,
    SealedFolder,
    SigningKey,
    load_identity,
    load_recipient,
    load_secret_key,
    load_signing_key,
)
from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.secrets import RunSecrets
from dpmlm.pipeline.workspace import Workspace
from dpmlm.telemetry import Sinks


def data_order(config: RunConfig) -> tuple[str, ...]:
    """The stages that text passes through, in the order that the run file asks for."""
    both = ("dedup", "scrub") if config.dedup.before_scrub else ("scrub", "dedup")
    return ("corpus", *both, "tokens")


@dataclass(frozen=True)
class Run:
    """One run with its keys loaded."""

    config: RunConfig
    workspace: Workspace
    identity: Identity
    signing: SigningKey
    secrets: RunSecrets
    progress: Progress
    sinks: Sinks = field(default_factory=lambda: Sinks({}), repr=False, compare=False)
    """Those of the run file, once they are open."""
    memo: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What takes long to compute, once a run."""

    @classmethod
    def load(cls, config: RunConfig, progress: Progress) -> "Run":
        """Load every key before anything is written; a missing one is the user's to mend."""
        keys = config.keys
        run = cls(
            config,
            Workspace(config.workspace),
            load_identity(keys.identity),
            load_signing_key(keys.signing),
            RunSecrets.derive(load_secret_key(keys.scrub), config.seed),
            progress,
        )
        for path in (*config.release.recipients, *config.release.auditors):
            load_recipient(path)
        return run

    @property
    def own(self) -> list[Recipient]:
        """Who may open the workspace: the trainer alone."""
        return [self.identity.recipient]

    @property
    def keepers(self) -> list[Recipient]:
        """Who may open evidence and models whatever the verdict: trainer and auditors."""
        return [*self.own, *(load_recipient(path) for path in self.config.release.auditors)]

    @property
    def consumers(self) -> list[Recipient]:
        """Who gets the model's key on PASS."""
        return [load_recipient(path) for path in self.config.release.recipients]

    def source(self, stage: str) -> SealedFolder:
        """The artifact that a data stage reads: that of the stage before it."""
        order = data_order(self.config)
        return self.folder(order[order.index(stage) - 1])

    def folder(self, stage: str) -> SealedFolder:
        """The finished artifact of an earlier stage."""
        folder = self.finished(stage)
        if folder is None:
            raise UserError(
                f"stage {stage} in {self.workspace.path}",
                "it has not finished",
                "`dpmlm run` takes it up where it stopped",
            )
        return folder

    def finished(self, stage: str) -> SealedFolder | None:
        """The artifact of a stage; None if the stage has not finished."""
        path = self.workspace.stage(stage)
        if not (path / "recipients.json").exists():
            return None
        folder = SealedFolder.open(path, [self.identity])
        return folder if folder.manifest else None
