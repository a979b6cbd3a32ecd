"""Attacks on a masked language model, and what they say about its privacy claim.

Reading order: `canaries` (secrets drawn before training), `scoring` (what a model thinks of them),
`statistics`, `gating`, `exposure`, `extraction` (the tests), `subject` and `evidence` (all of
them on a model, its control and its untrained self). Nothing of the trainer is used: `audit`
takes any Hugging Face masked language model, a plan and the canaries.

    import audits
    evidence = audits.audit("model/", plan="plan.json", canaries=canaries,
                            control="control/", untrained="untrained/")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audits.canaries import Canary, CanarySet, plan_canaries
    from audits.evidence import audit
    from audits.extraction import Span, VerbatimCase
    from audits.models import LoadedModel, load
    from audits.statistics import clopper_pearson, fdp_one_run_epsilon, one_run_epsilon

_LAZY = {
    "Canary": "canaries",
    "CanarySet": "canaries",
    "LoadedModel": "models",
    "Span": "extraction",
    "VerbatimCase": "extraction",
    "audit": "evidence",
    "clopper_pearson": "statistics",
    "fdp_one_run_epsilon": "statistics",
    "load": "models",
    "one_run_epsilon": "statistics",
    "plan_canaries": "canaries",
}

__all__ = [
    "Canary",
    "CanarySet",
    "LoadedModel",
    "Span",
    "VerbatimCase",
    "audit",
    "clopper_pearson",
    "fdp_one_run_epsilon",
    "load",
    "one_run_epsilon",
    "plan_canaries",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import audits` does not import torch."""
    if name not in _LAZY:
        raise AttributeError(f"module 'audits' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"audits.{_LAZY[name]}"), name)
