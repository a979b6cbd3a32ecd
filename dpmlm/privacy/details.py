"""`details`: what a claim has to say beside its sentence so that others can compare and convert it.

The fields are those that NIST SP 800-226 (2025) asks of somebody who claims differential privacy,
as far as the plan alone gives them: whoever has the plan can compute them again.
"""

import math
from typing import Any

from dpmlm.privacy.accountants import ACCOUNTANTS, AccountantFailure, epsilon_of, renyi_divergence
from dpmlm.privacy.plan import PrivacyPlan

RENYI_ORDERS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Orders at which the whole plan's divergence is told."""

CUSTOM_CODE = (
    "per-unit gradient norms and the clipped sum (dpmlm.clipping)",
    "sampling of units (dpmlm.privacy.sampling)",
    "the noise (dpmlm.privacy.noise, stream, discrete, bands)",
    "PRV in the direction of an added unit (dpmlm.privacy.accountants)",
    "the ledger and its filter (dpmlm.privacy.ledger, filter)",
)
"""What the claim rests on that is not a library's."""


def details(plan: PrivacyPlan) -> dict[str, Any]:
    """JSON object; accounting takes a second or two the first time a plan is asked about."""
    return {
        "variant": "(epsilon, delta)-differential privacy" if plan.private else "none",
        "adjacency": f"add or remove one {plan.unit}",
        "trust": "central: whoever trains reads the text; recipients get weights and figures alone",
        "release_model": "a release of the weights, not answers to queries: use is not counted",
        "contribution_bound": {
            "rows_of_a_unit_in_a_step": plan.bindings.get("windows_per_draw"),
            "tokens_of_a_row": plan.bindings.get("window"),
            "norm_of_a_units_gradient": _spelled(plan.max_grad_norm),
        },
        "mechanism": {
            "name": _mechanism(plan),
            "noise": plan.noise,
            "noise_multiplier": plan.noise_multiplier,
            "largest_sample": plan.max_batch_size,
            "plateaus": [
                {"steps": steps, "sample_rate": batch / plan.units}
                for steps, batch in plan.plateaus
            ],
            "bands": plan.bands,
            "coefficients": list(plan.coefficients),
            "accounted_as": [
                {"steps": part.steps, "sample_rate": part.sample_rate}
                for part in plan.composition()
            ],
        },
        "renyi": [
            {"order": order, "divergence": _divergence(plan, order)} for order in RENYI_ORDERS
        ],
        "custom_code": list(CUSTOM_CODE),
    }


def _mechanism(plan: PrivacyPlan) -> str:
    if plan.bands > 1:
        return (
            "Gaussian noise, correlated by banded matrix factorisation, on the clipped sums over "
            "cyclic Poisson samples (DP-BandMF)"
        )
    return "Gaussian noise on the clipped sum over a Poisson sample (DP-SGD)"


def epsilon_by_accountant(plan: PrivacyPlan) -> dict[str, float | str | None]:
    """Of the whole plan at its delta; null where an accountant does not bound it or fails."""
    if not plan.private:
        return dict.fromkeys(ACCOUNTANTS, "inf")
    found: dict[str, float | str | None] = {}
    for name in ACCOUNTANTS:
        try:
            found[name] = epsilon_of(name, plan.composition(), plan.delta)
        except AccountantFailure:
            found[name] = None
    return found


def _divergence(plan: PrivacyPlan, order: float) -> float | str | None:
    if not plan.private:
        return "inf"
    try:
        return _spelled(renyi_divergence(plan.composition(), order))
    except AccountantFailure:
        return None


def _spelled(value: float) -> float | str:
    return value if math.isfinite(value) else "inf"
