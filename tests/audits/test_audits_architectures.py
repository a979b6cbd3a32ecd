"""Span scores and masked losses on other architectures than BERT, against whole logits."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
)

from audits.models import LoadedModel
from audits.scores.masked_loss import draw_masks, masked_losses
from audits.scores.sequence import SpanScorer

SMALL = {"vocab_size": 700, "hidden_size": 32, "num_hidden_layers": 1, "pad_token_id": 0}
CONFIGS = [
    RobertaConfig(**SMALL, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64),
    ElectraConfig(**SMALL, embedding_size=16, num_attention_heads=2, intermediate_size=32),
    DistilBertConfig(vocab_size=700, dim=32, n_layers=1, n_heads=2, hidden_dim=32, pad_token_id=0),
    ModernBertConfig(**SMALL, num_attention_heads=2, intermediate_size=32, reference_compile=False),
]
ROWS = [(10, 11, 12, 13), tuple(range(20, 50)), (60, 61, 62)]


def _whole(subject: LoadedModel, tokens: tuple[int, ...], hidden: list[int]) -> np.ndarray:
    masked = [subject.ids.mask if i in hidden else token for i, token in enumerate(tokens)]
    ids = torch.tensor([[subject.ids.cls, *masked, subject.ids.sep]])
    with torch.no_grad():
        logits = subject.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    return np.array([float(logprobs[i + 1, token]) for i, token in enumerate(tokens)])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_every_architecture_is_scored_as_by_its_whole_logits(
    config: PretrainedConfig, untrained: LoadedModel
) -> None:
    torch.manual_seed(0)
    subject = LoadedModel.of(AutoModelForMaskedLM.from_config(config), untrained.tokenizer)
    found = SpanScorer(subject).score(ROWS, [(1, 3)] * 3)
    losses = masked_losses([subject], ROWS, masks=3, seed=0)[0]
    for row, steps, loss in zip(ROWS, found, losses):
        both, last = _whole(subject, row, [1, 2]), _whole(subject, row, [2])
        assert steps == pytest.approx([both[1], last[2]], abs=1e-4)
        drawn = draw_masks(np.array(row), range(5), masks=3, ratio=0.15, seed=0).tolist()
        expected = [-_whole(subject, row, places)[places].mean() for places in drawn]
        assert loss == pytest.approx(np.mean(expected), abs=1e-4)
