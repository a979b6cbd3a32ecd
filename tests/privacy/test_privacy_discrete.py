"""Discrete noise: the sampler against its definition, the grid, and the accounting behind it."""

import itertools
import math
import time
from decimal import Decimal, localcontext
from fractions import Fraction
from random import Random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

from dpmlm.errors import UserError
from dpmlm.privacy import (
    AccountantFailure,
    DiscreteGaussian,
    GridNoise,
    PrivacyPlan,
    SampledGaussian,
    SecretStream,
    calibrate,
    epsilon_of,
    make_plan,
)
from dpmlm.privacy import discrete as discrete_module
from dpmlm.privacy.accountants import renyi_divergence
from dpmlm.privacy.grid import ROUNDING_SHARE

KEY = bytes(range(32))


def sample(sigma: float, n: int, label: str = "x") -> NDArray[np.int64]:
    words = SecretStream(KEY).words(label, 0)
    return np.concatenate(list(DiscreteGaussian(sigma).draws(n, words)))


def law(sigma: float) -> dict[int, float]:
    """Probabilities of the definition, to 12 sigma."""
    reach = math.ceil(12 * sigma)
    weights = {x: math.exp(-x * x / (2 * sigma**2)) for x in range(-reach, reach + 1)}
    total = math.fsum(weights.values())
    return {x: weight / total for x, weight in weights.items()}


def fit(values: NDArray[np.int64], sigma: float) -> float:
    """p-value of a chi-square test; rare numbers are put together, on each side."""
    known = law(sigma)
    common = [x for x, p in known.items() if p * len(values) >= 20]
    low, high = min(common), max(common)
    clipped = np.clip(values, low, high)
    expected = np.array([known[x] for x in range(low, high + 1)])
    expected[0] = math.fsum(p for x, p in known.items() if x <= low)
    expected[-1] = math.fsum(p for x, p in known.items() if x >= high)
    counts = np.bincount(clipped - low, minlength=len(expected))
    return float(stats.chisquare(counts, expected * len(values) / expected.sum()).pvalue)


def canonne(sigma2: Fraction, rng: Random) -> int:
    """Algorithms 1 to 3 of Canonne, Kamath, Steinke 2020, with fractions, one number at a time."""

    def bernoulli(p: Fraction) -> bool:
        return rng.randrange(p.denominator) < p.numerator

    def bernoulli_exp(gamma: Fraction) -> bool:
        while gamma > 1:
            if not bernoulli_exp(Fraction(1)):
                return False
            gamma -= 1
        k = 1
        while bernoulli(gamma / k):
            k += 1
        return k % 2 == 1

    t = math.isqrt(math.floor(sigma2)) + 1
    while True:
        u = rng.randrange(t)
        if not bernoulli_exp(Fraction(u, t)):
            continue
        v = 0
        while bernoulli_exp(Fraction(1)):
            v += 1
        y = u + t * v
        negative = bernoulli(Fraction(1, 2))
        if negative and y == 0:
            continue
        if bernoulli_exp((y - sigma2 / t) ** 2 / (2 * sigma2)):
            return -y if negative else y


@pytest.mark.parametrize("sigma", [1.0, 1.7, 5.0, 33.0, 1000.3])
def test_the_law_is_the_definitions(sigma: float) -> None:
    values = sample(sigma, 1_000_000)
    assert fit(values, sigma) > 1e-4
    assert fit(values, sigma * 1.05) < 1e-4
    if sigma < 100:  # beyond, one number more or less is too rare to show
        assert fit(values[values != 0], sigma) < 1e-4
        assert fit(np.where(values < 0, values + 1, values), sigma) < 1e-4


