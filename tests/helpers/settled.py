"""Evidence made up from counts: every figure and conclusion that follows from them."""

from audits.claim.gating import trade_off_curve
from audits.planting.insertion import effective_exposures
from audits.statistics import holm
from audits.subject import TESTS, Rules, following
from audits.verdict import power_of_tests


def settled(audit: dict, plan: dict) -> dict:
    """`audit` with what follows from its counts under `plan`, in place."""
    claim, declared = audit["claim"], audit["declared"]
    curve = trade_off_curve(plan)
    claim["recomputed_epsilon"] = curve.epsilon(plan["delta"])
    copies = declared["copies"]
    declared["effective_exposures"] = effective_exposures(plan, copies=copies, arm="exempt")
    declared["tests"] = list(TESTS)
    rules = Rules(
        beta=declared["beta"],
        per_side=declared["guesses"] // 2,
        threshold_bits=declared["threshold_bits"],
        epsilon=claim["canary_epsilon"],
        delta=plan["delta"],
        curve=curve,
        smallest_multiple=1.4,
        no_test=None,
    )
    for one in audit["subjects"].values():
        for test, part in following(one, rules).items():
            one[test].update(part)
        p_values = {test: one[test]["p_value"] for test in TESTS}
        rejected = holm(p_values, declared["beta"])
        for test in TESTS:
            one[test]["rejected"] = test in rejected
        one["rejected_by"] = sorted(rejected)
    audit["power"] = power_of_tests(audit["subjects"])
    return audit
