"""What private adaptation keeps of what adaptation brings: masked tokens guessed first, held out.

    python examples/recipes/pretrain.py --corpus $DPMLM_DATA/public_prose \\
        --corpus $DPMLM_DATA/movie_reviews/train.jsonl --out base
    python benchmarks/utility.py --data $DPMLM_DATA --base base \\
        --out benchmarks/results/utility.json
    python benchmarks/utility.py --data $DPMLM_DATA --base base --ablate \\
        --out benchmarks/results/ablation.json

One base model of public text is adapted to MedQuAD, a document a unit, and to the newsgroup posts,
an author a unit: without privacy, with the settings that people take over from training without
privacy (`plain`), and with the recipe of docs/recipes.md. No training sees more than `ROWS` rows.
The settings of each arm are chosen on a development part among its candidates, of which there are
as many for each arm; the figures are of a test part that nothing was chosen by. Both are apart by
focus or author, so that no subject and no person is on two sides. Killed, the same command goes on
after the last finished training; started several times, the copies share the work. The corpora are
public, so that the figures may be shown; nothing is charged.

With --ablate: MedQuAD at epsilon 8 and a small budget of rows, which two cores can carry; each
training differs from the first in one setting.
"""

import argparse
import hashlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerFast

from dpmlm.artifacts import new_identity
from dpmlm.artifacts.atomic import atomic_write
from dpmlm.artifacts.models import no_progress_bar
from dpmlm.corpus import Document, read_corpus
from dpmlm.evaluation import EvaluationSpec, measure
from dpmlm.masking import Example, MaskingSpec, TokenTable, counter_rng
from dpmlm.privacy import PrivacyPlan, make_plan
from dpmlm.tokens import Encoder, load_tokenizer
from dpmlm.training import (
    Checkpoints,
    PublicText,
    Recipe,
    merged,
    public_scales,
    restrict,
    train,
)
from dpmlm.training.units import View

SCHEMA = "dpmlm.utility/1"
WINDOW, DELTA, ROWS = 64, 1e-5, 1_638_400
"""Tokens a row; delta; rows that a training sees at most."""
UNITS = {"medquad": 8_500, "posts": 5_500}
"""Declared bounds of the plans."""
OWNER = {"medquad": "focus", "posts": "author"}
"""Field that no two parts of a corpus share a value of."""
FILE = {"medquad": "medquad/train.jsonl", "posts": "newsgroups/train.jsonl"}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PUBLIC = ("public_prose", "movie_reviews/train.jsonl")
EPSILONS = (8.0, 2.0)
TARGET = {8.0: 0.80, 2.0: 0.55}
"""Share of the gain to keep, by epsilon."""
MARGIN = 3.0
"""Points of top-1 above `plain` to reach."""


@dataclass(frozen=True)
class Settings:
    """Of one training, beside the corpus, the budget and the seed."""

    learning_rate: float
    steps: int
    batch: int
    """Expected units a step."""
    views: int = 1
    """Rows a drawn unit contributes, clipped as one."""
    ratio: float = 0.15
    max_grad_norm: float = 1.0
    scale: float | None = None
    """Power by which gradients are scaled from public text before they are clipped."""
    train: str = "all"
    average: float | None = None
    schedule: str = "linear"
    weight_decay: float = 0.01

    @property
    def rows(self) -> int:
        return self.steps * self.batch * self.views


PLAIN = Settings(learning_rate=1e-3, steps=400, batch=256)
"""Batch, masking and clipping as without privacy: what a first run with Opacus looks like."""
RECIPE = Settings(
    learning_rate=4e-3, steps=200, batch=1024, views=8, ratio=0.4, max_grad_norm=0.3, scale=0.25,
    average=0.9,
)  # fmt: skip
CANDIDATES = {
    "non-private": [replace(PLAIN, steps=3200), replace(PLAIN, learning_rate=3e-3)],
    "plain": [PLAIN, replace(PLAIN, learning_rate=3e-3)],
    "recipe": [RECIPE, replace(RECIPE, steps=100, batch=2048)],
}
"""By arm: what is tried with the first seed; the best on the development part is the arm's."""


