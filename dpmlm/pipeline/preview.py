"""What a run would promise, before it spends anything: `dpmlm plan`."""

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmlm.artifacts import load_signing_key
from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.accounts import left_text, open_ledger
from dpmlm.pipeline.progress import Progress
from dpmlm.privacy import Ledger, statement

if TYPE_CHECKING:
    from dpmlm.config import DedupMode
    from dpmlm.pipeline.forecast import Forecast
    from dpmlm.privacy import AccountantTable, PartitionSelection, PrivacyPlan


@dataclass(frozen=True)
class Preview:
    """A plan beside what three accountants say of it and what the ledger has left."""

    plan: "PrivacyPlan"
    table: "AccountantTable"
    ledger: dict[str, Any] | None
    """None where no corpus is registered yet."""
    refusal: str | None
    """Why the ledger would refuse the plan, if it would."""
    forecast: "Forecast | str"
    """Signal, cost, and other ways to spend the same compute; or why there is none yet."""
    dedup: "DedupMode"
    """"stable" keeps the claim on the source corpus, "quality" does not."""
    vocabulary: dict[str, float] | None
    """Budget, noise and threshold of a vocabulary from the private text; None for a public one."""
    at_noise: "StepsAtNoise | None"
    """How many steps the budget buys with noise of the reader's choice; None where not asked."""
    sentence: str | None
    """What the run's release would say; None where the ledger would refuse."""

    def to_json(self) -> dict[str, Any]:
        return {
            "plan": self.plan.to_json(),
            "accountants": asdict(self.table),
            "ledger": self.ledger,
            "refusal": self.refusal,
            "forecast": None if isinstance(self.forecast, str) else self.forecast.to_json(),
            "dedup": self.dedup,
            "vocabulary": self.vocabulary,
            "at_noise": asdict(self.at_noise) if self.at_noise else None,
            "sentence": self.sentence,
        }

    def text(self) -> str:
        plan, table = self.plan, self.table
        rows = [
            f"unit                 {plan.unit} (add or remove one)",
            f"epsilon, delta       {plan.epsilon:g}, {plan.delta:g}",
            f"noise_multiplier     {plan.noise_multiplier:.4f} ({self._kind()})",
            f"max_grad_norm        {plan.max_grad_norm:g}",
            *self._batches(),
            f"scope                {plan.scope} (dedup is {self.dedup})",
            *self._vocabulary(),
            "",
            f"epsilon by accountant at the last step{self._estimates()}",
            f"  prv {_figure(table.prv)}   pld {_figure(table.pld)}   rdp {_figure(table.rdp)}",
            "",
            *self._forecast(),
            "",
            *([self.at_noise.line(plan), ""] if self.at_noise else []),
        ]
        if self.ledger is None:
            rows.append("ledger               no corpus is registered yet (dpmlm init)")
        else:
            rows.append(f"left in the ledger   {left_text(self.ledger)}")
            accepted = "the ledger would accept it as a new run"
            rows.append(f"refused: {self.refusal}" if self.refusal else accepted)
        if self.sentence:
            rows += ["", "what its release would say:", self.sentence]
        return "\n".join(rows)

    def _batches(self) -> list[str]:
        from dpmlm.privacy import error_of_steps

        plan = self.plan
        rows = [f"steps                {plan.steps}"]
        for steps, batch in plan.plateaus:
            noise = plan.noise_multiplier * error_of_steps(plan.coefficients, plan.steps) / batch
            rows.append(
                f"  {steps:>6} at rate     {batch / plan.units:.5f} ({batch:g} of {plan.units} "
                f"units expected), noise {noise:.4g} of max_grad_norm on the mean gradient"
            )
        if plan.bands > 1:
            rows.append(
                f"bands                {plan.bands}: as many groups of units take turns, each at "
                f"{plan.bands} times the rate; noise takes back part of that of {plan.bands - 1} "
                "steps before"
            )
        if plan.max_batch_size is not None:
            rows.append(f"largest batch        {plan.max_batch_size} units, of more as many")
        return rows

    def _forecast(self) -> list[str]:
        if isinstance(self.forecast, str):
            return [f"cost                 not estimated: {self.forecast}"]
        return self.forecast.lines()

    def _kind(self) -> str:
        seeded = ", reproducible: nothing is promised" if self.plan.noise_seed is not None else ""
        return f"{self.plan.noise}{seeded}"

    def _estimates(self) -> str:
        discrete = self.plan.noise == "discrete_gaussian"
        return " (prv and pld: of continuous noise, estimates)" if discrete else ""

    def _vocabulary(self) -> list[str]:
        if self.vocabulary is None:
            return []
        names = ("epsilon", "delta", "words_per_unit")
        epsilon, delta, words = (self.vocabulary[name] for name in names)
        shown = f"epsilon {epsilon:g}, delta {delta:g}, at most {words:g} words a unit; a word of"
        return [
            f"vocabulary           of private text, charged beside the training: {shown}",
            f"{'':<21}units with as many words comes out if about {self._units():.0f} hold it",
        ]

    def _units(self) -> float:
        assert self.vocabulary is not None
        threshold: float = self.vocabulary["threshold"]
        return threshold * self.vocabulary["words_per_unit"] ** 0.5


