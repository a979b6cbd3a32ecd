"""What a tracking server is told of a release: public figures, each of which stands in its bundle.

Nothing here is looked up in a part that `facts` calls private, and what is labelled private is not
found: no loss, norm or count of private text has a path to a server.
"""

import math
from collections.abc import Mapping
from typing import Any

from dpmlm.release.facts import Missing, find, is_private, number
from dpmlm.release.registry.passing import Release

FIGURES = {
    "epsilon": "statement.epsilon",
    "delta": "statement.delta",
    "steps": "ledger.committed_steps",
    "noise_multiplier": "plan.noise_multiplier",
    "sample_rate": "plan.sample_rate",
    "max_grad_norm": "plan.max_grad_norm",
    "canaries": "audit.subjects.target.gating.canaries",
    "guesses": "audit.subjects.target.gating.guesses",
    "guesses_right": "audit.subjects.target.gating.correct",
    "exposure_mean_bits": "audit.subjects.target.exposure.mean_bits",
    "canaries_extracted": "audit.subjects.target.canary_extraction.extracted",
}
"""Numbers, by their path in the statement or the facts of a bundle."""
SETTINGS = {
    "unit": "plan.unit",
    "scope": "plan.scope",
    "accountant": "ledger.accountant",
    "noise": "plan.noise",
    "plan_digest": "ledger.plan_digest",
    "scrub_policy": "training.scrub_policy",
}
"""Words."""


def metrics(release: Release) -> dict[str, float]:
    """Finite figures; what was not measured is left out."""
    found = {name: number(value) for name, value in _look(release, FIGURES).items()}
    return {name: value for name, value in found.items() if value is not None and _finite(value)}


def params(release: Release) -> dict[str, str]:
    """Settings, and the figures that are no finite number."""
    shown = {name: str(value) for name, value in _look(release, SETTINGS).items()}
    infinite = {
        name: str(value)
        for name, value in _look(release, FIGURES).items()
        if (given := number(value)) is not None and not _finite(given)
    }
    return {**shown, **infinite}


def tags(release: Release) -> dict[str, str]:
    """What a release is known by."""
    manifest = release.checked.manifest
    claim = release.contents.statement
    return {
        "dpmlm.verdict": release.verdict,
        "dpmlm.release": release.digest,
        "dpmlm.run_id": release.run_id,
        "dpmlm.model_digest": str(manifest["model_digest"]),
        "dpmlm.policy": release.contents.policy.policy,
        "dpmlm.policy_digest": str(manifest["policy_digest"]),
        "dpmlm.epsilon": str(claim.get("epsilon")),
        "dpmlm.delta": str(claim.get("delta")),
    }


def _look(release: Release, paths: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    facts = {**release.contents.facts, "statement": release.contents.statement}
    for name, path in paths.items():
        value = find(facts, path)
        if not isinstance(value, Missing) and not is_private(path):
            found[name] = value
    return found


def _finite(value: float) -> bool:
    return math.isfinite(value)
