"""What a plan will be like to run: its signal, its hours, other ways to spend the same compute."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dpmlm.config import RunConfig
from dpmlm.masking import TokenTable
from dpmlm.pipeline.canaries import masking_spec
from dpmlm.pipeline.doctor import entries_of, model_of

if TYPE_CHECKING:
    from dpmlm.privacy import PrivacyPlan

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Of the batch size: the same units in all, in fewer and larger steps or more and smaller."""
GRACE_SECONDS = 30
"""Between SIGTERM and SIGKILL, by default: Slurm, Kubernetes and torchrun."""
FEWEST_STEPS = 50
"""Below these Adam's averages have seen too little to be worth a suggestion."""
BANDS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of steps over which noise may be correlated, that are compared."""
TIMED_ROWS = 4


@dataclass(frozen=True)
class Spending:
    """One way to put a number of units through the model at the plan's epsilon."""

    expected_batch_size: int
    """Units a step."""
    steps: int
    """Noisy steps."""
    noise_multiplier: float
    """Calibrated with RDP, so a little above a plan's own."""

    @property
    def noise_per_step(self) -> float:
        """Standard deviation on a number of the mean gradient, as part of max_grad_norm."""
        return self.noise_multiplier / self.expected_batch_size

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "noise_per_step": self.noise_per_step}


@dataclass(frozen=True)
class Correlation:
    """Noise correlated over a number of steps, at the plan's epsilon."""

    bands: int
    """Steps over which it is correlated; 1: independent noise."""
    noise_multiplier: float
    """Calibrated with RDP."""
    noise_of_sums: float
    """Root mean square, over all steps, of the noise on the sum of gradients so far, as part of
    that of independent noise."""


@dataclass(frozen=True)
class Forecast:
    """Measured on this machine with synthetic rows; nothing private is read."""

    parameters: int
    """Trainable numbers, each of which gets noise in each step."""
    signal_to_noise: float
    """Length of the mean clipped gradient over that of its noise in the largest step, at most:
    as if all gradients were clipped and pointed the same way. `inf` without noise."""
    rows: float
    """Expected rows through the model in all."""
    seconds_a_row: float
    """Of forward, backward, norms and clipped sum."""
    seconds_a_step: float
    """Of drawing the noise."""
    seconds: float
    """Of the training in all."""
    seconds_to_stop: float = 0.0
    """Of a physical batch, which is finished after SIGTERM, and of the noise of a step; writing the
    checkpoint comes on top."""
    spendings: tuple[Spending, ...] = ()
    """The same units in other batches; empty without privacy."""
    bands: int = 1
    """Of the plan, and so of `spendings`."""
    correlations: tuple[Correlation, ...] = ()
    """The plan's batches with noise correlated over more and fewer steps; empty where its noise
    cannot be."""

    @property
    def suggested(self) -> Spending | None:
        """The least noise a step that leaves enough steps."""
        enough = [way for way in self.spendings if way.steps >= FEWEST_STEPS]
        return min(enough, key=lambda way: way.noise_per_step, default=None)

    def to_json(self) -> dict[str, Any]:
        found = {**asdict(self), "spendings": [way.to_json() for way in self.spendings]}
        suggested = self.suggested
        return {**found, "suggested": suggested.to_json() if suggested else None}

    def lines(self) -> list[str]:
        """As `dpmlm plan` prints it."""
        rows = [
            f"signal to noise      at most {self.signal_to_noise:.3g} a step, over "
            f"{self.parameters:,} trainable numbers",
            f"cost                 about {_duration(self.seconds)} of training on this machine: "
            f"{self.rows:,.0f} rows at {1000 * self.seconds_a_row:.3g} ms, "
            f"{self.seconds_a_step:.2g} s of noise a step",
        ]
        if self.seconds_to_stop > GRACE_SECONDS / 2:
            rows.append(
                f"stopping             up to {self.seconds_to_stop:.0f} s after SIGTERM and a "
                f"checkpoint, of {GRACE_SECONDS} that are usual: lower training.physical_batch_size"
            )
        if self.spendings:
            rows += ["", f"the same compute in other batches (noise by RDP{self._kept()})"]
            rows.append(f"  {'batch':>8}{'steps':>8}{'noise_multiplier':>18}{'noise a step':>14}")
        for way in self.spendings:
            mark = f"  least of {FEWEST_STEPS} steps or more" if way == self.suggested else ""
            rows.append(
                f"  {way.expected_batch_size:>8}{way.steps:>8}{way.noise_multiplier:>18.4f}"
                f"{way.noise_per_step:>14.4g}{mark}"
            )
        return rows + self._correlations()

    def _kept(self) -> str:
        return f", {self.bands} bands, before it is correlated" if self.bands > 1 else ""

    def _correlations(self) -> list[str]:
        if len(self.correlations) < 2:
            return []
        rows = ["", "the same steps with correlated noise (privacy.bands)"]
        rows.append(f"  {'bands':>8}{'noise_multiplier':>18}{'noise of sums':>16}")
        least = min(self.correlations, key=lambda way: way.noise_of_sums)
        for way in self.correlations:
            mark = "  least noise on the sums" if way == least else ""
            rows.append(
                f"  {way.bands:>8}{way.noise_multiplier:>18.4f}{way.noise_of_sums:>16.3f}{mark}"
            )
        return [*rows, "  measured under AdamW, less of it was no lower loss (docs/results.md)"]