SMALL = replace(RECIPE, steps=50, batch=512, views=2)
ABLATION = {
    "as it is": SMALL,
    "no `training.scale`": replace(SMALL, scale=None),
    "one row a unit, twice the steps": replace(SMALL, views=1, steps=100),
    "half the batch, twice the steps": replace(SMALL, batch=256, steps=100),
    "`masking.ratio` 0.15": replace(SMALL, ratio=0.15),
    "`privacy.max_grad_norm` 1": replace(SMALL, max_grad_norm=1.0),
    "`training.average` null": replace(SMALL, average=None),
    "`model.train` no_embeddings": replace(SMALL, train="no_embeddings"),
    "`model.train` lora": replace(SMALL, train="lora"),
    "`model.train` lora, no `training.scale`": replace(SMALL, train="lora", scale=None),
}
"""What differs from `SMALL`, all of as many rows."""
WITHOUT = {"clipped": "no noise", "non-private": "no noise and no clipping"}
"""Arms that say what of the gap is noise, what clipping, and what the recipe itself."""


@dataclass(frozen=True)
class Trained:
    """One training and what it brought."""

    corpus: str
    arm: str
    epsilon: float | None
    """None without privacy."""
    seed: int
    settings: dict[str, Any]
    noise_multiplier: float
    trainable: int
    """Numbers that moved."""
    dev: float
    """Share of masked tokens guessed first."""
    test: float
    test_loss: float
    seconds: float
    device: str

    @property
    def cell(self) -> str:
        return cell_of(self.corpus, self.arm, self.epsilon, self.seed, self.settings)


def cell_of(corpus: str, arm: str, epsilon: float | None, seed: int, settings: Any) -> str:
    """Name of one training."""
    return json.dumps([corpus, arm, epsilon, seed, settings], sort_keys=True)