def test_the_law_is_that_of_the_published_algorithm() -> None:
    rng = Random(3)
    slow = np.array([canonne(Fraction(9, 4), rng) for _ in range(20_000)])
    assert fit(slow, 1.5) > 1e-4
    fast = sample(1.5, 20_000)
    table = [np.bincount(np.clip(values, -5, 5) + 5, minlength=11) for values in (slow, fast)]
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_known_answers() -> None:
    assert sample(3.0, 12).tolist() == ANSWERS[3.0]
    assert sample(2.0**40, 3).tolist() == ANSWERS[2.0**40]
    assert not list(DiscreteGaussian(3.0).draws(0, SecretStream(KEY).words("x", 0)))


ANSWERS = {
    3.0: [-1, -1, -2, -3, 3, -3, 1, -4, 1, 4, 0, -3],
    2.0**40: [-110800132165, -231296132464, -521579607834],
}


@pytest.mark.parametrize("sigma", [1.0, 2.5, 16.0, 31.99, 32.0, 12345.6, 2.0**48])
def test_no_acceptance_is_above_one_and_the_tables_reach_fourteen_sigma(sigma: float) -> None:
    sampler = DiscreteGaussian(sigma)
    assert len(sampler._starts) == len(sampler._heights) == 65536
    with localcontext() as context:
        context.prec = 60
        for start, count in zip(np.unique(sampler._starts), sampler._counts, strict=True):
            weight = (-(Decimal(int(start)) ** 2) / (2 * Decimal(sigma) ** 2)).exp()
            assert Decimal(sampler._scale) * weight <= int(count)
            assert int((sampler._starts == start).sum()) == int(count)
    assert sampler._counts.min() >= 1
    block = 2**sampler._bits
    assert np.array_equal(np.diff(np.unique(sampler._starts)), [block] * (len(sampler._counts) - 1))
    assert int(sampler._starts.max()) + block >= 14 * sigma
    assert 17 + sampler._bits <= 64  # the bits of choice, sign and place are different ones


class Fixed:
    """Words that are all the same."""

    def __init__(self, word: int) -> None:
        self.word = word

    def next(self, count: int) -> NDArray[np.uint64]:
        return np.full(count, self.word, dtype=np.uint64)


def test_a_doubtful_comparison_is_decided_by_further_bits() -> None:
    sampler = DiscreteGaussian(1000.0)
    with localcontext() as context:
        context.prec = 90
        exact = (-(Decimal(700) ** 2) / (2 * Decimal(1000) ** 2)).exp() * Decimal(sampler._scale)
        scaled = exact / 5000 * 2**64
    coin = int(scaled)
    assert sampler._decide(700, 5000, coin, Fixed(0))
    assert not sampler._decide(700, 5000, coin, Fixed(2**64 - 1))
    assert sampler._decide(700, 5000, coin - 1, Fixed(2**64 - 1))
    assert not sampler._decide(700, 5000, coin + 1, Fixed(0))
    between = int((scaled - coin) * 2**64)
    assert sampler._decide(700, 5000, coin, Fixed(between - 1))
    assert not sampler._decide(700, 5000, coin, Fixed(between + 1))


def test_the_law_does_not_depend_on_where_doubt_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    decide = DiscreteGaussian._decide

    def noted(self: DiscreteGaussian, *arguments: int) -> bool:
        asked.append(arguments[:2])
        return decide(self, *arguments)

    monkeypatch.setattr(DiscreteGaussian, "_decide", noted)
    sample(20.0, 100_000)
    assert not asked
    monkeypatch.setattr(discrete_module, "_DOUBT", 0.1)
    values = sample(20.0, 40_000)
    assert len(asked) > 4_000
    sampler = DiscreteGaussian(20.0)
    assert all(sampler._counts[magnitude >> sampler._bits] >= 1 for magnitude, _ in asked)
    assert fit(values, 20.0) > 1e-4


