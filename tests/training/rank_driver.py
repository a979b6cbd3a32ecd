"""Ranks of small trainings, for test_training_ranks.py.

    rank_driver.py            reads jobs from standard input, a line of JSON each, starts the ranks
                              of a job as copies of itself and answers with their exit statuses
    rank_driver.py JOB        is one rank, started by torchrun

A job trains on `units` documents in micro-batches of two for six steps of a plan and leaves in
`folder` the clipped sums of every step (`sums-*`, of the first rank), the steps that were charged,
and of every rank the steps it drew, its weights, its transcript of so many `gradients` canaries and
what it printed. It may `stop` after so many steps by a signal to the first rank, `fail` at a step's
charge, or give the ranks checkpoints that are `apart`. `losses` are those of public text after each
step, and the weights that were looked at are left in `look-*`; one that is "stop" is cut off by a
signal to the first rank. The key of the secret stream is fixed here, so that two runs can be
compared.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM

from dpmlm.artifacts import load_identity
from dpmlm.errors import UserError
from dpmlm.masking import Example, MaskingSpec, TokenTable
from dpmlm.privacy import PrivacyPlan
from dpmlm.training import Checkpoints, GradientCanaries, PublicText, Recipe, loop, train
from dpmlm.training.best import PublicLoss
from dpmlm.training.ranks import Ranks
from dpmlm.training.units import View

VOCABULARY = 60


class Documents:
    def __init__(self, count):
        rng = np.random.default_rng(4)
        self.names = [f"u{index}" for index in range(count)]
        self._examples = [
            Example(name, rng.integers(5, VOCABULARY - 1, 3 + index % 12))
            for index, name in enumerate(self.names)
        ]

    def views(self, index, step, count):
        return [View(self._examples[index], step * count + row) for row in range(count)]


class Noted(PublicText):
    """Notes on disk what is charged; refuses one step, if told so."""

    def __init__(self, folder, fail):
        self._folder, self._fail = folder, fail

    def charge(self, attempt, step):
        if step == self._fail:
            time.sleep(1)  # the others would be far on, did they not wait
            raise UserError(f"step {step}", "its charge is refused", "nothing")
        with (self._folder / "charges").open("a") as file:
            file.write(f"{step}\n")


class Looks:
    """Losses as they are told; the weights that were looked at, on disk."""

    def __init__(self, folder, losses):
        self._folder, self._losses = folder, iter(losses)

    def __call__(self, model, asked_to_stop):
        seen = torch.cat([p.detach().flatten() for p in model.parameters()])
        torch.save(seen, self._folder / f"look-{time.time_ns()}.pt")
        loss = next(self._losses)
        if loss != "stop":
            return loss
        os.kill(os.getpid(), 15)
        return None if asked_to_stop() else 0.0


def a_model(seed):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 16}
    return BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, **sizes))


def main(job: dict) -> None:
    folder = Path(job["folder"])
    ranks = Ranks.current()
    sums = []
    add_up, draw = Ranks.add_up, loop.PoissonSampler.draw

    def watched(self, params):
        params = list(params)
        add_up(self, params)
        zero = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in params]
        sums.append(torch.cat([g.flatten() for g in zero]))
        if len(sums) == job.get("stop") and self.first:
            os.kill(os.getpid(), 15)  # after this step, on one rank alone

    def noted(self, step):
        with (folder / f"drawn-{ranks.rank}").open("a") as file:
            file.write(f"{step}\n")
        return draw(self, step)

    Ranks.add_up, loop.PoissonSampler.draw = watched, noted
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
        **job.get("recipe", {}),
    )  # fmt: skip
    model = a_model(seed=ranks.rank)  # the ranks start apart and must agree
    identity = load_identity(folder / "trainer.key")
    place = folder / ("elsewhere" if job.get("apart") and not ranks.first else "checkpoints")
    checkpoints = Checkpoints(place, identity, [identity.recipient], plan.digest)
    charges = Noted(folder, job.get("fail"))
    count = job.get("gradients", 0)
    losses = job.get("losses")
    public = None if losses is None else PublicLoss(Looks(folder, losses), 1, job.get("patience"))
    gradients = GradientCanaries(count, tuple(range(0, count, 2)), b"s" * 32)
    try:
        progress = train(
            model, Documents(job["units"]), plan, recipe, charges=charges, checkpoints=checkpoints,
            gradients=gradients, public=public,
        )  # fmt: skip
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    finally:
        if ranks.first and sums:
            torch.save(torch.stack(sums), folder / f"sums-{os.getpid()}.pt")
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.save(weights, folder / f"weights-{ranks.rank}.pt")
    if progress.transcript is not None:
        np.save(folder / f"transcript-{ranks.rank}.npy", progress.transcript)


def serve() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        processes = []
        for rank in range(job["ranks"]):
            process = os.fork()
            if process == 0:
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(job["ranks"])}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                printed = os.open(f"{job['folder']}/printed-{rank}", os.O_CREAT | os.O_WRONLY)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(printed, 1)
                os.dup2(printed, 2)
                return main(job)
            processes.append(process)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in processes]
        print(json.dumps(statuses), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1])) if len(sys.argv) > 1 else serve()
