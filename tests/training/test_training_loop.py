"""The loop: what is charged, drawn, clipped, noised and logged, in which order; resuming."""

import math
import os
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import BertConfig, BertForMaskedLM, FNetConfig, FNetForMaskedLM

from dpmlm.artifacts import new_identity
from dpmlm.clipping import clip_and_sum
from dpmlm.errors import UserError
from dpmlm.masking import Example, MaskingSpec, TokenTable
from dpmlm.privacy import PrivacyPlan
from dpmlm.training import Checkpoints, Interrupted, Recipe, evaluate, loop, optimizer, train
from dpmlm.training.optimizer import learning_rate_at
from dpmlm.training.ranks import Ranks

VOCABULARY = 60


class Numbered:
    """Units u0, u1, ... with one example each; notes which were asked for."""

    def __init__(self, examples):
        self._examples = examples
        self.names = [f"u{index}" for index in range(len(examples))]
        self.asked = []

    def example(self, index, visit):
        self.asked.append((visit, index))
        return self._examples[index]


class Charges:
    """Notes what it is asked, in order, in a list that others may write to as well."""

    def __init__(self, seen=None):
        self.seen = [] if seen is None else seen
        self.attempts = 0

    def begin(self):
        self.attempts += 1
        return self.attempts

    def charge(self, attempt, step):
        self.seen.append(("charge", attempt, step))

    def commit(self, attempt, steps):
        self.seen.append(("commit", attempt, steps))


class Every:
    """A sampler without chance: at each step the units whose number has the step's parity."""

    def __init__(self, units, rate, *, stream):
        self._count = len(units)

    def draw(self, step):
        return [index for index in range(self._count) if index % 2 == step % 2]


def table() -> TokenTable:
    special = np.zeros(VOCABULARY, dtype=bool)
    special[:5] = True
    plain = np.zeros(VOCABULARY, dtype=bool)
    return TokenTable(VOCABULARY, 4, 0, 2, 3, special, plain, plain)


def a_model(seed=0, **settings) -> BertForMaskedLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 16}
    return BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, **(sizes | settings)))


def a_plan(**changes) -> PrivacyPlan:
    """Some noise; that it is enough for some epsilon is not the loop's business."""
    settings = {"epsilon": 8.0, "delta": 1e-6, "units": 1000, "unit": "document"}
    settings |= {"expected_batch_size": 50.0, "steps": 6, "max_grad_norm": 0.5}
    settings |= {"accountant": "rdp", "noise_multiplier": 1.3, "scope": "source corpus"}
    return PrivacyPlan(**(settings | changes))


def without_noise(**changes) -> PrivacyPlan:
    return a_plan(epsilon=math.inf, noise_multiplier=0.0, noise_source="none", **changes)


def a_recipe(**changes) -> Recipe:
    settings = {"table": table(), "masking": MaskingSpec(strategy="token", ratio=0.2)}
    settings |= {"window": 16, "stride": 16, "mask_seed": b"m" * 32, "learning_rate": 1e-2}
    settings |= {"warmup": 0.1, "weight_decay": 0.01, "checkpoint_minutes": 0.0}
    return Recipe(**(settings | changes))


def documents(count=12) -> list[Example]:
    rng = np.random.default_rng(4)
    return [Example(f"d{i}", rng.integers(5, VOCABULARY - 1, 3 + i)) for i in range(count)]


def maskless(count=12) -> list[Example]:
    return [Example(f"d{i}", np.zeros(0, dtype=np.int64)) for i in range(count)]


@pytest.fixture
def fit(tmp_path):
    """Train with checkpoints in tmp_path; called again with the same plan it resumes."""
    identity = new_identity()

    def fitted(model, units, plan, recipe=None, *, charges=None, folder="checkpoints", **more):
        checkpoints = Checkpoints(tmp_path / folder, identity, [identity.recipient], plan.digest)
        charges = charges or Charges()
        recipe = recipe or a_recipe()
        return train(model, units, plan, recipe, charges=charges, checkpoints=checkpoints, **more)

    return fitted


