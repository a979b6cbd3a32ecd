"""Small models, plans, recipes and units for tests of the training loop."""

import math

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM

from dpmlm.masking import Example, MaskingSpec, TokenTable
from dpmlm.privacy import PrivacyPlan
from dpmlm.training import Recipe
from dpmlm.training.units import View

VOCABULARY = 60


class Numbered:
    """Units u0, u1, ... with one example each; notes which were asked for."""

    def __init__(self, examples):
        self._examples = examples
        self.names = [f"u{index}" for index in range(len(examples))]
        self.asked = []

    def views(self, index, step, count):
        self.asked.append((step, index))
        return [View(self._examples[index], step)]


class Charges:
    """Notes what it is asked, in order, in a list that others may write to as well."""

    def __init__(self, seen=None):
        self.seen = [] if seen is None else seen
        self.attempts = 0

    def begin(self, from_step, from_attempt):
        self.attempts += 1
        return self.attempts

    def take_over(self, attempt, steps):
        return attempt

    def keep(self, attempt, steps):
        pass

    def charge(self, attempt, step):
        self.seen.append(("charge", attempt, step))

    def commit(self, attempt, steps):
        self.seen.append(("commit", attempt, steps))


class Every:
    """A sampler without chance: at each step the units whose number has the step's parity."""

    def __init__(self, units, rate, *, stream, **more):
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


def weights(model) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]
