"""One rank of a small training, for test_training_ranks.py; run by torchrun.

    rank_driver.py FOLDER UNITS STEPS [STOP]

trains on UNITS documents in micro-batches of two, up to STEPS of six steps of a plan, and leaves
`sums.pt` (the clipped sums of every step, from the first rank) and `weights.pt` in FOLDER. The key
of the secret stream is fixed here, so that two runs can be compared.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM

import dpmlm
from dpmlm.artifacts import load_identity
from dpmlm.masking import Example, MaskingSpec, TokenTable
from dpmlm.privacy import PrivacyPlan
from dpmlm.training import Checkpoints, Interrupted, PublicText, Recipe, loop, train
from dpmlm.training.ranks import Ranks

VOCABULARY = 60


class Documents:
    def __init__(self, count):
        rng = np.random.default_rng(4)
        self.names = [f"u{index}" for index in range(count)]
        self._examples = [
            Example(name, rng.integers(5, VOCABULARY - 1, 3 + index % 12))
            for index, name in enumerate(self.names)
        ]

    def example(self, index, visit):
        return self._examples[index]


class Noted(PublicText):
    """Notes on disk what is charged."""

    def __init__(self, folder):
        self._folder = folder

    def charge(self, attempt, step):
        with (self._folder / "charges").open("a") as file:
            file.write(f"{step}\n")


def a_model(seed):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 16}
    return BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, **sizes))


def main(folder: Path, units: int, stop: int) -> None:
    ranks = Ranks.current()
    sums = []
    add_up = Ranks.add_up

    def watched(self, params):
        params = list(params)
        add_up(self, params)
        zero = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in params]
        sums.append(torch.cat([g.flatten() for g in zero]))
        if len(sums) == stop and self.first:
            os.kill(os.getpid(), 15)  # after this step, on one rank alone

    Ranks.add_up = watched
    loop.secrets.token_bytes = lambda count: b"k" * count
    plan = PrivacyPlan(
        epsilon=8.0, delta=1e-6, units=100, unit="document", expected_batch_size=20.0, steps=6,
        max_grad_norm=0.5, accountant="rdp", noise_multiplier=1.3, scope="source corpus",
    )  # fmt: skip
    special = np.zeros(VOCABULARY, dtype=bool)
    special[:5] = True
    plain = np.zeros(VOCABULARY, dtype=bool)
    recipe = Recipe(
        table=TokenTable(VOCABULARY, 4, 0, 2, 3, special, plain, plain),
        masking=MaskingSpec(strategy="token", ratio=0.2),
        window=16, stride=16, mask_seed=b"m" * 32, learning_rate=1e-2, warmup=0.1,
        weight_decay=0.01, physical_batch_size=2, checkpoint_minutes=1e9,
    )  # fmt: skip
    model = a_model(seed=ranks.rank)  # the ranks start apart and must agree
    identity = load_identity(folder / "trainer.key")
    checkpoints = Checkpoints(folder / "checkpoints", identity, [identity.recipient], plan.digest)
    status = 0
    try:
        train(model, Documents(units), plan, recipe, charges=Noted(folder), checkpoints=checkpoints)
    except Interrupted as interrupted:
        status = interrupted.code
    if ranks.first:
        torch.save(torch.stack(sums), folder / f"sums-{os.getpid()}.pt")
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.save(weights, folder / f"weights-{ranks.rank}.pt")
    (folder / f"status-{ranks.rank}").write_text(str(status))


if __name__ == "__main__":
    assert dpmlm
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
