"""`dpmlm audit`: attack a model from outside the pipeline that made it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import audits
from audits.canaries import CanarySet
from dpmlm.artifacts import Identity, SealedFolder, atomic_write, canonical_json, load_identity
from dpmlm.errors import UserError
from dpmlm.pipeline.progress import Progress


@dataclass(frozen=True)
class Attack:
    """Evidence, where it was written, and whether a test rejected the claim."""

    evidence: dict[str, Any]
    out: Path

    @property
    def rejected(self) -> list[str]:
        """Gating tests that rejected the claim."""
        return list(self.evidence["subjects"]["target"]["rejected_by"])

    def text(self) -> str:
        power = self.evidence["power"]["status"]
        caught = ", ".join(self.rejected) or "no test"
        return f"wrote {self.out}\nrejected by {caught}; power {power}"


def attack(
    model: Path,
    *,
    canaries: Path,
    plan: Path,
    out: Path,
    control: Path | None,
    untrained: Path | None,
    reference: Path | None,
    identity: Path | None,
    beta: float,
) -> Attack:
    """Score `model` on known canaries against the claim of a plan and write the evidence."""
    if out.exists():
        raise UserError(f"--out {out}", "it is there already", "name a new file")
    identities = [load_identity(identity)] if identity else []

    def optional(path: Path | None) -> audits.LoadedModel | None:
        return audits.load(path, identities) if path else None

    with Progress().bar("audit") as report:
        evidence = audits.audit(
            audits.load(model, identities),
            plan=read_json(plan, "--plan"),
            canaries=_read_canaries(canaries, identities),
            control=optional(control),
            untrained=optional(untrained),
            reference=optional(reference),
            beta=beta,
            progress=report,
        )
    with atomic_write(out) as file:
        file.write(canonical_json(evidence))
    return Attack(evidence, out)


def read_json(path: Path, option: str) -> Any:
    """A JSON file that an option names."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{option} {path}", f"no JSON can be read there ({type(error).__name__})", "check it"
        ) from None


def _read_canaries(path: Path, identities: list[Identity]) -> CanarySet:
    if path.is_dir():
        return CanarySet.read(SealedFolder.open(path, identities))
    return CanarySet.from_json(read_json(path, "--canaries"))
