"""`World`: the small model that one seed trains, its made-up people and its canaries.

Everything that the claim rests on is the real thing: `train` with its loop and step, the sampler,
the stream, clipping, the DP optimizer. Left out are checkpoints and the ledger, as nobody resumes,
and the model's examination at the start of each training, which is the `doctor` check here.
"""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from transformers import BertConfig, BertForMaskedLM

from audits.claim.whitebox import (
    COMMITMENT,
    GradientCanarySet,
    Transcript,
    plan_gradient_canaries,
)
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet, plan_canaries
from dpmlm.clipping import ModelReport, check_model
from dpmlm.masking import Example, MaskingSpec, TokenTable
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.selftest.replaced import replaced
from dpmlm.pipeline.whitebox import gradient_units, transcript_of
from dpmlm.privacy import PrivacyPlan, make_plan
from dpmlm.tokens.wordpiece import SPECIALS, wordpiece_tokenizer
from dpmlm.training import (
    NO_GRADIENT_CANARIES,
    Checkpoints,
    GradientCanaries,
    Progress,
    PublicText,
    Recipe,
    loop,
    train,
)
from dpmlm.training.interrupts import StopRequest
from dpmlm.training.units import Units, View

DELTA = 1e-5


@dataclass(frozen=True)
class Size:
    """How large a world is: as it stands, one training with all that judges it takes about nine
    seconds of a core, and an audit catches a training without noise at a claim of epsilon 8."""

    canaries: int = 300
    """Planned; each is in with probability one half."""
    gradient_canaries: int = 1000
    """Planned directions in the clipped sum, for the white-box audit."""
    people: int = 60
    documents: int = 2
    """Of each person, canaries included; all of a drawn person's are in the batch."""
    words: int = 3000
    """Of the vocabulary: the first third is what people write, secrets are of the rest."""
    secret: int = 6
    prefix: int = 4
    hidden: int = 64
    steps: int = 150
    rate: float = 0.1
    learning_rate: float = 1e-2

    @property
    def units(self) -> int:
        """Public bound on people: five standard deviations of the coins above their mean."""
        coins = self.canaries + self.gradient_canaries
        return self.people + math.ceil(coins / 2 + 2.5 * math.sqrt(coins))

    @property
    def window(self) -> int:
        """Tokens a row; a canary fills it."""
        return self.prefix + self.secret + 2


class People:
    """Units of several documents each; counts how often any was drawn."""

    def __init__(self, documents: Sequence[Sequence[Example]]) -> None:
        self._documents = documents
        self.names: Sequence[str] = [f"person {index}" for index in range(len(documents))]
        self.draws = 0

    def views(self, index: int, step: int, count: int) -> Sequence[View]:
        self.draws += 1
        mine = self._documents[index]
        return [View(mine[row % len(mine)], step * count + row) for row in range(count)]


