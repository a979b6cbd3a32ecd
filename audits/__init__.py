"""Attacks on a masked language model, and what they say about its privacy claim.

Reading order: `planting` (secrets drawn before training), `scores` (what a model thinks of them),
`exposures` and `extraction` (how far they are from chance), `statistics` and `claim` (what may be
concluded, and could be), `exploring` and `text` (what is only looked at), `subject` and `evidence`
(all of them on a model, its control and its untrained self), `attack` (the command).
Nothing of the trainer is used: `audit` takes any Hugging Face masked language model, a plan and the
canaries.

    import audits
    evidence = audits.audit("model/", plan="plan.json", canaries=canaries,
                            control="control/", untrained="untrained/")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audits.evidence import audit
    from audits.models import LoadedModel, load
    from audits.planting.canaries import CanarySet, plan_canaries
    from audits.planting.canary import Canary
    from audits.planting.labels import Labels
    from audits.private import PrivateCases
    from audits.statistics import clopper_pearson, fdp_one_run_epsilon, one_run_epsilon
    from audits.text.spans import Span, VerbatimCase

_LAZY = {
    "Canary": "planting.canary",
    "CanarySet": "planting.canaries",
    "Labels": "planting.labels",
    "LoadedModel": "models",
    "PrivateCases": "private",
    "Span": "text.spans",
    "VerbatimCase": "text.spans",
    "audit": "evidence",
    "clopper_pearson": "statistics",
    "fdp_one_run_epsilon": "statistics",
    "load": "models",
    "one_run_epsilon": "statistics",
    "plan_canaries": "planting.canaries",
}

__all__ = [
    "Canary",
    "CanarySet",
    "Labels",
    "LoadedModel",
    "PrivateCases",
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
