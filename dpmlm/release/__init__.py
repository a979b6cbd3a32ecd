"""From evidence to a released model: policy, gate, bundle, verification, report.

Reading order: `policy` (what must hold), `facts` (what is looked at), `gate` (the verdict),
`bundle` (what is released), `inventory`, `consistency` and `verification` (how a stranger checks
it), `report` and `card` (what people read).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpmlm.release.bundle import load_released, write_bundle
    from dpmlm.release.card import model_card
    from dpmlm.release.facts import public_evidence
    from dpmlm.release.gate import Decision, RuleResult, decide
    from dpmlm.release.inventory import Finding
    from dpmlm.release.policy import ReleasePolicy, load_policy, policy_names
    from dpmlm.release.report import PrivateFigures, ReportData, render_report
    from dpmlm.release.verification import Verification, verify_bundle

_LAZY = {
    "Decision": "gate",
    "Finding": "inventory",
    "PrivateFigures": "report",
    "ReleasePolicy": "policy",
    "ReportData": "report",
    "RuleResult": "gate",
    "Verification": "verification",
    "decide": "gate",
    "load_policy": "policy",
    "load_released": "bundle",
    "model_card": "card",
    "policy_names": "policy",
    "public_evidence": "facts",
    "render_report": "report",
    "verify_bundle": "verification",
    "write_bundle": "bundle",
}

__all__ = [
    "Decision",
    "Finding",
    "PrivateFigures",
    "ReleasePolicy",
    "ReportData",
    "RuleResult",
    "Verification",
    "decide",
    "load_policy",
    "load_released",
    "model_card",
    "policy_names",
    "public_evidence",
    "render_report",
    "verify_bundle",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when it is first asked for."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