def test_float64_errs_less_than_doubt_allows() -> None:
    rng = np.random.default_rng(1)
    for sigma in (1.0, 37.3, 2.0**30, 2.0**48 - 0.5):
        sampler = DiscreteGaussian(sigma)
        choices = rng.integers(0, 65536, 50)
        magnitudes = sampler._starts[choices] + rng.integers(0, 2**sampler._bits + 1, 50)
        fast = sampler._chances(magnitudes, choices)
        for choice, magnitude, chance in zip(choices, magnitudes, fast, strict=True):
            with localcontext() as context:
                context.prec = 60
                count = int((sampler._starts == sampler._starts[choice]).sum())
                gamma = Decimal(int(magnitude)) ** 2 / (2 * Decimal(sigma) ** 2)
                exact = (-gamma).exp() * Decimal(sampler._scale) / count
                assert abs(Decimal(float(chance)) - exact) < Decimal(2) ** -43


@pytest.mark.parametrize("sigma", [0.0, 0.99, -1.0, math.inf, math.nan, 2.0**49])
def test_a_sigma_out_of_range_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match="between 1 and"):
        DiscreteGaussian(sigma)


def divergences(sigma: float, v: tuple[float, ...], q: float, order: float) -> tuple[float, float]:
    """Renyi divergence of (1-q) N(0) + q N(v) from N(0) on the grid, and the other way round."""
    reach = range(-math.ceil(14 * sigma) - 8, math.ceil(14 * sigma) + 9)
    point = np.array(list(itertools.product(reach, repeat=len(v))), dtype=np.float64)

    def logs(centre: NDArray[np.float64]) -> NDArray[np.float64]:
        weights = -((point - centre) ** 2).sum(1) / (2 * sigma**2)
        return weights - logsumexp(weights)

    without, moved = logs(np.zeros(len(v))), logs(np.array(v))
    mixed = np.logaddexp(math.log(1 - q) + without, math.log(q) + moved)
    away = logsumexp(order * mixed + (1 - order) * without) / (order - 1)
    back = logsumexp(order * without + (1 - order) * mixed) / (order - 1)
    return float(away), float(back)


@pytest.mark.parametrize(
    ("sigma", "v", "q"),
    [
        (1.0, (1,), 0.1),
        (2.0, (3,), 0.01),
        (1.2, (1, 1), 0.2),
        (3.0, (2, -1), 0.5),
        (0.5, (1,), 0.3),
    ],
)
def test_subsampled_discrete_noise_has_the_divergence_that_is_charged(
    sigma: float, v: tuple[int, ...], q: float
) -> None:
    one = SampledGaussian(sigma / math.hypot(*v), q, 1, discrete=True)
    for order in (2, 3, 4, 6):
        away, back = divergences(sigma, v, q, order)
        assert renyi_divergence(one, order) == pytest.approx(away, rel=1e-6)
        assert back <= away * (1 + 1e-9)
    for order in (1.3, 2.2, 3.5):
        away, back = divergences(sigma, v, q, order)
        assert max(away, back) <= renyi_divergence(one, order)


def test_off_the_grid_the_divergence_is_another() -> None:
    one = SampledGaussian(0.5 / 0.5, 0.3, 1, discrete=True)
    away, _ = divergences(0.5, (0.5,), 0.3, 4)
    assert renyi_divergence(one, 4) != pytest.approx(away, rel=1e-3)


def test_removing_a_unit_is_the_worse_direction_at_every_point() -> None:
    def difference(order: float, r: float, q: float) -> float:
        a, c = 1 - q + q * r, r + q - q * r
        return (
            a**order + c**order * r ** (1 - order) - a ** (1 - order) - c ** (1 - order) * r**order
        )

    for order, q in itertools.product((1.1, 1.5, 2, 3, 8), (0.001, 0.1, 0.5, 0.9)):
        for r in np.geomspace(1e-4, 1e4, 41):
            scale = max(1.0, r) ** order
            assert difference(order, r, q) >= -1e-12 * scale
    for order in (0.0, 0.5, 1.0):
        assert difference(order, 3.0, 0.3) == pytest.approx(0, abs=1e-12)
    assert difference(0.75, 3.0, 0.3) < 0


