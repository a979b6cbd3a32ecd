"""Partition selection: its two bounds against slow twins and by Monte-Carlo, and its charge."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy import Ledger, PartitionSelection, SecretStream, make_plan
from dpmlm.privacy.selection import SCALE, gaussian_delta, unit_weight

TRIALS = 12_000
WORDS = 4
SMALL = PartitionSelection(1.0, 0.1, WORDS)
"""A budget large enough to be measured: 0.05 for the noise, 0.05 for the threshold."""


def broken(**wrong: float) -> PartitionSelection:
    """SMALL with another noise or threshold than its budget asks for."""
    twin = PartitionSelection(SMALL.epsilon, SMALL.delta, SMALL.words_per_unit)
    twin.__dict__.update(
        {"noise_multiplier": SMALL.noise_multiplier, "threshold": SMALL.threshold} | wrong
    )
    return twin


def test_the_noise_is_that_of_the_papers_program() -> None:
    assert PartitionSelection(1.0, 2e-5, 1).noise_multiplier == pytest.approx(3.730632, abs=1e-6)


@pytest.mark.parametrize(("sigma", "epsilon"), [(0.5, 1.0), (1.0, 1.0), (2.0, 0.3), (0.3, 8.0)])
def test_the_delta_of_gaussian_noise_equals_the_integral_over_densities(sigma, epsilon) -> None:
    def above(x: float) -> float:
        more = stats.norm.pdf(x, 1, sigma) - math.exp(epsilon) * stats.norm.pdf(x, 0, sigma)
        return max(0.0, more)

    edge = epsilon * sigma**2 + 0.5
    naive, _ = integrate.quad(above, edge, edge + 40 * sigma, points=[edge + sigma], limit=200)
    assert gaussian_delta(sigma, epsilon) == pytest.approx(naive, rel=1e-6)


@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 1e-7), (0.1, 1e-9), (8.0, 1e-3), (50.0, 0.1)])
def test_the_noise_is_the_least_that_keeps_its_half_of_delta(epsilon, delta) -> None:
    sigma = PartitionSelection(epsilon, delta, 3).noise_multiplier
    assert gaussian_delta(sigma, epsilon) <= delta / 2
    assert gaussian_delta(sigma * (1 - 1e-6), epsilon) > delta / 2


@pytest.mark.parametrize(("delta", "words"), [(1e-7, 100), (0.1, 4), (1e-3, 1), (1e-2, 7)])
def test_the_threshold_equals_its_naive_twin(delta, words) -> None:
    selection = PartitionSelection(1.0, delta, words)
    highest = 0.0
    for alone in range(1, words + 1):
        quantile = stats.norm.ppf((1 - delta / 2) ** (1 / alone))
        highest = max(highest, 1 / math.sqrt(alone) + selection.noise_multiplier * quantile)
    assert selection.threshold == pytest.approx(highest, rel=1e-6)


def test_a_selection_equals_its_naive_twin_on_the_same_noise() -> None:
    rng = np.random.default_rng(1)
    units = [{f"w{n}" for n in rng.zipf(1.3, 6) if n < 60} for _ in range(400)]
    weights: dict[str, int] = {}
    for held in units:
        for word in held:
            weights[word] = weights.get(word, 0) + unit_weight(len(held))
    selection = PartitionSelection(2.0, 1e-3, 6)
    found = selection.select(weights, SecretStream(bytes(32)))
    noise = SecretStream(bytes(32)).normals(
        len(weights), "partition selection", 0, std=selection.noise_multiplier
    )
    naive = {}
    for word, drawn in zip(sorted(weights), noise, strict=True):
        total = sum(1 / math.sqrt(len(held)) for held in units if word in held) + float(drawn)
        if total > selection.threshold:
            naive[word] = int(total)
    assert found == naive
    assert 3 < len(found) < len(weights)
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.parametrize("words", [1, 2, 3, 7, 100, 99_991])
def test_a_unit_moves_the_weights_by_a_norm_of_at_most_one_and_hardly_less(words) -> None:
    squared = words * unit_weight(words) ** 2
    assert squared <= SCALE**2
    assert squared / SCALE**2 > 0.9999


def alone(selection: PartitionSelection) -> int:
    """Of so many units that hold four words nobody else holds, those of which one comes out."""
    words = {f"{n}-{i}": unit_weight(WORDS) for n in range(TRIALS) for i in range(WORDS)}
    found = selection.select(words, SecretStream.from_os())
    return len({word.split("-")[0] for word in found})


def at_least(successes: int) -> float:
    return float(stats.beta.ppf(1e-6, successes, TRIALS - successes + 1)) if successes else 0.0


def at_most(successes: int) -> float:
    return float(stats.beta.ppf(1 - 1e-6, successes + 1, TRIALS - successes))


def test_words_of_one_unit_alone_come_out_no_more_often_than_its_delta() -> None:
    seen = alone(SMALL)
    assert at_least(seen) <= SMALL.threshold_delta
    assert seen > 0.8 * SMALL.threshold_delta * TRIALS, "the bound is tight for so many words"


def test_a_threshold_without_the_union_over_words_is_found() -> None:
    one_word = PartitionSelection(SMALL.epsilon, SMALL.delta, 1).threshold
    assert one_word < SMALL.threshold
    assert at_least(alone(broken(threshold=one_word))) > SMALL.threshold_delta


def excess(selection: PartitionSelection) -> float:
    """Lower bound of P'(event) - e^epsilon P(event): a unit joins many on four words.

    Events fixed beforehand, as far as the released weights show them: a likelihood ratio above
    e^epsilon if the noise is what SMALL says, and if it is half of that.
    """
    base = 1000
    totals = []
    for joins in (True, False):
        weight = base * SCALE + joins * unit_weight(WORDS)
        words = {f"{n}-{i}": weight for n in range(TRIALS) for i in range(WORDS)}
        total = np.zeros(TRIALS)
        for word, noisy in selection.select(words, SecretStream.from_os()).items():
            total[int(word.split("-")[0])] += noisy
        totals.append(total)
    found = []
    for sigma in (SMALL.noise_multiplier, SMALL.noise_multiplier / 2):
        edge = WORDS * base + 2 * sigma**2 * (SMALL.epsilon + 1 / (2 * sigma**2)) - WORDS / 2
        with_it, without = (int(np.sum(total > edge)) for total in totals)
        found.append(at_least(with_it) - math.exp(SMALL.epsilon) * at_most(without))
    return max(found)


def test_the_released_weights_keep_epsilon_and_delta() -> None:
    assert excess(SMALL) <= SMALL.delta


def test_halved_noise_is_found() -> None:
    assert excess(broken(noise_multiplier=SMALL.noise_multiplier / 2)) > SMALL.delta


def test_the_same_stream_is_not_drawn_twice() -> None:
    stream = SecretStream.from_os()
    SMALL.select({"a": SCALE}, stream)
    with pytest.raises(ValueError, match="used once"):
        SMALL.select({"a": SCALE}, stream)


def test_nothing_to_select_selects_nothing() -> None:
    assert SMALL.select({}, SecretStream.from_os()) == {}


@pytest.mark.parametrize(
    ("epsilon", "delta", "words"),
    [(0, 1e-6, 1), (math.inf, 1e-6, 1), (1, 0, 1), (1, 0.5, 1), (1, 1e-6, 0), (math.nan, 0.1, 1)],
)
def test_budgets_that_make_no_sense(epsilon, delta, words) -> None:
    with pytest.raises(UserError, match="a selection of"):
        PartitionSelection(epsilon, delta, words)


# The ledger.

CHOSEN = PartitionSelection(1.0, 1e-7, 100)
PLAN = make_plan(
    epsilon=2.0, delta=1e-6, units=1000, unit="person", expected_batch_size=50, steps=20,
    max_grad_norm=1.0, accountant="rdp",
)  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.register(tmp_path / "ledger.jsonl", epsilon=8.0, delta=1e-5, corpus="posts")


def test_a_selection_is_charged_its_gaussian_divergence_and_its_thresholds_delta(ledger) -> None:
    ledger.spend_selection("vocabulary", CHOSEN, unit="person", scope="source corpus")
    assert ledger.spent().rdp == pytest.approx(ledger.order / (2 * 4.808702**2), rel=1e-5)
    assert ledger.left().delta == pytest.approx(1e-6 - 5e-8)
    # As an (epsilon, delta) mechanism it costs many times as much.
    assert ledger.spent().rdp < 0.2 * min(1.0, ledger.order / 2)
    ledger.verify()
    ledger.reserve("run", PLAN)
    summary = ledger.summary("run")
    assert (summary["basis"], summary["epsilon"], summary["delta"]) == ("filter", 8.0, 1e-5)
    assert summary["lineage"]["selections"] == [
        {
            "label": "vocabulary",
            "epsilon": 1.0,
            "delta": 1e-7,
            "words_per_unit": 100,
            "unit": "person",
            "scope": "source corpus",
        }
    ]


def test_each_draw_is_charged_until_the_cap(ledger) -> None:
    large = PartitionSelection(2.0, 5e-7, 100)
    afford = 4  # of the column: 1e-6 in parts of 2.5e-7
    for _ in range(afford):
        ledger.spend_selection("vocabulary", large, unit="person", scope="source corpus")
    before = len(ledger.entries)
    with pytest.raises(UserError, match="are left"):
        ledger.spend_selection("vocabulary", large, unit="person", scope="source corpus")
    assert len(ledger.entries) == before == 1 + afford
    assert ledger.spent().rdp == pytest.approx(afford * large.divergence(ledger.order))


def test_a_plan_that_fits_alone_and_not_beside_the_vocabulary_is_refused(tmp_path) -> None:
    ledger = Ledger.register(tmp_path / "tight.jsonl", epsilon=2.0, delta=1e-5, corpus="posts")
    ledger.refuse_unaffordable(PLAN)
    large = PartitionSelection(1.0, 1e-6, 100)
    with pytest.raises(UserError, match="beside a vocabulary of epsilon 1"):
        ledger.refuse_unaffordable(PLAN, beside=large)
    with pytest.raises(UserError, match="'vocabulary' costs"):
        ledger.refuse_unaffordable(PLAN, beside=PartitionSelection(1.0, 1e-5, 100))
    assert len(ledger.entries) == 1
    assert ledger.left().epsilon == 2.0
    # What it says before is what the ledger does then.
    ledger.spend_selection("vocabulary", large, unit="person", scope="source corpus")
    with pytest.raises(UserError, match="is left of the cap"):
        ledger.reserve("run", PLAN)


def test_a_smaller_amount_than_the_selections_is_found(ledger, monkeypatch) -> None:
    monkeypatch.setattr(PartitionSelection, "divergence", lambda self, order: 1e-6)
    ledger.spend_selection("vocabulary", CHOSEN, unit="person", scope="source corpus")
    monkeypatch.undo()
    with pytest.raises(IntegrityError, match="not those of its selection"):
        Ledger.open(ledger._journal.path).verify()
    entry = json.loads(ledger._journal.path.read_text().splitlines()[-1])
    assert entry["divergence"] == 1e-6
