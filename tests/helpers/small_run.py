"""A run small enough for a test and complete: real text in, verdict and bundle out."""

import json
import random
from importlib import resources
from pathlib import Path

import yaml

from dpmlm.artifacts import save_secret_key
from dpmlm.pipeline.start import initialise

KNOWN_SENTENCE = "The quarrelsome heron waded past the flooded orchard before sunrise"
"""Stands in every private document of one person; searched for on disk after a run."""

WORDS = (
    "river stone market lantern winter garden window letter harbour kitchen village engine "
    "morning shadow ladder forest mirror blanket pocket thunder saddle candle orchard bridge"
).split()

PASSING = {
    "scrub__gold": "marked.jsonl",
    "ledger__cap": {"epsilon": 16, "delta": 1e-4},
    "tokens__train": {"corpus": "public.jsonl", "size": 3000, "unused": 2800},
    "privacy__delta": 1e-5,
    "training__steps": 80,
    "training__expected_batch_size": 16,
    "training__learning_rate": 5e-3,
    "training__checkpoint_minutes": 30,
    "release__policy": "few-canaries.yaml",
}
"""Changes to the run file under which the control memorises and the run passes the gate."""


def sentences(rng: random.Random, count: int) -> str:
    """Plain sentences over a small vocabulary."""
    return " ".join(
        f"The {rng.choice(WORDS)} near the {rng.choice(WORDS)} was {rng.choice(WORDS)} again."
        for _ in range(count)
    )


def write_corpus(folder: Path, persons: int = 40) -> None:
    """Private documents with persons, identifiers and near-duplicates, public ones, and the
    internal policy with room for a small run's few canaries."""
    rng = random.Random(5)
    rows = []
    for person in range(persons):
        for note in range(2):
            text = sentences(rng, rng.randint(4, 8)) + f" Call (212) 555-{person:04d} for more."
            if person == 3:
                text += f" {KNOWN_SENTENCE} {note}."
            rows.append({"id": f"d{person}-{note}", "text": text, "author": f"person {person}"})
    rows.append({"id": "copy", "text": rows[10]["text"] + " Once more.", "author": "person 99"})
    rows.append({"id": "empty", "text": "  ", "author": "person 98"})
    (folder / "private.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_gold(folder, rows[:12])
    shipped = (resources.files("policies") / "release" / "internal.yaml").read_text()
    assert "min: 100" in shipped
    ours = shipped.replace("min: 100", "min: 4").replace("internal/v1", "few-canaries/v1")
    (folder / "few-canaries.yaml").write_text(ours)
    public = [{"text": sentences(rng, 6)} for _ in range(60)]
    (folder / "public.jsonl").write_text("".join(json.dumps(row) + "\n" for row in public))


def write_gold(folder: Path, rows: list[dict[str, str]], **more) -> None:
    """Marks of a person on these rows: the phone number, and one word that no software finds."""
    marked = []
    for row in rows:
        number = row["text"].partition("Call ")[2].partition(" for more")[0]
        spans = [{"text": number, "type": "PHONE", "identifier": "DIRECT"}]
        start = row["text"].index("near the ") + len("near the ")
        end = row["text"].index(" ", start)
        spans.append({"start": start, "end": end, "type": "PLACE", "identifier": "QUASI"})
        marked.append({"id": row["id"], "prefilled": False, "text": row["text"], "spans": spans})
        marked[-1] |= more
    (folder / "marked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marked))


def write_run_file(folder: Path, **changes) -> Path:
    """The run file of the small run; `changes` are fields with `__` for the dots."""
    tree = {
        "name": "small",
        "workspace": "work",
        "seed": 3,
        "keys": {
            "identity": "keys/trainer.key",
            "signing": "keys/sign.key",
            "scrub": "keys/pseudonym.key",
        },
        "ledger": {"path": "ledger.jsonl", "cap": {"epsilon": 16, "delta": 1e-3}},
        "corpus": {"path": "private.jsonl", "id": "id", "person": "author"},
        "split": {"validation": 0.2},
        "scrub": {"processes": 1},
        "tokens": {
            "train": {"corpus": "public.jsonl", "size": 600, "unused": 400},
            "window": 48,
            "stride": 16,
        },
        "model": {"size": "tiny"},
        "privacy": {"unit": "person", "epsilon": 8, "delta": 1e-3, "units": 100},
        "training": {"steps": 6, "expected_batch_size": 8, "checkpoint_minutes": 0},
        "audit": {"canaries": 40, "control": {"corpus": "public.jsonl"}, "verbatim_spans": 5},
        "telemetry": {"file": "telemetry.jsonl"},
        "release": {
            "recipients": ["keys/consumer.pub"],
            "auditors": ["keys/auditor.pub"],
            "log": "releases.log",
        },
    }
    for dotted, value in changes.items():
        *sections, leaf = dotted.split("__")
        below = tree
        for section in sections:
            below = below[section]
        below[leaf] = value
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def draw_keys(folder: Path) -> None:
    """Draw keys and register the ledger, but with the same secret in every run of the tests: who is
    held out, who is masked where and whose dates move how far are no matter of luck then."""
    secret = folder / "keys/pseudonym.key"
    drawn_here = not secret.exists()
    initialise(folder)
    if drawn_here:
        secret.unlink()
        save_secret_key(secret, bytes(range(32)))
