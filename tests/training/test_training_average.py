"""The average of weights against the sum that defines it."""

import pytest
import torch
from torch import nn

from dpmlm.errors import IntegrityError, UserError
from dpmlm.training.average import Average


def walk(model, steps, seed=0):
    """Random weights for each step."""
    random = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.copy_(torch.randn(p.shape, generator=random))
        yield model.weight.detach().clone()


def model():
    torch.manual_seed(1)
    made = nn.Linear(3, 2)
    made.bias.requires_grad_(False)
    return made


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_the_weighted_mean_of_all_steps(decay):
    one = model()
    bias = one.bias.detach().clone()
    average, seen = Average(one, decay), []
    for weight in walk(one, 7):
        average.update()
        seen.append(weight.double())
    shares = [decay ** (len(seen) - 1 - i) for i in range(len(seen))]
    mean = sum(share * weight for share, weight in zip(shares, seen)) / sum(shares)
    average.put()
    torch.testing.assert_close(one.weight.double(), mean, rtol=1e-4, atol=1e-4)
    assert torch.equal(one.bias, bias)  # frozen: neither averaged nor moved
    assert list(average.state_dict()) == ["weight"]


def test_after_one_step_it_is_that_step():
    one = model()
    average = Average(one, 0.99)
    (weight,) = walk(one, 1)
    average.update()
    average.put()
    torch.testing.assert_close(one.weight, weight, rtol=1e-4, atol=1e-5)


def test_before_the_first_step_nothing_moves():
    one = model()
    before = one.weight.detach().clone()
    Average(one, 0.9).put()
    assert torch.equal(one.weight, before)


def test_going_on_from_a_checkpoint_is_not_having_stopped():
    whole, cut = model(), model()
    one, two = Average(whole, 0.9), Average(cut, 0.9)
    for _ in walk(whole, 6):
        one.update()
    for step, _ in enumerate(walk(cut, 6)):
        if step == 3:
            kept = {name: t.clone() for name, t in two.state_dict().items()}
            two = Average(cut, 0.9)
            two.load(kept, 3)
        two.update()
    one.put(), two.put()
    assert torch.equal(whole.weight, cut.weight)


def test_training_goes_on_from_its_own_weights_after_a_look_at_the_average():
    one = model()
    average = Average(one, 0.9)
    for weight in walk(one, 3):
        average.update()
        last = weight

    def look():
        with average.in_place():
            assert not torch.equal(one.weight, last)
            raise RuntimeError("looked")

    with pytest.raises(RuntimeError, match="looked"):
        look()
    assert torch.equal(one.weight, last)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(UserError, match=r"training\.average"):
        Average(model(), decay)


def test_the_average_of_other_parameters_is_refused():
    with pytest.raises(IntegrityError, match="other parameters"):
        Average(model(), 0.9).load({"bias": torch.zeros(2)}, 1)