class Parts:
    """A corpus as tokens: units to train on, two parts to measure on, and public text."""

    def __init__(self, corpus: str, data: Path, tokenizer: PreTrainedTokenizerFast) -> None:
        self.corpus, self.table = corpus, TokenTable.of(tokenizer)
        self.public = public_views(data, tokenizer)
        owner = OWNER[corpus]
        documents = [
            item
            for item in read_corpus(data / FILE[corpus], person=owner)
            if isinstance(item, Document)
        ]
        ids = Encoder(tokenizer).encode([document.text for document in documents])
        self.held_out: dict[str, list[Example]] = {"dev": [], "test": []}
        units: dict[str, list[Example]] = {}
        for document, tokens in zip(documents, ids, strict=True):
            example = Example(document.id, tokens)
            part = part_of(document.person or document.id)
            if part != "train":
                self.held_out[part].append(example)
            elif len(tokens):
                name = document.id if corpus == "medquad" else document.person or document.id
                units.setdefault(name, []).append(example)
        self.names = sorted(units)
        self._units = [units[name] for name in self.names]

    def views(self, index: int, step: int, count: int) -> Sequence[View]:
        """As `dpmlm.training.CorpusUnits` draws them from a sealed store."""
        texts = self._units[index]
        order = counter_rng(SEED, "document", self.names[index], step).permutation(len(texts))
        chosen = [texts[int(place)] for place in order[:count]]
        return [
            View(chosen[row % len(chosen)], step * count + row // len(chosen))
            for row in range(count)
        ]

    def top1(self, model: Any, part: str) -> tuple[float, float]:
        """(share of masked tokens guessed first, loss in nats)."""
        spec = EvaluationSpec(window=WINDOW, masking=MaskingSpec(strategy="token"))
        found = measure(model, self.held_out[part], spec, table=self.table).figures
        assert found is not None
        return found.top1, found.loss


def public_views(data: Path, tokenizer: PreTrainedTokenizerFast) -> list[View]:
    """A window of each of 1,000 documents of what the base model was made of."""
    texts = [
        item.text
        for name in PUBLIC
        for item in read_corpus(data / name)
        if isinstance(item, Document)
    ]
    order = counter_rng(SEED, "public").permutation(len(texts))[:1000]
    ids = Encoder(tokenizer).encode([texts[int(place)] for place in order])
    return [View(Example(str(number), one), 0) for number, one in enumerate(ids)]


SEED = b"utility".ljust(32, b"\0")


def part_of(owner: str) -> str:
    """train, dev (5 %) or test (10 %), by a hash of who or what a document is of."""
    share = int(hashlib.sha256(owner.encode()).hexdigest()[:8], 16) / 2**32
    return "test" if share < 0.10 else "dev" if share < 0.15 else "train"


def plan_of(parts: Parts, settings: Settings, arm: str, epsilon: float | None) -> PrivacyPlan:
    """The budget's plan; without one a plan without noise, that clips in arm `clipped` alone."""
    free = epsilon is None
    bound = math.inf if free and arm != "clipped" else settings.max_grad_norm
    return make_plan(
        epsilon=math.inf if free else epsilon, delta=DELTA, units=UNITS[parts.corpus],
        unit="document" if parts.corpus == "medquad" else "person",
        expected_batch_size=settings.batch, steps=settings.steps,
        max_grad_norm=bound, scope="source corpus",
    )  # fmt: skip


def train_one(
    parts: Parts, base: Path, arm: str, epsilon: float | None, seed: int, settings: Settings
) -> Trained:
    """Adapt the base model and measure it on both parts."""
    plan = plan_of(parts, settings, arm, epsilon)
    model = restrict(loaded(base), settings.train, seed=seed)
    numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
    recipe = Recipe(
        table=parts.table, masking=MaskingSpec(strategy="token", ratio=settings.ratio),
        window=WINDOW, stride=WINDOW, mask_seed=hashlib.sha256(f"masks {seed}".encode()).digest(),
        learning_rate=settings.learning_rate, warmup=0.1, weight_decay=settings.weight_decay,
        schedule=settings.schedule, average=settings.average, windows_per_draw=settings.views,
        physical_batch_size=512 if DEVICE == "cuda" else 128, checkpoint_minutes=600,
    )  # fmt: skip
    if settings.scale is not None:
        recipe = replace(recipe, scales=public_scales(model, parts.public, recipe, settings.scale))
    begun, key = time.perf_counter(), new_identity()
    with tempfile.TemporaryDirectory() as folder:
        places = Checkpoints(Path(folder), key, [key.recipient], plan.digest)
        train(model, parts, plan, recipe, charges=PublicText(), checkpoints=places)
    seconds = time.perf_counter() - begun
    model = merged(model)
    (dev, _), (test, loss) = parts.top1(model, "dev"), parts.top1(model, "test")
    return Trained(
        parts.corpus, arm, epsilon, seed, asdict(settings), plan.noise_multiplier, numbers, dev,
        test, loss, seconds, device_name(),
    )  # fmt: skip


def loaded(base: Path) -> Any:
    """The base model, where it is trained."""
    with no_progress_bar():
        return AutoModelForMaskedLM.from_pretrained(base).to(DEVICE)


def device_name() -> str:
    return torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"


class Book:
    """The figures so far: a file that is whole after every training, for several writers."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        """Refuses to go on with figures of another base model or of other constants."""
        self._path, self._facts = path, facts
        self.public: dict[str, dict[str, float]] = {}
        self.trained: list[Trained] = []
        self.read()

    def read(self) -> None:
        """What others have added."""
        if not self._path.is_file():
            return
        kept = json.loads(self._path.read_text())
        for name in ("schema", "base", "settings"):
            if kept[name] != self._facts[name]:
                raise SystemExit(f"{self._path} has another {name}: move it away to begin anew")
        self.public = kept["public"]
        self.trained = [Trained(**one) for one in kept["trained"]]

    def add(self, *found: Trained, **public: dict[str, float]) -> None:
        """Enters figures beside those of others."""
        with FileLock(f"{self._path}.lock"):
            self.read()
            self.public |= public
            self.trained += found
            facts = self._facts | {
                "date": time.strftime("%Y-%m-%d", time.gmtime()),
                "public": self.public,
                "trained": [asdict(one) for one in self.trained],
            }
            with atomic_write(self._path) as file:
                file.write(json.dumps(facts, indent=1).encode() + b"\n")

    def lock(self, name: str) -> FileLock:
        """Held by whoever trains `name`; gone with its process."""
        folder = self._path.with_name(f"{self._path.name}.locks")
        folder.mkdir(exist_ok=True)
        return FileLock(folder / hashlib.sha256(name.encode()).hexdigest()[:16])

    def chosen(self, corpus: str, arm: str, epsilon: float | None) -> dict[str, Any] | None:
        """Settings of the best first-seed training on the development part."""
        tried = [one for one in self._of(corpus, arm, epsilon) if one.seed == 0]
        return max(tried, key=lambda one: one.dev).settings if tried else None

    def tests(self, corpus: str, arm: str, epsilon: float | None) -> list[float]:
        """Shares on the test part, one a seed, of the arm's chosen settings."""
        best = self.chosen(corpus, arm, epsilon)
        return [one.test for one in self._of(corpus, arm, epsilon) if one.settings == best]

    def _of(self, *key: Any) -> Iterator[Trained]:
        return (one for one in self.trained if (one.corpus, one.arm, one.epsilon) == key)


def arms() -> list[tuple[str, float | None]]:
    """(arm, epsilon) in the order of the table."""
    private = [(arm, epsilon) for epsilon in EPSILONS for arm in ("plain", "recipe")]
    return [("non-private", None), *private]


@dataclass(frozen=True)
class Cell:
    """A training to be done."""

    parts: Parts
    arm: str
    epsilon: float | None
    seed: int
    settings: Settings

    @property
    def name(self) -> str:
        return cell_of(self.parts.corpus, self.arm, self.epsilon, self.seed, asdict(self.settings))


def fill(book: Book, corpora: Sequence[Parts], base: Path, seeds: int) -> None:
    """Train what is missing: an arm's candidates with the first seed, then the chosen with more."""
    for parts in corpora:
        if parts.corpus not in book.public:
            model = loaded(base)
            found = {part: parts.top1(model, part)[0] for part in parts.held_out}
            book.add(**{parts.corpus: found})
    tried = [
        Cell(parts, *arm, 0, CANDIDATES[arm[0]][number])
        for number in range(len(CANDIDATES["recipe"]))
        for parts in corpora
        for arm in arms()
    ]
    _work(book, base, tried)
    chosen = [
        Cell(parts, *arm, seed, Settings(**(book.chosen(parts.corpus, *arm) or {})))
        for seed in range(1, seeds)
        for parts in corpora
        for arm in arms()
    ]
    _work(book, base, chosen)


def _work(book: Book, base: Path, cells: Sequence[Cell]) -> None:
    """Trains what nobody else trains, then waits for the others."""
    for patience in (0, -1):
        for cell in cells:
            try:
                with book.lock(cell.name).acquire(timeout=patience):
                    book.read()
                    if all(one.cell != cell.name for one in book.trained):
                        _train(book, base, cell)
            except Timeout:
                continue


def _train(book: Book, base: Path, cell: Cell) -> None:
    one = train_one(cell.parts, base, cell.arm, cell.epsilon, cell.seed, cell.settings)
    book.add(one)
    budget = "" if cell.epsilon is None else f", epsilon {cell.epsilon:g}"
    print(f"{one.corpus}, {cell.arm}{budget}, seed {cell.seed}: dev {one.dev:.4f}, "
          f"{one.seconds:.0f} s, {cell.settings}", flush=True)  # fmt: skip


def table(book: Book) -> str:
    """Means over seeds; the range has their number; the share of the gain is of the means."""
    rows = [
        "| corpus | arm | epsilon | steps, units, rows | noise_multiplier | top-1 | range "
        "| share of the gain | to keep | points above plain |",
        "| --- " * 10 + "|",
    ]
    for corpus, public in book.public.items():
        before = public["test"]
        rows.append(f"| {corpus} | public | - | - | - | {before:.4f} | | 0 | | |")
        free = statistics.mean(book.tests(corpus, "non-private", None))
        for arm, epsilon in arms():
            found = book.tests(corpus, arm, epsilon)
            if not found:
                continue
            mean = statistics.mean(found)
            cells = [
                corpus,
                arm,
                "-" if epsilon is None else f"{epsilon:g}",
                _size(book, corpus, arm, epsilon),
                _noise(book, corpus, arm, epsilon),
            ]
            cells += [f"{mean:.4f}", f"{min(found):.4f} to {max(found):.4f} ({len(found)})"]
            cells.append(f"{(mean - before) / (free - before):.0%}")
            reached = ["", ""]
            if arm == "recipe" and epsilon is not None:
                above = 100 * (mean - statistics.mean(book.tests(corpus, "plain", epsilon)))
                reached = [f"{TARGET[epsilon]:.0%}", f"{above:+.2f} (to reach: {MARGIN:g})"]
            rows.append(f"| {' | '.join([*cells, *reached])} |")
    return "\n".join(rows)


def ablation(book: Book) -> str:
    """Shares on the test part, and points beside the first training."""
    found = {one.cell: one for one in book.trained}
    rows = ["| changed | noise_multiplier | top-1 | points |", "| --- " * 4 + "|"]
    whole = found[_ablated("recipe", SMALL)].test
    asked = [(name, "recipe", settings) for name, settings in ABLATION.items()]
    for name, arm, settings in [*asked, *((name, arm, SMALL) for arm, name in WITHOUT.items())]:
        one = found.get(_ablated(arm, settings))
        if one is not None:
            points = f"{100 * (one.test - whole):+.2f}" if name != "as it is" else ""
            rows.append(f"| {name} | {one.noise_multiplier:.3f} | {one.test:.4f} | {points} |")
    return "\n".join(rows)


def _ablated(arm: str, settings: Settings) -> str:
    return cell_of("medquad", arm, None if arm in WITHOUT else 8.0, 0, asdict(settings))


def _size(book: Book, *key: Any) -> str:
    chosen = Settings(**(book.chosen(*key) or {}))
    return f"{chosen.steps}, {chosen.batch}, {chosen.rows}"


def _noise(book: Book, *key: Any) -> str:
    best = book.chosen(*key)
    found = {one.noise_multiplier for one in book._of(*key) if one.settings == best}
    return f"{found.pop():.3f}" if key[2] is not None else "-"


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--base", type=Path, required=True, help="what pretrain.py wrote")
    parser.add_argument("--corpus", choices=sorted(FILE), action="append")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--ablate", action="store_true", help="what each setting is worth")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    tokenizer = load_tokenizer(str(asked.base))
    weights = hashlib.sha256((asked.base / "model.safetensors").read_bytes()).hexdigest()
    book = Book(asked.out, {
        "schema": SCHEMA, "base": f"sha256:{weights}",
        "settings": {"window": WINDOW, "delta": DELTA, "rows": ROWS, "units": UNITS},
        "versions": {name: version(name) for name in ("torch", "opacus", "dp-accounting")},
    })  # fmt: skip
    if asked.ablate:
        parts = Parts("medquad", asked.data, tokenizer)
        cells = [Cell(parts, "recipe", 8.0, 0, settings) for settings in ABLATION.values()]
        cells += [Cell(parts, arm, None, 0, SMALL) for arm in WITHOUT]
        _work(book, asked.base, cells)
        print(ablation(book))
        return
    corpora = [Parts(corpus, asked.data, tokenizer) for corpus in asked.corpus or sorted(FILE)]
    fill(book, corpora, asked.base, asked.seeds)
    print(table(book))


if __name__ == "__main__":
    main()
