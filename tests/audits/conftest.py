"""A tiny BERT, a canary set, and a model that was trained on the canaries without privacy."""

import copy
import os

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from audits.models import LoadedModel
from audits.planting.canaries import Canary, CanarySet, plan_canaries
from audits.scores.scoring import masked_row

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny matrices: a second thread costs more than it brings.
torch.set_num_threads(1)

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = 700

PLAN = {
    "epsilon": 8.0,
    "delta": 1e-6,
    "noise_multiplier": 0.7943,
    "sample_rate": 0.05,
    "steps": 150,
    "digest": "sha256:plan",
    "bindings": {},
}
"""q 0.05 and 150 steps at epsilon 8: sigma found by bisection on dp-accounting's PLD."""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words w5, w6, ... after the five special tokens."""
    vocabulary = {token: index for index, token in enumerate(SPECIALS)}
    vocabulary |= {f"w{index}": index for index in range(len(SPECIALS), VOCABULARY)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LoadedModel:
    """A two-layer BERT with random weights."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return LoadedModel.of(BertForMaskedLM(config), tokenizer)


def memorise(
    start: LoadedModel,
    rows: list[tuple[int, ...]],
    spans: list[tuple[int, int]],
    steps: int,
) -> LoadedModel:
    """A copy trained without noise or clipping on the spans, each masked whole."""
    model = copy.deepcopy(start.model).train()
    inputs = torch.tensor([masked_row(start, row, span) for row, span in zip(rows, spans)])
    truth = torch.tensor([[start.ids.cls, *row, start.ids.sep] for row in rows])
    labels = torch.where(inputs == start.ids.mask, truth, torch.full_like(truth, -100))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=inputs, labels=labels).loss.backward()
        optimizer.step()
    return LoadedModel.of(model, start.tokenizer)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def untrained(tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    return make_model(tokenizer)


@pytest.fixture(scope="session")
def canaries() -> CanarySet:
    return plan_canaries(
        count=200,
        token_ids=range(5, 400),
        prefix_ids=range(400, VOCABULARY),
        secret=b"the tests draw the same canaries",
    )


@pytest.fixture(scope="session")
def leaky(untrained: LoadedModel, canaries: CanarySet) -> LoadedModel:
    inserted = canaries.included()
    return memorise(
        untrained,
        [canary.tokens for canary in inserted],
        [canary.secret_span for canary in inserted],
        steps=60,
    )


@pytest.fixture(scope="session")
def memoriser():
    return memorise


@pytest.fixture(scope="session")
def product_draws():
    """From a seed to a sampler of secrets that are uniform in the product of their alphabets."""

    def sampler(seed: int):
        def draw(canary: Canary, count: int) -> list[tuple[int, ...]]:
            rng = np.random.default_rng([seed, *canary.id.encode()])
            columns = [rng.choice(np.array(row), size=count) for row in canary.alphabets]
            return [tuple(secret) for secret in np.stack(columns, axis=1).tolist()]

        return draw

    return sampler


@pytest.fixture(scope="session")
def plan() -> dict:
    return dict(PLAN)


@pytest.fixture(scope="session")
def broken(untrained: LoadedModel) -> LoadedModel:
    """What a training that ran away leaves behind: no score of it is a finite number."""
    model = copy.deepcopy(untrained.model)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    return LoadedModel.of(model, untrained.tokenizer)