def weights(model) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def moves_of(fit, monkeypatch, units, plan, *, rate=1.0):
    """Every parameter's movement in every step of a run with plain SGD at a constant rate."""
    monkeypatch.setattr(loop, "adamw", lambda m, lr, decay: torch.optim.SGD(m.parameters(), lr=lr))
    monkeypatch.setattr(loop, "learning_rate_at", lambda *_, **__: rate)
    model = a_model()
    steps = [weights(model)]
    recipe = a_recipe(checkpoint_minutes=1e9)
    progress = fit(
        model, units, plan, recipe, report=lambda done, total: steps.append(weights(model))
    )
    moves = [
        torch.stack([new - old for old, new in zip(before, after)]).double().flatten().numpy()
        for before, after in zip(zip(*steps[:-1]), zip(*steps[1:]))
    ]
    return moves, progress


def test_a_corpus_without_masks_moves_every_parameter_by_the_planned_noise(fit, monkeypatch):
    plan, rate = a_plan(steps=40), 0.7
    moves, progress = moves_of(fit, monkeypatch, Numbered(maskless()), plan, rate=rate)
    expected = rate * plan.noise_multiplier * plan.max_grad_norm / plan.expected_batch_size
    assert len(moves) == len(list(a_model().parameters()))
    for moved in moves:
        # Five standard deviations of the estimate: less than one false alarm in ten thousand runs.
        assert np.std(moved) == pytest.approx(expected, rel=5 / math.sqrt(2 * len(moved)))
        assert abs(np.mean(moved)) < 5 * expected / math.sqrt(len(moved))
    assert {event["private"]["loss"] for event in progress.events} <= {0.0, None}


def test_an_empty_batch_takes_a_noisy_step(fit, monkeypatch):
    plan = a_plan(expected_batch_size=1e-3, steps=3)
    units = Numbered(documents())
    moves, progress = moves_of(fit, monkeypatch, units, plan)
    assert units.asked == []
    assert all(np.all(moved != 0) for moved in moves)
    assert [event["private"]["units"] for event in progress.events] == [0, 0, 0]


def widths(fit, monkeypatch, model) -> set[int]:
    """Row lengths of all physical batches of a short training."""
    seen = set()

    def watched(model, batch, bound):
        seen.add(batch.input_ids.shape[1])
        return clip_and_sum(model, batch, bound)

    monkeypatch.setattr(loop, "clip_and_sum", watched)
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    fit(model, Numbered(documents(6)), a_plan(steps=2), a_recipe(physical_batch_size=2))
    return seen


def mixing_model() -> FNetForMaskedLM:
    """Fourier mixing takes padding in: the longest row of a batch would decide over the others."""
    torch.manual_seed(0)
    return FNetForMaskedLM(
        FNetConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            num_hidden_layers=1,
            intermediate_size=32,
            max_position_embeddings=16,
        )
    )


def test_rows_go_to_the_window_where_padding_reaches_a_gradient(fit, monkeypatch):
    assert widths(fit, monkeypatch, mixing_model()) == {16}


@pytest.mark.parametrize("make", [mixing_model, lambda: a_model()])
def test_the_physical_batch_size_does_not_change_the_held_out_loss(make):
    sizes = (1, 64)
    one, other = (
        evaluate(make(), documents(), a_recipe(physical_batch_size=size)) for size in sizes
    )
    assert one.tokens == other.tokens
    assert one.loss == pytest.approx(other.loss, rel=1e-6)


def test_rows_are_padded_little_where_padding_is_ignored(fit, monkeypatch):
    assert max(widths(fit, monkeypatch, a_model())) < 16


def test_a_model_that_cannot_be_exact_is_refused_before_a_charge(fit):
    charges, model = Charges(), a_model(is_decoder=True)
    with pytest.raises(UserError, match="is_decoder"):
        fit(model, Numbered(documents()), a_plan(), charges=charges)
    assert charges.seen == []


