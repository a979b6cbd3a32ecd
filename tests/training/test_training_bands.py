"""Correlated noise in the loop: whose turn it is, and what a resumed attempt takes up of it."""

import math
from contextlib import contextmanager

import pytest
import safetensors.torch
import torch
from small_training import Numbered, a_model, a_plan, a_recipe, documents

from dpmlm.artifacts import SealedFolder
from dpmlm.privacy import BandedNoise, groups_of


class Crash(Exception):
    pass


def banded(**changes):
    numbers = (0.8, 0.5, math.sqrt(1 - 0.64 - 0.25))
    return a_plan(bands=3, coefficients=numbers, sampler="cyclic Poisson", units=40, **changes)


@pytest.fixture
def chains(monkeypatch):
    """Of each attempt a list of (fresh, correlated) of its first parameter."""
    seen, correlate, begin = [], BandedNoise.correlate, BandedNoise.__init__

    def begun(noise, *arguments):
        begin(noise, *arguments)
        seen.append([])

    def noted(noise, fresh, label):
        before = fresh.clone()
        made = correlate(noise, fresh, label)
        if label == "noise/0":
            seen[-1].append((before, made.clone()))
        return made

    monkeypatch.setattr(BandedNoise, "__init__", begun)
    monkeypatch.setattr(BandedNoise, "correlate", noted)
    return seen


def crash_after(step):
    def report(done, total):
        if done == step:
            raise Crash

    return report


def test_units_take_turns_and_keep_them_when_a_run_goes_on(fit):
    plan, recipe = banded(steps=9, expected_batch_size=10.0), a_recipe()
    first, second = Numbered(documents()), Numbered(documents())
    with pytest.raises(Crash):
        fit(a_model(), first, plan, recipe, report=crash_after(5))
    fit(a_model(), second, plan, recipe)
    groups = groups_of(first.names, 3, recipe.mask_seed)
    asked = first.asked + second.asked
    assert len(asked) > 10
    assert all(groups[index] == step % 3 for step, index in asked)


def test_a_resumed_attempt_begins_a_new_chain(fit, chains):
    """Its first noise owes nothing to what was drawn before, and the second to the first alone."""
    plan = banded(steps=6, expected_batch_size=10.0)
    with pytest.raises(Crash):
        fit(a_model(), Numbered(documents()), plan, report=crash_after(4))
    fit(a_model(), Numbered(documents()), plan)
    assert [len(chain) for chain in chains] == [4, 3]
    for (first, made), (second, next_made), *_ in chains:
        torch.testing.assert_close(made, first / 0.8)
        torch.testing.assert_close(next_made, (second - 0.5 * made) / 0.8)
    assert not torch.equal(chains[0][3][0], chains[1][0][0])


def test_no_checkpoint_holds_noise(fit, chains, monkeypatch):
    written, seal = {}, SealedFolder.writer

    @contextmanager
    def kept(folder, name):
        with seal(folder, name) as file:
            written[name] = bytearray()
            write = file.write
            monkeypatch.setattr(
                file, "write", lambda data: written[name].extend(data) or write(data)
            )
            yield file

    monkeypatch.setattr(SealedFolder, "writer", kept)
    fit(a_model(), Numbered(documents()), banded(steps=4, expected_batch_size=10.0))
    tensors = safetensors.torch.load(bytes(written["optimizer"]))
    assert {name.split("/")[1] for name in tensors} == {"exp_avg", "exp_avg_sq", "step"}
    last = chains[0][-1][1].flatten()[:8].numpy().tobytes()
    assert len(last) == 32
    assert not any(last in data for data in written.values())
