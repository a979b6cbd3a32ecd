"""The obviously correct, slow twin: one unit at a time, plain autograd, the model's own forward."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from dpmlm.masking import MaskedBatch

VOCAB = 61
FAMILIES = ("bert", "roberta", "distilbert")


def tiny_model(family: str, *, tied: bool = True, seed: int = 0, **settings) -> PreTrainedModel:
    """A random model of two layers, dropout off, with weights large enough to matter."""
    torch.manual_seed(seed)
    shared = {"vocab_size": VOCAB, "tie_word_embeddings": tied, "max_position_embeddings": 40}
    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 40,
    }
    if family == "distilbert":
        names = ("dim", "n_layers", "n_heads", "hidden_dim")
        config = DistilBertConfig(**shared, **dict(zip(names, sizes.values())), **settings)
        model = DistilBertForMaskedLM(config)
    elif family == "roberta":
        model = RobertaForMaskedLM(RobertaConfig(**shared, **sizes, **settings))
    else:
        model = BertForMaskedLM(BertConfig(**shared, **sizes, **settings))
    with torch.no_grad():
        for name, param in model.named_parameters():
            if param.dim() == 1:
                param.add_(0.1 * torch.randn_like(param))
            elif "embeddings" in name:
                param.mul_(10)
    return model.eval()


def awkward_batch(pad: int, *, seed: int = 1, rows: int = 7, width: int = 14) -> MaskedBatch:
    """Row 1 one token, row 2 no mask, row 3 one slot, the rest padded; ids repeat a lot.

    Padding ids also stand inside the text of row 4 (attended), where padding_idx must hold.
    Unused slots carry nonsense positions and labels.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 12, (rows, width), generator=generator)
    lengths = torch.tensor([width, 1, width, 9, width, 6, 11])[:rows]
    mask = torch.arange(width) < lengths[:, None]
    ids = ids.masked_fill(~mask, pad)
    ids[4, 3:6] = pad
    positions = (torch.rand(rows, 4, generator=generator) * lengths[:, None]).long()
    labels = torch.randint(3, VOCAB, (rows, 4), generator=generator)
    weights = torch.ones(rows, 4)
    weights[1, 1:], weights[2], weights[3, 1:], weights[5, 2:] = 0, 0, 0, 0
    unused = weights == 0
    return MaskedBatch(
        input_ids=ids,
        attention_mask=mask.long(),
        masked_positions=positions.masked_fill(unused, 10_000),
        masked_labels=labels.masked_fill(unused, -100),
        masked_weights=weights,
    )


@dataclass
class Truth:
    losses: Tensor
    norms: Tensor
    gradients: list[dict[str, Tensor]]

    def clipped(self, bound: float, tau: float) -> dict[str, Tensor]:
        scales = [min(1.0, bound / ((1 + tau) * float(n))) if n > 0 else 1.0 for n in self.norms]
        return {
            name: sum(c * g[name] for c, g in zip(scales, self.gradients))
            for name in self.gradients[0]
        }


def unit_loss(model: nn.Module, batch: MaskedBatch, rows: list[int]) -> Tensor:
    """The definition, in loops: mean over rows of sum w CE / max(sum w, 1)."""
    total = torch.zeros(())
    for i in rows:
        inputs = {"input_ids": batch.input_ids[i : i + 1]}
        inputs["attention_mask"] = batch.attention_mask[i : i + 1]
        if batch.token_type_ids is not None:
            inputs["token_type_ids"] = batch.token_type_ids[i : i + 1]
        logits = model(**inputs).logits[0]
        row = torch.zeros(())
        for k, weight in enumerate(batch.masked_weights[i].tolist()):
            if weight:
                at = logits[batch.masked_positions[i, k]][None]
                row = row + weight * nn.functional.cross_entropy(
                    at, batch.masked_labels[i, k][None]
                )
        total = total + row / max(float(batch.masked_weights[i].sum()), 1.0)
    return total / max(len(rows), 1)


def micro_batch(model: nn.Module, batch: MaskedBatch) -> Truth:
    """Loss, norm (float64) and gradient of every unit, over the trainable parameters."""
    index = batch.unit_index if batch.unit_index is not None else torch.arange(len(batch))
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    losses, gradients = [], []
    for unit in range(int(index.max()) + 1):
        loss = unit_loss(model, batch, (index == unit).nonzero()[:, 0].tolist())
        losses.append(loss.detach())
        if loss.requires_grad:
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        else:
            found = [None] * len(named)
        gradients.append(
            {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found)}
        )
    norms = torch.stack([vector(g).norm() for g in gradients])
    return Truth(torch.stack(losses), norms, gradients)


def vector(gradient: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.detach().double().flatten() for g in gradient.values()])


def grads(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def assert_same(ours: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Relative error of the whole below `tolerance`, and no single parameter wrong beneath it."""
    assert ours.keys() == truth.keys()
    size = float(vector(truth).norm())
    assert float((vector(ours) - vector(truth)).norm()) <= tolerance * size
    for name in truth:
        error = float((ours[name] - truth[name]).norm())
        assert error <= 1e-4 * float(truth[name].norm()) + 1e-6 * size, name