def test_reduced_precision_leaves_norms_sums_and_noise_in_float32(fit, monkeypatch):
    seen = []

    def watched(model, batch, bound):
        result = clip_and_sum(model, batch, bound)
        seen.append((torch.is_autocast_enabled("cpu"), result.norms.dtype))
        seen.extend(p.grad.dtype for p in model.parameters())
        return result

    monkeypatch.setattr(loop, "clip_and_sum", watched)
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    model = a_model()
    fit(model, Numbered(documents(6)), a_plan(steps=2), a_recipe(precision="bfloat16"))
    assert seen[0] == (True, torch.float32)
    assert set(seen) == {(True, torch.float32), torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_memory_limit_sets_the_rows_of_a_physical_batch(fit, monkeypatch):
    rows = []

    def watched(model, batch, bound):
        rows.append(len(batch))
        return clip_and_sum(model, batch, bound)

    monkeypatch.setattr(loop, "clip_and_sum", watched)
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    monkeypatch.setattr(loop, "rows_that_fit", lambda *_: 2)
    fit(a_model(), Numbered(documents(40)), a_plan(steps=4), a_recipe(memory_limit=10**6))
    assert max(rows) == 2


def included(fit, monkeypatch, *, units=40, steps=4000) -> np.ndarray:
    """bool [steps, units]: who was drawn by the loop, which does no training meanwhile."""
    monkeypatch.setattr(loop, "_step", lambda *_: {})
    source = Numbered(documents(1) * units)
    plan = a_plan(units=1000, expected_batch_size=100, steps=steps)
    fit(a_model(), source, plan, a_recipe(checkpoint_minutes=1e9))
    drawn = np.zeros((steps, units), dtype=bool)
    for step, index in source.asked:
        drawn[step, index] = True
    assert drawn.sum() == len(source.asked)
    return drawn


def test_units_are_included_independently_at_the_plans_rate(fit, monkeypatch):
    drawn = included(fit, monkeypatch)
    steps, units = drawn.shape
    rate = 0.1
    # A rate of 100 / 1000 although only 40 units are there: units, not the corpus, are declared.
    for count in drawn.sum(0):
        assert stats.binomtest(int(count), steps, rate).pvalue > 1e-6
    assert stats.binomtest(int(drawn.sum()), steps * units, rate).pvalue > 1e-6
    # Sizes vary as a sum of independent coins does; those of a shuffled corpus would not at all.
    sizes = drawn.sum(1)
    chi = (steps - 1) * np.var(sizes, ddof=1) / (units * rate * (1 - rate))
    assert 1e-6 < stats.chi2.cdf(chi, steps - 1) < 1 - 1e-6
    # Having been drawn says nothing about the next step.
    again = int((drawn[1:] & drawn[:-1]).sum())
    assert stats.binomtest(again, (steps - 1) * units, rate**2).pvalue > 1e-6


def test_two_runs_draw_different_samples_and_noise(fit):
    seen = []
    for folder in ("one", "other"):
        units, model = Numbered(documents() * 5), a_model()
        fit(model, units, a_plan(expected_batch_size=300), folder=folder)
        seen.append((units.asked, weights(model)))
    assert seen[0][0] != seen[1][0]
    assert not any(torch.equal(a, b) for a, b in zip(seen[0][1], seen[1][1]))


def test_a_step_is_charged_before_it_is_drawn_and_drawn_before_its_noise(fit, monkeypatch):
    seen = []
    noise, draw = optimizer.gaussian_noise, loop.PoissonSampler.draw

    def drawn(sampler, step):
        seen.append(("draw", step))
        return draw(sampler, step)

    def noised(*arguments, step, **names):
        if seen[-1] != ("noise", step):
            seen.append(("noise", step))
        return noise(*arguments, step=step, **names)

    monkeypatch.setattr(loop.PoissonSampler, "draw", drawn)
    monkeypatch.setattr(optimizer, "gaussian_noise", noised)
    fit(a_model(), Numbered(documents()), a_plan(steps=3), charges=Charges(seen))
    one = [[("charge", 1, step), ("draw", step), ("noise", step)] for step in range(3)]
    assert seen == [*one[0], *one[1], *one[2], ("commit", 1, 3)]


def one_step(examples, *, physical=64, plan=None) -> list[torch.Tensor]:
    """Movement of one SGD step over `examples`: the clipped sum over the expected batch size."""
    plan = plan or without_noise(max_grad_norm=0.5)
    model = a_model()
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    private = loop.SecureDPOptimizer(sgd, plan, loop.SecretStream.from_os())
    before = weights(model)
    model.eval()
    recipe = a_recipe(physical_batch_size=physical)
    loop._step(model, private, examples, 0, 1.0, plan, recipe, Ranks(0, 1))
    return [new - old for old, new in zip(before, weights(model))]


def test_the_sum_of_a_batch_is_the_sum_of_its_units_alone():
    examples = documents()
    whole = one_step(examples)
    alone = [one_step([example]) for example in examples]
    assert max(float(part.abs().max()) for part in whole) > 1e-3
    for together, parts in zip(whole, zip(*alone)):
        torch.testing.assert_close(together, torch.stack(parts).sum(0), rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("physical", [1, 2, 5])
def test_the_physical_batch_size_changes_nothing_but_rounding(physical):
    for one, other in zip(one_step(documents()), one_step(documents(), physical=physical)):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-6)


def test_every_row_has_the_plans_masked_slots_whoever_is_in_its_batch(fit, monkeypatch):
    widths = []

    def noted(model, batch, bound):
        widths.append(batch.masked_positions.shape[1])
        return clip_and_sum(model, batch, bound)

    monkeypatch.setattr(loop, "clip_and_sum", noted)
    recipe = a_recipe(physical_batch_size=2)
    fit(a_model(), Numbered(documents()), a_plan(expected_batch_size=300), recipe)
    assert set(widths) == {recipe.masking.masked_slots(recipe.window)}


def test_dropout_is_off(fit, monkeypatch):
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    ends = []
    for seed, folder in enumerate(("one", "other")):
        model = a_model(hidden_dropout_prob=0.5).train()
        torch.manual_seed(seed)
        fit(model, Numbered(documents()), without_noise(), folder=folder)
        ends.append(weights(model))
    for one, other in zip(*ends):
        assert torch.equal(one, other)


def test_a_unit_with_a_loss_that_is_no_number_contributes_nothing_and_the_run_goes_on(
    fit, monkeypatch
):
    """Token 59 overflows wherever it is read; the decoder is not tied to it."""
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    sound = documents(6)
    spoiled = [*sound[:2], Example("odd", np.full(9, 59)), *sound[3:]]
    assert all(59 not in example.tokens for example in sound)
    recipe = a_recipe(masking=MaskingSpec("token", 0.2, mask_fraction=1.0, random_fraction=0.0))
    ends = []
    for folder, examples in (("without", sound), ("with", spoiled)):
        if folder == "without":
            examples = [*sound[:2], maskless(1)[0], *sound[3:]]
        model = a_model(tie_word_embeddings=False)
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight[59] = 3e38
        plan = without_noise(max_grad_norm=0.5)
        progress = fit(model, Numbered(examples), plan, recipe, folder=folder)
        ends.append((weights(model), progress.events))
    assert [event["private"]["non_finite_units"] for event in ends[1][1]] == [1, 0] * 3
    assert all(math.isfinite(event["private"]["loss"]) for event in ends[1][1])
    for one, other in zip(ends[0][0], ends[1][0]):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_divergence_is_judged_on_the_noised_weights_alone(fit, monkeypatch):
    """Nothing is learnt from these documents: noise alone throws the weights out of range."""
    plan = a_plan(expected_batch_size=1e-6)
    with pytest.raises(UserError, match="diverged") as caught:
        moves_of(fit, monkeypatch, Numbered(maskless()), plan, rate=1e38)
    assert caught.value.given == "weights at step 1"


class Crash(Exception):
    pass


def crash_at(step, when=None):
    """A `report` that ends the attempt after `step` steps, before their checkpoint."""

    def report(done, total):
        if done == step:
            raise when or Crash

    return report


def test_a_resumed_run_is_the_uninterrupted_one_but_for_sampling_and_noise(fit, monkeypatch):
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    whole, resumed = a_model(), a_model()
    plan = without_noise(max_grad_norm=0.5)
    straight = fit(whole, Numbered(documents()), plan, folder="straight")
    charges = Charges()
    with pytest.raises(Crash):
        fit(resumed, Numbered(documents()), plan, charges=charges, report=crash_at(4))
    again = a_model(seed=9)  # its weights come from the checkpoint
    progress = fit(again, Numbered(documents()), plan, charges=charges)
    assert progress.attempt == 2
    assert progress.events == straight.events
    for one, other in zip(weights(whole), weights(again)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)
    # Step 4 (numbered 3) was drawn, not saved, and drawn again under a charge of its own.
    steps = [entry[1:] for entry in charges.seen if entry[0] == "charge"]
    assert steps == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 3), (2, 4), (2, 5)]


