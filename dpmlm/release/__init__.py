"""From evidence to a released model: policy, gate, bundle, verification, report.

Reading order: `policy` (what must hold), `facts` (what is looked at), `gate` (the verdict),
`bundle` (what is released), `provenance` and `attestations` (what its signer states of it),
`countersigning` (what others do), `inventory`, `consistency`, `trust` and `verification` (how a
stranger checks it), `log/` (the log of releases), `ledger_check` (a bundle beside its ledger),
`registry/` (releases under names), `exports` (what left in clear), `report/` (what people read).
"""

from typing import TYPE_CHECKING

from dpmlm.lazy import lazy_names

if TYPE_CHECKING:
    from dpmlm.release.bundle import load_released, write_bundle
    from dpmlm.release.facts import public_evidence
    from dpmlm.release.gate import Decision, RuleResult, decide
    from dpmlm.release.inventory import Finding
    from dpmlm.release.outside import Outside
    from dpmlm.release.policy import ReleasePolicy, load_policy, policy_names
    from dpmlm.release.provenance import BuildInputs
    from dpmlm.release.report import PrivateFigures, ReportData, model_card, render_report
    from dpmlm.release.verification import Verification, verify_bundle

__all__ = [
    "BuildInputs",
    "Decision",
    "Finding",
    "Outside",
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


__getattr__ = lazy_names(
    __name__,
    {
        "bundle": ("load_released", "write_bundle"),
        "facts": ("public_evidence",),
        "gate": ("Decision", "RuleResult", "decide"),
        "inventory": ("Finding",),
        "outside": ("Outside",),
        "policy": ("ReleasePolicy", "load_policy", "policy_names"),
        "provenance": ("BuildInputs",),
        "report": ("PrivateFigures", "ReportData", "model_card", "render_report"),
        "verification": ("Verification", "verify_bundle"),
    },
)