def forecast(config: RunConfig, plan: "PrivacyPlan") -> Forecast:
    """Time one small batch of the run's model and one draw of its noise; seconds to a minute."""
    from dpmlm.privacy import error_of_steps
    from dpmlm.training import activation_checkpointing_if, timed_rows

    entries = entries_of("run file", config, None) or 0
    model = model_of(config, config.tokens.window, entries).eval()
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    training = config.training
    with activation_checkpointing_if(training.activation_checkpointing, model):
        seconds_a_row = timed_rows(
            model,
            _table(entries),
            masking_spec(config),
            config.tokens.window,
            count=TIMED_ROWS,
            precision=training.precision,
        )
    seconds_a_step = _seconds(lambda: _noise(parameters)) if plan.private else 0.0
    rows = sum(steps * batch for steps, batch in plan.plateaus) * training.windows_per_draw
    noise = plan.noise_multiplier * error_of_steps(plan.coefficients, plan.steps)
    noise *= math.sqrt(parameters)
    return Forecast(
        parameters=parameters,
        signal_to_noise=plan.largest_batch / noise if noise else math.inf,
        rows=rows,
        seconds_a_row=seconds_a_row,
        seconds_a_step=seconds_a_step,
        seconds=rows * seconds_a_row + plan.steps * seconds_a_step,
        seconds_to_stop=_largest(config) * seconds_a_row + seconds_a_step,
        spendings=spendings(plan) if plan.private else (),
        bands=plan.bands,
        correlations=correlations(plan) if plan.private else (),
    )


def _largest(config: RunConfig) -> int:
    """Rows at once, at most; a limit on memory may make them fewer."""
    return max(config.training.physical_batch_size, config.training.windows_per_draw)


def spendings(plan: "PrivacyPlan") -> tuple[Spending, ...]:
    """The plan's units in all, cut into batches of other sizes, at its epsilon and delta."""
    units = sum(steps * batch for steps, batch in plan.plateaus)
    found = []
    for factor in FACTORS:
        batch = round(factor * units / plan.steps)
        if not 1 <= batch <= plan.units:
            continue
        steps = max(1, round(units / batch))
        possible = plan.bands <= steps and plan.bands * batch <= plan.units
        if possible and (sigma := _noise_for(plan, batch, steps, plan.bands)):
            found.append(Spending(batch, steps, sigma))
    return tuple(found)


def correlations(plan: "PrivacyPlan") -> tuple[Correlation, ...]:
    """The plan's steps at its epsilon and delta, with as many bands as its rate allows."""
    from dpmlm.privacy import band_coefficients, error_of_sums

    if plan.max_batch_size is not None or plan.noise != "gaussian" or plan.batch_schedule:
        return ()
    alone = None
    found = []
    for bands in BANDS:
        if bands > plan.steps or bands * plan.largest_batch > plan.units:
            break
        sigma = _noise_for(plan, plan.largest_batch, plan.steps, bands)
        if sigma is None:
            break
        error = sigma * error_of_sums(band_coefficients(bands, plan.steps), plan.steps)
        alone = alone or error
        found.append(Correlation(bands, sigma, error / alone))
    return tuple(found)


def _noise_for(plan: "PrivacyPlan", batch: float, steps: int, bands: int) -> float | None:
    """Noise multiplier by RDP; None where there is none."""
    from dpmlm.privacy import AccountantFailure, SampledGaussian, calibrate

    rate, turns = bands * batch / plan.units, math.ceil(steps / bands)
    try:
        return calibrate(
            "rdp",
            lambda sigma: (SampledGaussian(sigma, rate, turns),),
            epsilon=plan.epsilon,
            delta=plan.delta,
        )
    except AccountantFailure:
        return None


def _table(entries: int) -> TokenTable:
    """As many tokens as the run's vocabulary has, which may not be trained yet."""
    special = np.arange(entries) < 5
    plain = np.zeros(entries, dtype=bool)
    return TokenTable(entries, 4, 0, 2, 3, special, plain, plain)


def _noise(count: int) -> None:
    from dpmlm.privacy import SecretStream, gaussian_noise

    gaussian_noise((count,), 1.0, SecretStream.from_os(), label="forecast", step=0)


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
