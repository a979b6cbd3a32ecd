"""Plans for tests of the ledger: small ones, made by `make_plan`."""

import math

from dpmlm.privacy import PrivacyPlan, make_plan


def plan_of(epsilon: float = 2.0, steps: int = 20, **more: object) -> PrivacyPlan:
    values = {
        "epsilon": epsilon, "delta": 1e-6, "units": 5000, "expected_batch_size": 500,
        "steps": steps, "max_grad_norm": 1.0, **more,
    }  # fmt: skip
    return make_plan(**values)  # type: ignore[arg-type]


PLAN = plan_of()
INF = plan_of(math.inf)