@dataclass(frozen=True)
class World:
    """What all trainings of a seed share."""

    size: Size
    tokenizer: Any
    table: TokenTable
    canaries: CanarySet
    gradients: GradientCanarySet
    documents: Sequence[Sequence[Example]]
    """Of each person, included canaries behind the others."""
    start: nn.Module
    """The model before training."""
    report: ModelReport
    """What was found on it while nothing was broken."""

    @classmethod
    def of(cls, seed: int, size: Size) -> "World":
        """The world of a seed: text, canaries and first weights; noise and samples of its trainings
        are new each time."""
        vocabulary = [*SPECIALS, *(f"w{index}" for index in range(size.words))]
        tokenizer = wordpiece_tokenizer({word: place for place, word in enumerate(vocabulary)})
        first, last = len(SPECIALS), len(SPECIALS) + size.words // 3
        canaries = plan_canaries(
            count=size.canaries,
            token_ids=range(last, len(vocabulary)),
            prefix_ids=range(first, last),
            length=size.secret,
            prefix_length=size.prefix,
            secret=b"selftest %d" % seed,
        )
        rng = np.random.default_rng(seed)
        documents = [_written(rng, size, number, first, last) for number in range(size.people)]
        documents += [
            [
                Example(f"{one.id}/{copy}", np.array(one.tokens), secret_span=one.secret_span)
                for copy in range(size.documents)
            ]
            for one in canaries.included()
        ]
        model = _model(size, len(vocabulary), seed)
        report = check_model(model, len(vocabulary), window=size.window)
        table = TokenTable.of(tokenizer)
        drawn = plan_gradient_canaries(size.gradient_canaries, secret=b"selftest %d" % seed)
        return cls(size, tokenizer, table, canaries, drawn, documents, model, report)

    def people(self) -> People:
        """The units, none drawn yet."""
        return People(self.documents)

    @property
    def untrained(self) -> LoadedModel:
        """The model before training, for an audit."""
        return LoadedModel.of(copy.deepcopy(self.start), self.tokenizer)

    def plan(self, epsilon: float) -> PrivacyPlan:
        """A promise for one person. It names its canaries, as every plan does."""
        size = self.size
        bindings = {
            "canary_commitment": self.canaries.commitment,
            COMMITMENT: self.gradients.commitment,
        }
        return make_plan(
            epsilon=epsilon, delta=DELTA, units=size.units, unit="person",
            expected_batch_size=size.rate * size.units, steps=size.steps, max_grad_norm=1.0,
            accountant="pld", bindings=bindings,
        )  # fmt: skip

    def train(self, units: Units, plan: PrivacyPlan) -> tuple[LoadedModel, Transcript | None]:
        """A copy of the model, trained, and what its noised sums say of the gradient canaries; a
        plan without noise has none."""
        model = copy.deepcopy(self.start)
        planted = gradient_units(self.gradients) if plan.noise_multiplier else NO_GRADIENT_CANARIES
        done = self._train(model, units, plan, gradients=planted)
        return LoadedModel.of(model, self.tokenizer), transcript_of(done, plan)

    def releases(self, units: Units, plan: PrivacyPlan) -> torch.Tensor:
        """float64 [steps, weights]: the noisy sum of each step, read off the weights of a training
        by plain SGD whose rate makes a movement as long as the sum."""
        model = copy.deepcopy(self.start)
        seen = [_weights(model)]

        def sgd(module: nn.Module, rate: float, decay: float) -> Optimizer:
            return torch.optim.SGD(module.parameters(), lr=rate)

        def rate(step: int, **_: Any) -> float:
            return _MOVE * plan.batch_at(step)

        with replaced(loop, adamw=sgd, learning_rate_at=rate):
            self._train(model, units, plan, lambda done, total: seen.append(_weights(model)))
        return (torch.stack(seen[:-1]) - torch.stack(seen[1:])) / _MOVE

    def _examined(self, *_: Any, **__: Any) -> ModelReport:
        return self.report

    def _train(
        self,
        model: nn.Module,
        units: Units,
        plan: PrivacyPlan,
        report: Report = lambda done, total: None,
        gradients: GradientCanaries = NO_GRADIENT_CANARIES,
    ) -> Progress:
        size = self.size
        recipe = Recipe(
            table=self.table,
            masking=MaskingSpec("token", size.secret / (size.prefix + size.secret)),
            window=size.window,
            stride=size.window,
            mask_seed=bytes(32),
            learning_rate=size.learning_rate,
            warmup=0.05,
            weight_decay=0.0,
            windows_per_draw=size.documents,
            physical_batch_size=256,
            checkpoint_minutes=math.inf,
        )
        unkept = cast(Checkpoints, Unkept())
        with replaced(loop, refuse_inexact=self._examined, stop_requests=_stopped_at_once):
            return train(
                model, units, plan, recipe, charges=PublicText(), checkpoints=unkept,
                report=report, gradients=gradients,
            )  # fmt: skip


_MOVE = 1e-2
"""Movement of the weights for a sum of length 1: rounding of a weight stays below a thousandth."""


def _stopped_at_once() -> AbstractContextManager[StopRequest]:
    """No waiting for a checkpoint: there is none to resume from."""
    return nullcontext(StopRequest())


class Unkept:
    """Checkpoints of a training that nobody resumes."""

    def load(self, model: nn.Module, optimizer: Optimizer) -> None:
        return None

    def take_up(self) -> None:
        return None

    def prepare(
        self, model: nn.Module, optimizer: Optimizer, progress: Progress
    ) -> Callable[[], None]:
        return lambda: None


def without_noise(plan: PrivacyPlan) -> PrivacyPlan:
    """The same clipping without noise: for what is measured on sums."""
    return replace(plan, epsilon=math.inf, noise_multiplier=0.0, noise_source="none")


def _written(
    rng: np.random.Generator, size: Size, number: int, first: int, last: int
) -> list[Example]:
    """A person's documents: words as common as in text (Zipf), a person's own order."""
    room = size.window - 2
    return [
        Example(f"{number}/{document}", first + rng.zipf(1.3, room) % (last - first))
        for document in range(size.documents)
    ]


def _model(size: Size, entries: int, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForMaskedLM(
            BertConfig(
                vocab_size=entries,
                hidden_size=size.hidden,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=2 * size.hidden,
                max_position_embeddings=size.window,
            )
        ).eval()


def _weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).double()
