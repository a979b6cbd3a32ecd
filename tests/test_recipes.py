"""examples/recipes: pre-training on public text, the run file, and the table of what it keeps."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import WORDS

from dpmlm.cli.main import status_of
from dpmlm.config import load_config
from dpmlm.pipeline.accounts import open_ledger

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/recipes"


def module_of(path):
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def pretrain(folder, *more):
    """The command that the page gives, on a small corpus."""
    return subprocess.run(
        [
            sys.executable, EXAMPLE / "pretrain.py", "--corpus", folder / "public.jsonl",
            "--out", folder / "base", "--vocab-size", "700", "--window", "16", "--batch", "8",
            "--learning-rate", "3e-3", *more,
        ],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def round_of(start, count):
    """Five words that always follow each other."""
    return [WORDS[(start + place) % 5] for place in range(count)]


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    with (folder / "public.jsonl").open("w") as file:
        for number in range(60):
            file.write(json.dumps({"text": " ".join(round_of(number, 30))}) + "\n")
    return folder


@pytest.mark.full
def test_pre_training_writes_a_pair_of_model_and_tokenizer_that_has_learnt(public):
    from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

    said = pretrain(public, "--steps", "60")
    assert said.returncode == 0, said.stderr
    assert "60 steps of 8 rows of 16 tokens, from 60 public documents" in said.stdout
    tokenizer = AutoTokenizer.from_pretrained(public / "base")
    model = AutoModelForMaskedLM.from_pretrained(public / "base")
    assert model.config.vocab_size == len(tokenizer)
    assert sum(piece.startswith("[unused") for piece in tokenizer.get_vocab()) == 400
    ask = pipeline("fill-mask", model=model, tokenizer=tokenizer)
    for start in range(5):
        words = round_of(start, 9)
        asked = " ".join([*words[:4], tokenizer.mask_token, *words[5:]])
        guesses = {guess["token_str"] for guess in ask(asked, top_k=5)}
        assert guesses == set(WORDS[:5])  # of 300 pieces


@pytest.mark.full
def test_no_public_text_is_one_message(public):
    said = pretrain(public, "--corpus", public / "nothing")
    assert said.returncode == 2
    assert "Traceback" not in said.stderr
    assert "nothing" in said.stderr


@pytest.mark.full
def test_the_evaluation_is_of_two_runs_on_one_base(public, tmp_path):
    """evaluate.sh on made-up text in the place of each corpus."""
    assert pretrain(public, "--steps", "20", "--window", "64").returncode == 0
    data = tmp_path / "data"
    for folder in ("medquad", "public_prose", "movie_reviews", "ner"):
        (data / folder).mkdir(parents=True)
    answers = [
        {"id": f"a{n}", "text": f"{' '.join(round_of(n, 40))} answer {n}", "source": f"s{n % 2}"}
        for n in range(400)
    ]
    reviews = [{"text": " ".join(round_of(n, 20)), "label": "ab"[n % 2]} for n in range(40)]
    for place, rows in (("medquad", answers), ("movie_reviews", reviews)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (data / place / "train.jsonl").write_text(lines)
    (data / "public_prose/all.jsonl").write_bytes((public / "public.jsonl").read_bytes())
    sentence = "".join(f"{word} {'I-PER' if n % 3 else 'O'}\n" for n, word in enumerate(WORDS[:9]))
    (data / "ner/wikigold.conll").write_text(f"{sentence}\n" * 20)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, words in (("python", ""), ("dpmlm", " -m dpmlm.cli.main")):
        (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable}{words} "$@"\n')
        (tools / name).chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", EXAMPLE / "evaluate.sh", data, public / "base", tmp_path / "out"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = [
        json.loads((tmp_path / f"out/{name}.json").read_text()) for name in ("private", "free")
    ]
    evaluation = module_of(ROOT / "benchmarks/evaluation.py")
    assert [table.count("\n") > 2 for table in evaluation.tables(*found)] == [True] * 4


def test_the_run_file_starts_from_what_pre_training_wrote_beside_it(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "adapt.yaml").write_text((EXAMPLE / "adapt.yaml").read_text())
    asked = load_config(tmp_path / "adapt.yaml")
    assert asked.model.from_ == asked.tokens.vocabulary == str(tmp_path / "base")
    assert asked.tokens.window == 64  # of what pretrain.py makes by itself


def test_init_makes_the_ledger_that_the_run_file_names(tmp_path):
    (tmp_path / "adapt.yaml").write_text((EXAMPLE / "adapt.yaml").read_text())
    assert status_of(["init", str(tmp_path)]) == 0
    open_ledger(load_config(tmp_path / "adapt.yaml").ledger)  # refuses another cap than its own


def committed(utility, name="utility"):
    path = ROOT / f"benchmarks/results/{name}.json"
    return utility.Book(path, json.loads(path.read_text()))


def test_the_page_shows_the_committed_table():
    utility = module_of(ROOT / "benchmarks/utility.py")
    page = (ROOT / "docs/results.md").read_text()
    assert utility.table(committed(utility)) in page
    table = utility.ablation(committed(utility, "ablation"))
    assert table in page
    assert len(table.splitlines()) == 2 + len(utility.ABLATION) + len(utility.WITHOUT)


def test_the_run_file_has_the_settings_that_were_chosen(tmp_path):
    utility = module_of(ROOT / "benchmarks/utility.py")
    chosen = utility.Settings(**committed(utility).chosen("medquad", "recipe", 8.0))
    asked = load_config(EXAMPLE / "adapt.yaml")
    training = asked.training
    assert chosen == utility.Settings(
        learning_rate=training.learning_rate, steps=training.steps,
        batch=training.expected_batch_size, views=training.windows_per_draw,
        ratio=asked.masking.ratio, max_grad_norm=asked.privacy.max_grad_norm,
        scale=training.scale.power, train=asked.model.train, average=training.average,
        schedule=training.schedule, weight_decay=training.weight_decay,
    )  # fmt: skip
    assert (asked.privacy.epsilon, asked.privacy.delta) == (8.0, utility.DELTA)


def test_the_page_shows_the_committed_evaluation():
    evaluation = module_of(ROOT / "benchmarks/evaluation.py")
    page = (ROOT / "docs/results.md").read_text()
    private, free = (
        json.loads((ROOT / f"benchmarks/results/evaluation-{name}.json").read_text())
        for name in ("private", "free")
    )
    for table in evaluation.tables(private, free):
        assert table in page
    # Of one base model, on the same held-out text.
    assert private["figures"]["held_out"]["before"] == free["figures"]["held_out"]["before"]
    assert (private["probes_label"], free["probes_label"]) == ("dp", "private")


def trained(utility, arm, epsilon, seed, dev, test, rate=1e-3):
    settings = dict(vars(utility.PLAIN)) | {"learning_rate": rate}
    return utility.Trained(
        "posts", arm, epsilon, seed, settings, 0.5, 9, dev, test, 5.0, 1.0, "CPU"
    )


def test_the_table_is_of_settings_chosen_on_the_other_part(tmp_path):
    """Means over seeds of the candidate that was best on `dev`, whatever it did on `test`."""
    utility = module_of(ROOT / "benchmarks/utility.py")
    facts = {"schema": utility.SCHEMA, "base": "sha256:0", "settings": {}}
    book = utility.Book(tmp_path / "u.json", facts)
    book.add(posts={"dev": 0.10, "test": 0.10})
    book.add(
        trained(utility, "non-private", None, 0, dev=0.29, test=0.30),
        trained(utility, "non-private", None, 0, dev=0.20, test=0.90, rate=3e-3),
        trained(utility, "plain", 8.0, 0, dev=0.15, test=0.16),
        trained(utility, "recipe", 8.0, 0, dev=0.25, test=0.24),
        trained(utility, "recipe", 8.0, 1, dev=0.26, test=0.28),
        trained(utility, "recipe", 8.0, 0, dev=0.21, test=0.80, rate=3e-3),
    )
    table = utility.table(book)
    assert "| posts | public | - | - | - | 0.1000 |" in table
    assert (
        "| posts | non-private | - | 400, 256, 102400 | - | 0.3000 | 0.3000 to 0.3000 (1) | 100% |"
        in table
    )
    assert "| 0.2600 | 0.2400 to 0.2800 (2) | 80% | 80% | +10.00 (to reach: 3) |" in table
    other = utility.Book(tmp_path / "u.json", facts)
    other.add(trained(utility, "plain", 8.0, 1, dev=0.15, test=0.20))
    book.add(trained(utility, "plain", 8.0, 2, dev=0.15, test=0.24))  # knows nothing of the other
    assert len(utility.Book(tmp_path / "u.json", facts).trained) == 8
    table = utility.table(book)
    assert "| 80% | +6.00 (to reach: 3) |" in table
    again = utility.Book(tmp_path / "u.json", facts)
    assert utility.table(again) == table
    with pytest.raises(SystemExit, match="another base"):
        utility.Book(tmp_path / "u.json", facts | {"base": "sha256:1"})


def test_no_owner_of_a_document_is_in_two_parts():
    utility = module_of(ROOT / "benchmarks/utility.py")
    parts = [utility.part_of(f"person {n}") for n in range(4000)]
    shares = {part: parts.count(part) / len(parts) for part in ("train", "dev", "test")}
    assert abs(shares["test"] - 0.10) < 0.02
    assert abs(shares["dev"] - 0.05) < 0.02
    assert parts == [utility.part_of(f"person {n}") for n in range(4000)]