NOISE = 0.05, 1e5
"""Noise multipliers that steps are counted for: calibration looks between them, too."""


@dataclass(frozen=True)
class StepsAtNoise:
    """The other way round: noise given, steps found."""

    noise_multiplier: float
    """As asked."""
    steps: int
    """Most steps of the plan's first batch that stay within its epsilon and delta."""

    @classmethod
    def of(cls, plan: "PrivacyPlan", noise_multiplier: float) -> "StepsAtNoise":
        """Raises UserError for noise outside of NOISE and a plan that promises nothing."""
        from dpmlm.privacy import AccountantFailure, calibrate_steps

        asked = f"--noise-multiplier {noise_multiplier:g}"
        low, high = NOISE
        if not low <= noise_multiplier <= high:
            rule = f"noise lies between {low:g} and {high:g}"
            raise UserError(asked, rule, "give for example 0.8")
        if not plan.private:
            raise UserError(asked, "the plan promises nothing", "set a finite privacy.epsilon")
        step = plan.composition(1, noise_multiplier=noise_multiplier)[0]
        try:
            turns = min(
                calibrate_steps(accountant, step, epsilon=plan.epsilon, delta=plan.delta)
                for accountant in {plan.accountant, plan.second_accountant}
            )
        except AccountantFailure as failure:
            rule = f"no accountant counts its steps ({failure})"
            raise UserError(asked, rule, "set privacy.accountant to pld or rdp") from failure
        return cls(noise_multiplier, turns * plan.bands)

    def line(self, plan: "PrivacyPlan") -> str:
        """As `dpmlm plan` prints it."""
        return (
            f"noise_multiplier {self.noise_multiplier:g} instead: epsilon {plan.epsilon:g} pays "
            f"for {self.steps} steps of {plan.expected_batch_size:g} units"
        )


def _figure(value: float | None) -> str:
    return "fails" if value is None else f"{value:.4f}"


def preview(config: RunConfig, noise_multiplier: float | None = None) -> Preview:
    """Calibrate the plan of a run file; nothing is written and nothing is reserved.

    With a `noise_multiplier` the steps that it leaves the budget for are found too.
    """
    progress = Progress()
    progress.say("loading")
    # Seconds of imports: somebody should know by then that there is something to wait for.
    from dpmlm.pipeline.declared import deciding
    from dpmlm.pipeline.forecast import forecast
    from dpmlm.pipeline.models import plan_of
    from dpmlm.pipeline.preflight import check_declared
    from dpmlm.pipeline.vocabulary import describe_selection, selection_of

    check_declared(deciding(config))
    progress.say("calibrating the noise")
    with progress.bar("noise"):
        plan = plan_of(config)
    progress.say("asking all accountants")
    with progress.bar("accountants"):
        table = plan.check()
    at_noise = StepsAtNoise.of(plan, noise_multiplier) if noise_multiplier is not None else None
    progress.say("timing a few synthetic rows")
    ahead: Forecast | str
    with progress.bar("forecast"):
        try:
            ahead = forecast(config, plan)
        except UserError as error:  # of its model or vocabulary, which may come later
            ahead = str(error)
    selection = selection_of(config.tokens.private) if config.tokens.private else None
    vocabulary = describe_selection(selection) if selection else None
    dedup = config.dedup.mode
    if not config.ledger.path.exists():
        sentence = _sentence(config, plan, selection)
        return Preview(plan, table, None, None, ahead, dedup, vocabulary, at_noise, sentence)
    progress.say("asking the ledger")
    left = asdict(Ledger.open(config.ledger.path).left())
    try:
        open_ledger(config.ledger).refuse_unaffordable(plan, beside=selection)
    except UserError as error:
        return Preview(plan, table, left, str(error), ahead, dedup, vocabulary, at_noise, None)
    sentence = _sentence(config, plan, selection)
    return Preview(plan, table, left, None, ahead, dedup, vocabulary, at_noise, sentence)


def _sentence(
    config: RunConfig, plan: "PrivacyPlan", selection: "PartitionSelection | None"
) -> str | None:
    """The statement of a finished run of this plan, from a reservation in a copy of the ledger."""
    from dpmlm.pipeline.outcome import RELEASED
    from dpmlm.release import load_policy
    from dpmlm.release.gate import not_covered

    beyond = not_covered(load_policy(config.release.policy).require)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        try:
            if config.ledger.path.exists():
                shutil.copyfile(config.ledger.path, path)
            else:
                cap = config.ledger.cap
                Ledger.register(path, epsilon=cap.epsilon, delta=cap.delta, corpus="preview")
            ledger = Ledger.open(path)
            if ledger.key_id is not None:
                ledger.sign_with(load_signing_key(config.keys.signing))
            if selection is not None:
                ledger.spend_selection("preview", selection, unit=plan.unit, scope=plan.scope)
            ledger.reserve("preview", plan)
        except UserError:
            return None
        summary = ledger.summary("preview")
    return statement(plan, what=RELEASED, summary=summary, not_covered=beyond).sentence