def test_only_whole_orders_account_for_discrete_noise() -> None:
    one = SampledGaussian(1.1, 0.05, 100, discrete=True)
    smooth = SampledGaussian(1.1, 0.05, 100)
    assert renyi_divergence(one, 2.2) == renyi_divergence(smooth, 3)
    assert renyi_divergence(one, 1.5) == renyi_divergence(smooth, 2)
    assert renyi_divergence(one, 7) == renyi_divergence(smooth, 7)
    assert epsilon_of("rdp", one, 1e-6) >= epsilon_of("rdp", smooth, 1e-6)
    for name in ("prv", "pld"):
        with pytest.raises(AccountantFailure, match="does not bound"):
            epsilon_of(name, one, 1e-6)


C, SIZE = 0.7, 10_000


def without_noise(monkeypatch: pytest.MonkeyPatch) -> GridNoise:
    grid = GridNoise(1.0, C, SIZE)
    monkeypatch.setattr(grid._sampler, "draws", lambda n, words: [np.zeros(n, dtype=np.int64)])
    return grid


def rounded(grid: GridNoise, total: torch.Tensor, step: int) -> torch.Tensor:
    return grid.add(total, SecretStream(KEY), label="t", step=step).double()


def test_rounding_moves_two_sums_apart_by_less_than_the_noise_allows_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid = without_noise(monkeypatch)
    # Every entry just below the middle of two grid points; the other sum is just above it.
    start = torch.full((SIZE,), 0.5 * grid.pitch, dtype=torch.float64)
    moved = torch.full((SIZE,), C / math.sqrt(SIZE), dtype=torch.float64)
    one, other = (start * 0.999).float(), (start * 1.001 + moved).float()
    before = float((one.double() - other.double()).norm())
    after = float((rounded(grid, one, 0) - rounded(grid, other, 1)).norm())
    allowed = grid.deviation  # noise_multiplier is 1
    assert allowed == pytest.approx(C * (1 + ROUNDING_SHARE))
    assert C < after - (before - C) <= allowed
    grid.pitch *= 16
    start = torch.full((SIZE,), 0.5 * grid.pitch, dtype=torch.float64)
    one, other = (start * 0.999).float(), (start * 1.001 + moved).float()
    coarse = float((rounded(grid, one, 2) - rounded(grid, other, 3)).norm())
    assert coarse - (float((one.double() - other.double()).norm()) - C) > allowed


@pytest.mark.parametrize("size", [1, 7, 10**4, 10**9])
@pytest.mark.parametrize("bound", [1e-3, 1.0, 37.0])
def test_the_pitch_is_a_power_of_two_that_keeps_the_sensitivity(size: int, bound: float) -> None:
    grid = GridNoise(2.0, bound, size)
    assert math.frexp(grid.pitch)[0] == 0.5
    pitch, clip, share = Fraction(grid.pitch), Fraction(bound), Fraction(1, 10_000)
    assert pitch**2 * size <= (share * clip) ** 2
    assert grid.pitch * math.sqrt(size) > 0.49e-4 * bound
    assert grid._sampler.sigma * grid.pitch == pytest.approx(2 * bound * 1.0001)


def test_results_lie_on_the_grid_with_the_planned_noise() -> None:
    grid = GridNoise(1.5, C, SIZE)
    total = torch.linspace(-1, 1, SIZE).reshape(100, 100)
    noised = grid.add(total, SecretStream(KEY), label="w", step=0)
    assert noised.shape == total.shape
    assert noised.dtype == torch.float32
    noise = (noised - total).double()
    assert float(noise.std()) == pytest.approx(1.5 * C * 1.0001, rel=0.03)
    assert abs(float(noise.mean())) < 5 * 1.5 * C / math.sqrt(SIZE)
    assert stats.kstest(noise.flatten().numpy() / (1.5 * C), "norm").pvalue > 1e-3
    stream = SecretStream(KEY)
    grid.add(total, stream, label="w", step=0)
    with pytest.raises(ValueError, match="once"):
        grid.add(total, stream, label="w", step=0)