def test_a_step_drawn_again_has_another_sample_and_other_noise_and_one_event(fit, monkeypatch):
    noises, noise = [], optimizer.gaussian_noise

    def noised(*arguments, step, label, **names):
        drawn = noise(*arguments, step=step, label=label, **names)
        if label == "noise/0":
            noises.append((step, drawn.clone()))
        return drawn

    monkeypatch.setattr(optimizer, "gaussian_noise", noised)
    plan, charges = a_plan(expected_batch_size=500), Charges()
    units = Numbered(documents() * 10)
    with pytest.raises(Crash):
        fit(a_model(), units, plan, charges=charges, report=crash_at(4))
    first = {index for step, index in units.asked if step == 3}
    units.asked.clear()
    progress = fit(a_model(), units, plan, charges=charges)
    second = {index for step, index in units.asked if step == 3}
    assert {step for step, _ in units.asked} == {3, 4, 5}
    assert first != second  # equal by chance once in 2^120
    one, other = (drawn for step, drawn in noises if step == 3)
    assert abs(np.corrcoef(one.flatten(), other.flatten())[0, 1]) < 0.2
    # What the attempt that crashed logged of that step is gone.
    assert [event["step"] for event in progress.events] == [1, 2, 3, 4, 5, 6]
    sizes = Counter(step for step, _ in units.asked)
    assert [event["private"]["units"] for event in progress.events[3:]] == [
        sizes[step] for step in (3, 4, 5)
    ]


