"""What the parts of an audit cost that are not run by default, in processor seconds.

    python examples/quickstart/generate.py
    python benchmarks/audit_cost.py

The tiny model of the quickstart, untrained, with its vocabulary. Verbatim extraction: `--spans`
spans of its notes and as many twins, one a patient, cut from windows of `--window` tokens (the
notes of a patient in a row); cost grows with the spans. Exploratory groups: `--canaries` of each
family, on one model. Prints two tables; seeded, on one thread.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch

from audits.group_scores import score_groups
from audits.models import LoadedModel
from audits.planting.canaries import plan_canaries
from audits.planting.families import (
    TOKEN_FAMILIES,
    GroupRequest,
    TokenPools,
    draw_texts,
    draw_tokens,
    split_group,
)
from audits.planting.secret_random import SecretRandom
from audits.text.spans import DECODERS, Span, VerbatimCase, cells
from audits.text.verbatim import verbatim
from dpmlm.tokens.wordpiece import train_tokenizer
from dpmlm.training.model import new_model

NOTES = Path("examples/quickstart/data")
SPAN = 10
FAMILIES = ("rare_tokens", "random_words", "phone", "card", "email")


def _texts(path: Path, by: str | None) -> list[str]:
    """Texts of a file of notes; those of one patient in a row, where `by` names that field."""
    texts: dict[str, list[str]] = defaultdict(list)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        note = json.loads(line)
        texts[note[by] if by else str(number)].append(note["text"])
    return [" ".join(own) for own in texts.values()]


def subject_of(data: Path, window: int) -> LoadedModel:
    """The quickstart's model before training."""
    tokenizer = train_tokenizer(_texts(data / "public.jsonl", None), vocab_size=6000, unused=3000)
    return LoadedModel.of(new_model("tiny", tokenizer, window, seed=1), tokenizer)


def case_of(subject: LoadedModel, data: Path, window: int, spans: int) -> VerbatimCase:
    """Windows of the notes with a span in the middle of each."""
    texts = _texts(data / "notes.jsonl", "patient")
    encoded = subject.tokenizer(texts, add_special_tokens=False)["input_ids"]
    found: list[Span] = []
    for number, tokens in enumerate(encoded):
        row = tuple(tokens[: window - 2])
        if len(row) >= 3 * SPAN and len(found) < 2 * spans:
            start = (len(row) - SPAN) // 2
            ends = row[:start], row[start : start + SPAN], row[start + SPAN :]
            found.append(Span(*ends, unit=str(number), duplicates=0))
    return VerbatimCase(found[::2], found[1::2])


def seconds_of(call: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def print_grid(subject: LoadedModel, case: VerbatimCase) -> None:
    """The declared cell, the standard cells and the full ones of each decoder."""

    def cost(chosen: Sequence[object], grid: str) -> tuple[float, int]:
        told: list[dict] = []
        with patch("audits.text.verbatim.cells", lambda _: chosen):
            asked = replace(case, grid=grid)
            spent = seconds_of(lambda: told.append(verbatim(subject, subject, asked)))
        return spent, told[0]["grid"]["cells_run"]

    declared, _ = cost((), "standard")
    rows = {"declared": (declared, 1), "standard": cost(cells("standard"), "standard")}
    for decoder in DECODERS:
        own = tuple(cell for cell in cells("full") if cell.decoder == decoder)
        rows[f"full, {decoder}"] = cost(own, "full")
    print(f"verbatim extraction, {len(case.train)} spans, as many twins, the model as its rival")
    print("| cells | run | seconds |")
    print("| --- | ---: | ---: |")
    for name, (spent, run) in rows.items():
        own = spent if name == "declared" else spent - declared
        print(f"| {name} | {run} | {own:.1f} |", flush=True)


def print_groups(subject: LoadedModel, count: int) -> None:
    """One exploratory group of each family, under every score."""
    tokens, draw = range(5, 2900), SecretRandom(b"canaries of a benchmark")
    none = plan_canaries(count=0, token_ids=tokens, prefix_ids=tokens)
    pools = TokenPools(rare=tokens, common=tokens, words=tokens)
    print(f"exploratory groups of {count} canaries, one model, all scores")
    print("| family | seconds |")
    print("| --- | ---: |")
    for family in FAMILIES:
        asked = GroupRequest(family, count)
        if family in TOKEN_FAMILIES:
            group = draw_tokens(asked, 1, pools, subject.tokenizer, draw)
        else:
            group = split_group(draw_texts(asked, 1, draw), subject.tokenizer, room=60)
        planted = replace(none.without_labels(), groups=(group,))
        spent = seconds_of(lambda own=planted: score_groups(own, {"target": subject}, seed=b"s"))
        print(f"| {family} | {spent:.1f} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=NOTES)
    parser.add_argument("--window", type=int, default=96)
    parser.add_argument("--spans", type=int, default=300)
    parser.add_argument("--canaries", type=int, default=50)
    parser.add_argument("--part", choices=("all", "grid", "groups"), default="all")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    subject = subject_of(options.data, options.window)
    if options.part != "groups":
        print_grid(subject, case_of(subject, options.data, options.window, options.spans))
    if options.part != "grid":
        print_groups(subject, options.canaries)


if __name__ == "__main__":
    main()
