"""The loop: what is charged, drawn, clipped, noised and logged, in which order."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from small_training import (
    VOCABULARY,
    Charges,
    Every,
    Numbered,
    a_model,
    a_plan,
    a_recipe,
    documents,
    maskless,
    weights,
    without_noise,
)
from transformers import FNetConfig, FNetForMaskedLM

from dpmlm.clipping import clip_and_sum
from dpmlm.errors import UserError
from dpmlm.masking import Example, MaskingSpec
from dpmlm.training import Checkpoints, loop, optimizer
from dpmlm.training.gradients import NO_GRADIENT_CANARIES, PlantedGradients
from dpmlm.training.optimizer import learning_rate_at
from dpmlm.training.physical import PhysicalBatches
from dpmlm.training.ranks import Ranks
from dpmlm.training.units import View


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
        # Seven standard deviations of the estimate: a false alarm in some 10^10 runs.
        assert np.std(moved) == pytest.approx(expected, rel=7 / math.sqrt(2 * len(moved)))
        assert abs(np.mean(moved)) < 7 * expected / math.sqrt(len(moved))
    assert {event["private"]["loss"] for event in progress.events} <= {0.0, None}


@pytest.mark.usefixtures("known_exact")
def test_a_schedule_of_the_masking_follows_the_steps(fit, monkeypatch):
    """Ratio 0.6 down to 0.1: what is hidden of rows of 14 tokens, step by step."""
    seen = []

    def watched(model, batch, bound, **more):
        seen.append(float(batch.masked_weights.sum(1).mean()))
        return clip_and_sum(model, batch, bound, **more)

    monkeypatch.setattr(loop, "clip_and_sum", watched)
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    recipe = a_recipe(masking=MaskingSpec("token", 0.6, ratio_end=0.1))
    rows = [Example(f"d{i}", np.arange(5, 19)) for i in range(40)]
    fit(a_model(), Numbered(rows), a_plan(steps=5), recipe)
    ratios = [recipe.masking.ratio_at(step / 4) for step in range(5)]
    assert (ratios[0], ratios[-1]) == (0.6, 0.1)
    assert seen == pytest.approx([14 * ratio for ratio in ratios], abs=0.5)


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

    def watched(model, batch, bound, **more):
        seen.add(batch.input_ids.shape[1])
        return clip_and_sum(model, batch, bound, **more)

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


def test_rows_are_padded_little_where_padding_is_ignored(fit, monkeypatch):
    assert max(widths(fit, monkeypatch, a_model())) < 16


def test_a_model_that_cannot_be_exact_is_refused_before_a_charge(fit):
    charges, model = Charges(), a_model(is_decoder=True)
    with pytest.raises(UserError, match="is_decoder"):
        fit(model, Numbered(documents()), a_plan(), charges=charges)
    assert charges.seen == []


def test_reduced_precision_leaves_norms_sums_and_noise_in_float32(fit, monkeypatch):
    seen = []

    def watched(model, batch, bound, **more):
        result = clip_and_sum(model, batch, bound, **more)
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

    def watched(model, batch, bound, **more):
        rows.append(len(batch))
        return clip_and_sum(model, batch, bound, **more)

    monkeypatch.setattr(loop, "clip_and_sum", watched)
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    monkeypatch.setattr(loop, "rows_that_fit", lambda *_, **__: 2)
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
        assert stats.binomtest(int(count), steps, rate).pvalue > 1e-9
    assert stats.binomtest(int(drawn.sum()), steps * units, rate).pvalue > 1e-9
    # Sizes vary as a sum of independent coins does; those of a shuffled corpus would not at all.
    sizes = drawn.sum(1)
    chi = (steps - 1) * np.var(sizes, ddof=1) / (units * rate * (1 - rate))
    assert 1e-9 < stats.chi2.cdf(chi, steps - 1) < 1 - 1e-9
    # Having been drawn says nothing about the next step.
    again = int((drawn[1:] & drawn[:-1]).sum())
    assert stats.binomtest(again, (steps - 1) * units, rate**2).pvalue > 1e-9


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
    drawn = [[View(example, 0)] for example in examples]
    planted = PlantedGradients(NO_GRADIENT_CANARIES, private.params, plan)
    batches = PhysicalBatches(recipe, Ranks(0, 1))
    clip = loop._clipping(model, plan, recipe)
    loop._step(clip, private, drawn, planted, 0, 1.0, plan, batches, Ranks(0, 1))
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

    def noted(model, batch, bound, **more):
        widths.append(batch.masked_positions.shape[1])
        return clip_and_sum(model, batch, bound, **more)

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
    with pytest.raises(UserError, match=r"diverged: .* rate of 1e\+38") as caught:
        moves_of(fit, monkeypatch, Numbered(maskless()), plan, rate=1e38)
    assert caught.value.given == "weights at step 1"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_noised_gradient_that_is_no_number_never_reaches_the_weights(fit, monkeypatch, precision):
    """Noise beyond float32 on step 2; what the message advises depends on the precision."""
    noise = optimizer.gaussian_noise

    def huge(shape, std, *rest, step, **names):
        drawn = noise(shape, std, *rest, step=step, **names)
        return drawn * math.inf if step == 1 else drawn

    monkeypatch.setattr(optimizer, "gaussian_noise", huge)
    model, seen = a_model(), []
    recipe = a_recipe(precision=precision)
    with pytest.raises(UserError, match="diverged") as caught:
        fit(
            model, Numbered(documents()), a_plan(), recipe,
            report=lambda done, total: seen.append(weights(model)),
        )  # fmt: skip
    assert caught.value.given == "weights at step 2"
    assert ("training.precision" in caught.value.next_step) is (precision == "bfloat16")
    assert len(seen) == 1
    assert all(torch.equal(a, b) for a, b in zip(seen[0], weights(model)))


def test_every_figure_of_a_step_is_labelled(fit):
    plan = a_plan(expected_batch_size=300)
    progress = fit(a_model(), Numbered(documents()), plan)
    for step, event in enumerate(progress.events):
        rate = learning_rate_at(step, steps=6, peak=1e-2, warmup=0.1)
        assert event["step"] == step + 1
        assert event["public"] == {"learning_rate": rate, "sample_rate": 0.3}
        assert event["dp"].keys() == {"noised_gradient_norm"}
        assert event["private"].keys() == {
            "units", "non_finite_units", "loss", "median_norm", "clipped"
        }  # fmt: skip


def test_the_noised_norm_is_that_of_the_noise_where_nobody_is_drawn(fit):
    """The norm of so many normals deviates by a hundredth; a tenth is allowed."""
    plan = a_plan(units=1000, expected_batch_size=50.0, noise_multiplier=3.0)
    model = a_model()
    numbers = sum(p.numel() for p in model.parameters())
    progress = fit(model, Numbered([]), plan)
    expected = 3.0 * plan.max_grad_norm * math.sqrt(numbers) / 50.0
    norms = [event["dp"]["noised_gradient_norm"] for event in progress.events]
    assert norms == pytest.approx([expected] * plan.steps, rel=0.1)
    assert len(set(norms)) == plan.steps


def test_without_noise_no_figure_of_the_sums_is_more_than_private(fit):
    progress = fit(a_model(), Numbered(documents()), without_noise())
    for event in progress.events:
        assert event["dp"] == {}
        assert event["private"]["noised_gradient_norm"] >= 0


def test_sinks_get_what_a_checkpoint_holds_and_nothing_sooner(fit, monkeypatch):
    """A sink that a checkpoint precedes, each time it is told something."""
    told, kept = [], []

    class Told:
        def write(self, events):
            told.append((len(kept), [event["step"] for event in events]))

        def gauge(self, name, value, **labels):
            pass

    write = Checkpoints._write

    def written(self, step, *rest):
        write(self, step, *rest)
        kept.append(step)

    monkeypatch.setattr(Checkpoints, "_write", written)
    fit(a_model(), Numbered(documents()), a_plan(steps=3), telemetry=[Told()])
    assert told == [(1, [1]), (2, [1, 2]), (3, [1, 2, 3])]
