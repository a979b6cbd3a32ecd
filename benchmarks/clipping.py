"""What clipping costs: a plain Hugging Face step, `clip_and_sum`, and Opacus ghost clipping.

    python benchmarks/clipping.py [--repeats 7] [--out clipping.json] [--shapes 256,4,16 ...]

All in one process and one thread, on the same batch, taking turns so that a busy machine slows all
of them. Times are of one forward and backward pass, with clipping where there is any, without the
optimizer's step: medians of CPU seconds (the wall time of an idle core) and of wall seconds.

Opacus 1.6 cannot run a BERT as it comes. Its column is of a repaired model: decoder not tied to the
embedding, the head's unused raw bias frozen, positions and token types given a row each.
"""

import argparse
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import opacus
import torch
import transformers
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from dpmlm.clipping import clip_and_sum
from dpmlm.masking import MaskedBatch

VOCABULARY, WINDOW, SLOTS = 30_522, 128, 19  # 15 % of 128
SHAPES = ("256,4,16", "128,2,32", "512,4,8")
BOUND = 1.0


def build(hidden: int, layers: int, tied: bool) -> BertForMaskedLM:
    """A random BERT without dropout, so that all columns do the same work."""
    torch.manual_seed(0)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=max(2, hidden // 64),
            intermediate_size=4 * hidden,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            tie_word_embeddings=tied,
        )
    )


def make_batch(rows: int) -> MaskedBatch:
    """Random ids, every slot used, no padding."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, VOCABULARY, (rows, WINDOW), generator=generator)
    return MaskedBatch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        masked_positions=torch.rand(rows, WINDOW, generator=generator).argsort(1)[:, :SLOTS],
        masked_labels=torch.randint(5, VOCABULARY, (rows, SLOTS), generator=generator),
        masked_weights=torch.ones(rows, SLOTS),
    )


def all_labels(batch: MaskedBatch) -> Tensor:
    """int64 [B, T]: labels at the masked positions, -100 elsewhere, as Hugging Face takes them."""
    empty = torch.full_like(batch.input_ids, -100)
    return empty.scatter(1, batch.masked_positions, batch.masked_labels)


def plain_step(model: nn.Module, batch: MaskedBatch) -> Callable[[], object]:
    """The non-private step as transformers ships it: full head, mean over masked tokens."""
    labels = all_labels(batch)

    def step() -> None:
        model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels
        ).loss.backward()

    return step


def ghost_step(model: BertForMaskedLM, batch: MaskedBatch) -> Callable[[], object]:
    """Opacus ghost clipping on an untied model: two backward passes, the full head."""
    model.cls.predictions.bias.requires_grad_(False)
    wrapped = GradSampleModuleFastGradientClipping(
        model, max_grad_norm=BOUND, use_ghost_clipping=True, loss_reduction="sum", strict=False
    )
    labels = all_labels(batch)
    positions = torch.arange(WINDOW).repeat(len(batch), 1)
    types = torch.zeros_like(batch.input_ids)

    def step() -> None:
        logits = wrapped(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=positions,
            token_type_ids=types,
        ).logits
        losses = nn.functional.cross_entropy(logits.mT, labels, reduction="none").sum(1) / SLOTS
        losses.sum().backward(retain_graph=True)
        coefficients = wrapped.get_clipping_coef()
        wrapped.zero_grad(set_to_none=True)
        wrapped.disable_hooks()
        (coefficients * losses).sum().backward()
        wrapped.enable_hooks()

    return step


def measure(shape: tuple[int, int, int], repeats: int) -> dict[str, object]:
    """Medians and ratios of one (hidden, layers, batch)."""
    hidden, layers, rows = shape
    batch = make_batch(rows)
    tied, untied = build(hidden, layers, True), build(hidden, layers, False)
    steps: dict[str, tuple[nn.Module, Callable[[], object]]] = {
        "plain": (tied, plain_step(tied, batch)),
        "dpmlm": (tied, lambda: clip_and_sum(tied, batch, BOUND)),
        "opacus_ghost": (untied, ghost_step(untied, batch)),
    }
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    wall: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, (model, step) in steps.items():
            model.zero_grad(set_to_none=True)
            begun_cpu, begun_wall = time.process_time(), time.perf_counter()
            step()
            if turn:  # the first is a warm-up
                cpu[name].append(time.process_time() - begun_cpu)
                wall[name].append(time.perf_counter() - begun_wall)
    medians = {name: statistics.median(times) for name, times in cpu.items()}
    return {
        "hidden": hidden,
        "layers": layers,
        "batch": rows,
        "cpu_seconds": medians,
        "wall_seconds": {name: statistics.median(times) for name, times in wall.items()},
        "ratio_to_plain": {name: t / medians["plain"] for name, t in medians.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=7, help="timed turns after one warm-up")
    parser.add_argument("--out", type=Path, default=Path("clipping.json"), help="JSON file")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="hidden,layers,batch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    rows = []
    print("hidden layers batch | plain [s]  dpmlm  opacus ghost (ratios to plain, CPU time)")
    for text in options.shapes:
        hidden, layers, batch = map(int, text.split(","))
        row = measure((hidden, layers, batch), options.repeats)
        rows.append(row)
        ratio, seconds = row["ratio_to_plain"], row["cpu_seconds"]
        assert isinstance(ratio, dict)
        assert isinstance(seconds, dict)
        print(
            f"{hidden:6d} {layers:6d} {batch:5d} | {seconds['plain']:9.2f}  "
            f"{ratio['dpmlm']:5.2f}  {ratio['opacus_ghost']:12.2f}",
            flush=True,
        )
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "opacus": opacus.__version__,
    }
    report = {
        "vocabulary": VOCABULARY,
        "window": WINDOW,
        "slots": SLOTS,
        "repeats": options.repeats,
    }
    options.out.write_text(
        json.dumps(report | {"versions": versions, "rows": rows}, indent=2) + "\n"
    )
    print(f"written {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