def test_numbers_beyond_the_grid_are_cut_off_and_no_numbers_are_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid = without_noise(monkeypatch)
    odd = torch.tensor([math.nan, math.inf, -math.inf, 3e38, 0.25])
    result = rounded(grid, odd, 0)
    assert result[0] == 0
    assert result[1] == result[3] == 2.0**61 * grid.pitch == -result[2]
    assert float(result[4]) == pytest.approx(0.25, abs=grid.pitch)
    assert rounded(grid, torch.zeros(0, 3), 1).shape == (0, 3)


@pytest.mark.parametrize(
    "settings", [(0.0, 1.0, 5), (1.0, math.inf, 5), (1.0, 1.0, 0), (math.nan, 1.0, 5)]
)
def test_no_grid_without_noise_or_bound(settings: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="no grid"):
        GridNoise(*settings)


def a_plan(**changes: object) -> PrivacyPlan:
    settings = {"epsilon": 2.0, "delta": 1e-6, "units": 6500, "expected_batch_size": 650}
    settings |= {"steps": 50, "max_grad_norm": 1.0, "accountant": "rdp"}
    return make_plan(**{**settings, "noise": "discrete_gaussian", **changes})


def test_a_plan_with_discrete_noise() -> None:
    plan = a_plan()
    assert plan.private
    assert all(part.discrete for part in plan.composition())
    assert "discrete Gaussian" in plan.noise_source
    assert 0.995 * 2 <= plan.epsilon_spent(50) <= 2
    assert plan.epsilon_spent(50) == epsilon_of("rdp", plan.composition(), plan.delta)
    table = plan.check()
    assert table.claimed == table.rdp >= table.pld
    smooth = a_plan(noise="gaussian")
    assert plan.digest != smooth.digest
    assert plan.noise_multiplier == pytest.approx(smooth.noise_multiplier, rel=0.05)
    assert PrivacyPlan.from_json(plan.to_json()) == plan
    whole = plan.to_json()
    with pytest.raises(UserError, match="noise"):
        PrivacyPlan.from_json({name: whole[name] for name in whole if name != "noise"})


def test_a_large_epsilon_pays_for_whole_orders() -> None:
    def noise(discrete: bool) -> float:
        def noised(sigma: float) -> tuple[SampledGaussian]:
            return (SampledGaussian(sigma, 0.1, 50, discrete=discrete),)

        return calibrate("rdp", noised, epsilon=60.0, delta=1e-6)

    whole, any_order = noise(True), noise(False)
    assert whole > any_order
    assert epsilon_of("rdp", SampledGaussian(whole, 0.1, 50, discrete=True), 1e-6) <= 60
    assert epsilon_of("rdp", SampledGaussian(any_order, 0.1, 50, discrete=True), 1e-6) > 60


@pytest.mark.parametrize("accountant", ["prv", "pld"])
def test_another_accountant_for_discrete_noise_is_refused(accountant: str) -> None:
    with pytest.raises(UserError, match="whole orders"):
        a_plan(accountant=accountant)


def test_unknown_noise_is_refused() -> None:
    with pytest.raises(UserError, match="gaussian, discrete_gaussian"):
        a_plan(noise="laplace")


@pytest.mark.full
def test_discrete_throughput() -> None:
    sampler, n, best = DiscreteGaussian(1e7), 20_000_000, 0.0
    for step in range(3):
        start = time.process_time()
        for _ in sampler.draws(n, SecretStream(KEY).words("n", step)):
            pass
        best = max(best, n / (time.process_time() - start))
    print(f"{best / 1e6:.1f} M discrete normals a CPU second")
    assert best > 20e6