def test_a_run_killed_before_its_commit_draws_nothing_more(fit):
    class Stubborn(Charges):
        def commit(self, attempt, steps):
            super().commit(attempt, steps)
            if len([entry for entry in self.seen if entry[0] == "commit"]) == 1:
                raise Crash

    charges, units = Stubborn(), Numbered(documents())
    plan = a_plan()
    with pytest.raises(Crash):
        fit(a_model(), units, plan, charges=charges)
    units.asked.clear()
    model = a_model()
    progress = fit(model, units, plan, charges=charges)
    assert units.asked == []
    assert charges.seen[-2:] == [("commit", 1, 6), ("commit", 1, 6)]
    assert (progress.step, progress.attempt) == (6, 1)


def stop_at(step, times=1):
    def report(done, total):
        if done == step:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGTERM)
                signal.sigpending()

    return report


@pytest.mark.parametrize(("step", "committed"), [(2, False), (6, True)])
def test_sigterm_stops_after_a_checkpoint_and_in_the_last_step_after_the_commit(
    fit, step, committed
):
    before = signal.getsignal(signal.SIGTERM)
    charges = Charges()
    recipe = a_recipe(checkpoint_minutes=1e9)
    units = Numbered(documents())
    with pytest.raises(Interrupted) as caught:
        fit(a_model(), units, a_plan(), recipe, charges=charges, report=stop_at(step))
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert (charges.seen[-1] == ("commit", 1, 6)) is committed
    units.asked.clear()
    progress = fit(a_model(), units, a_plan(), recipe, charges=charges)
    assert progress.step == 6
    assert charges.seen[-1] == ("commit", 1 if committed else 2, 6)
    assert {visit for visit, _ in units.asked} <= set(range(step, 6))


def test_a_second_signal_stops_at_once(fit, tmp_path):
    with pytest.raises(Interrupted):
        fit(a_model(), Numbered(documents()), a_plan(), report=stop_at(2, times=2))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_what_is_computed_without_noise_is_labelled_private(fit):
    progress = fit(a_model(), Numbered(documents()), a_plan(expected_batch_size=300))
    for step, event in enumerate(progress.events):
        rate = learning_rate_at(step, steps=6, peak=1e-2, warmup=0.1)
        assert event == {"step": step + 1, "public": {"learning_rate": rate}} | {
            "private": event["private"]
        }
        assert event["private"].keys() == {
            "units", "non_finite_units", "loss", "median_norm", "clipped"
        }  # fmt: skip
