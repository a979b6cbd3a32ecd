"""Accountants, DP optimizer and grad-sample interface stay those of Opacus, extended."""

import pytest
from opacus.accountants.analysis import prv, rdp
from opacus.grad_sample.gsm_base import AbstractGradSampleModule
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping

from dpmlm.clipping import MaskedLMGradSampleModule
from dpmlm.privacy import make_plan
from dpmlm.training import SecureDPOptimizer


class Called(Exception):
    """Raised instead of what was to be called."""


def test_the_optimizer_and_the_module_extend_those_of_opacus():
    assert issubclass(SecureDPOptimizer, DPOptimizerFastGradientClipping)
    assert issubclass(SecureDPOptimizer, DPOptimizer)
    assert SecureDPOptimizer.step is DPOptimizerFastGradientClipping.step
    assert SecureDPOptimizer.scale_grad is DPOptimizer.scale_grad
    assert issubclass(MaskedLMGradSampleModule, AbstractGradSampleModule)


@pytest.mark.parametrize(
    ("accountant", "module", "function"),
    [("prv", prv, "compose_heterogeneous"), ("rdp", rdp, "compute_rdp")],
)
def test_the_accountants_are_those_of_opacus(monkeypatch, accountant, module, function):
    plan = make_plan(
        epsilon=8, delta=1e-6, units=1000, expected_batch_size=50, steps=10, max_grad_norm=1.0,
        accountant="rdp",
    )  # fmt: skip

    def called(*_, **__):
        raise Called

    monkeypatch.setattr(module, function, called)
    from dpmlm.privacy import accountants

    with pytest.raises(Called):
        accountants._METHODS[accountant][0](plan.composition(3), 1e-6)
