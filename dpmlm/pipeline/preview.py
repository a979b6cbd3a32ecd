"""What a run would promise, before it spends anything: `dpmlm plan`."""

from dataclasses import asdict, dataclass
from typing import Any

from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.accounts import budget_text
from dpmlm.pipeline.models import open_ledger, plan_of
from dpmlm.privacy import AccountantTable, Ledger, PrivacyPlan


@dataclass(frozen=True)
class Preview:
    """A plan beside what three accountants say of it and what the ledger has left."""

    plan: PrivacyPlan
    table: AccountantTable
    ledger: dict[str, Any] | None
    """None where no corpus is registered yet."""
    refusal: str | None
    """Why the ledger would refuse the plan, if it would."""

    def to_json(self) -> dict[str, Any]:
        return {
            "plan": self.plan.to_json(),
            "accountants": asdict(self.table),
            "ledger": self.ledger,
            "refusal": self.refusal,
        }

    def text(self) -> str:
        plan, table = self.plan, self.table
        rows = [
            f"unit                 {plan.unit} (add or remove one)",
            f"epsilon, delta       {plan.epsilon:g}, {plan.delta:g}",
            f"noise_multiplier     {plan.noise_multiplier:.4f}",
            f"max_grad_norm        {plan.max_grad_norm:g}",
            f"sample_rate          {plan.sample_rate:.5f}"
            f" ({plan.expected_batch_size:g} of {plan.units} units expected a step)",
            f"steps                {plan.steps}",
            f"noise per step       {self._noise():.4g} of max_grad_norm on the mean gradient",
            f"scope                {plan.scope}",
            "",
            "epsilon by accountant at the last step",
            f"  prv {_figure(table.prv)}   pld {_figure(table.pld)}   rdp {_figure(table.rdp)}",
            "",
        ]
        if self.ledger is None:
            rows.append("ledger               no corpus is registered yet (dpmlm init)")
        else:
            rows.append(f"left in the ledger   {budget_text(self.ledger)}")
            accepted = "the ledger would accept it as a new run"
            rows.append(f"refused: {self.refusal}" if self.refusal else accepted)
        return "\n".join(rows)

    def _noise(self) -> float:
        return self.plan.noise_multiplier / self.plan.expected_batch_size


def _figure(value: float | None) -> str:
    return "fails" if value is None else f"{value:.4f}"


def preview(config: RunConfig) -> Preview:
    """Calibrate the plan of a run file; nothing is written and nothing is reserved."""
    plan = plan_of(config)
    table = plan.check()
    if not config.ledger.path.exists():
        return Preview(plan, table, None, None)
    left = asdict(Ledger.open(config.ledger.path).left())
    try:
        open_ledger(config.ledger).refuse_unaffordable(plan)
    except UserError as error:
        return Preview(plan, table, left, str(error))
    return Preview(plan, table, left, None)
