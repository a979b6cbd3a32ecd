"""Train the name finder that ships with the package: `python -m dpmlm.scrub.train --data DIR`.

Two small spaCy pipelines, differently seeded and shown the data differently, are trained one
after the other; the engine takes the union of what they find, which finds more than one model
of the same total cost. Documents and templates are set apart before anything is trained, and
the recall on that part goes into MODEL_CARD.md beside the weights.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.training import Example as SpacyExample
from spacy.util import compounding, fix_random_seed, load_config_from_str, minibatch

from dpmlm.scrub.policy import MODEL_PARTS
from dpmlm.scrub.training.augment import Augmenter
from dpmlm.scrub.training.examples import LABELS, Example, read_examples

EPOCHS = 5
"""Passes over the training part, each with other names, case and templates."""
TEMPLATES_DRAWN = 2200
"""Filled templates a pass."""

_CONFIG = """
[model]
@architectures = "spacy.TransitionBasedParser.v2"
state_type = "ner"
extra_state_tokens = false
hidden_width = 64
maxout_pieces = 2
use_upper = true
nO = null

[model.tok2vec]
@architectures = "spacy.Tok2Vec.v2"

[model.tok2vec.embed]
@architectures = "spacy.MultiHashEmbed.v2"
width = 96
attrs = ["NORM", "PREFIX", "SUFFIX", "SHAPE"]
rows = [3000, 800, 1500, 1500]
include_static_vectors = false

[model.tok2vec.encode]
@architectures = "spacy.MaxoutWindowEncoder.v2"
width = 96
depth = 4
window_size = 1
maxout_pieces = 3
"""


def train_part(
    examples: Sequence[Example], *, seed: int, epochs: int, case: float = 1.0
) -> Language:
    """One pipeline; the rate falls to a tenth over the epochs and the weights are averaged.

    `case` multiplies the share of examples whose case is changed.
    """
    fix_random_seed(seed)
    nlp = spacy.blank("en")
    ner = nlp.add_pipe("ner", config={"model": load_config_from_str(_CONFIG)["model"]})
    for label in LABELS:
        ner.add_label(label)  # type: ignore[attr-defined]
    augmenter = Augmenter(examples, seed, case=case)
    optimizer = nlp.initialize(lambda: [to_spacy(nlp, e) for e in examples[:200]])
    started, sizes = time.monotonic(), compounding(8.0, 48.0, 1.002)
    for epoch in range(epochs):
        losses: dict[str, float] = {}
        drawn, done = augmenter.epoch(examples, templates=TEMPLATES_DRAWN), 0
        for batch in minibatch(drawn, sizes):
            left = 1 - (epoch + done / len(drawn)) / epochs
            optimizer.learn_rate = 0.001 * max(0.1, min(1.0, 2 * left))
            nlp.update([to_spacy(nlp, e) for e in batch], sgd=optimizer, drop=0.2, losses=losses)
            done += len(batch)
        seconds = time.monotonic() - started
        print(f"seed {seed} epoch {epoch + 1} loss {losses['ner']:.0f} {seconds:.0f} s", flush=True)
    with nlp.use_params(optimizer.averages):
        averaged = nlp.to_bytes(exclude=["vocab"])
    return nlp.from_bytes(averaged, exclude=["vocab"])


def to_spacy(nlp: Language, example: Example) -> SpacyExample:
    """A spaCy training example; a span that begins or ends inside a token takes all of it.

    Of two spans that meet in a token the first has it; unknown spans carry no signal.
    """
    doc = nlp.make_doc(example.text)
    tags = ["O"] * len(doc)
    for span in example.spans:
        inside = doc.char_span(span.start, span.end, alignment_mode="expand")
        tokens = [t.i for t in inside or () if not t.is_space and tags[t.i] == "O"]
        if not tokens:
            continue
        first, last = tokens[0], tokens[-1]
        for i in range(first, last + 1):
            place = "U" if first == last else "B" if i == first else "L" if i == last else "I"
            tags[i] = f"{place}-{span.label}" if span.label else "-"
    return SpacyExample.from_dict(doc, {"entities": tags})


def train(examples: Sequence[Example], folder: Path, *, seed: int, epochs: int) -> None:
    """Train both parts and save each as soon as it is done.

    The string store is left out of the files: it holds the words of the training text.
    """
    # The second part sees each synthetic sentence twice, and case changed twice as often: it errs
    # elsewhere than the first.
    twice = [*examples, *(e for e in examples if e.source == "pii_synthetic")]
    folder.mkdir(parents=True, exist_ok=True)
    for i, (name, shown) in enumerate(zip(MODEL_PARTS, (examples, twice), strict=True)):
        nlp = train_part(shown, seed=seed + i, epochs=epochs, case=1.0 + i)
        nlp.to_disk(folder / name, exclude=["vocab"])
    characters: dict[str, int] = {}
    for example in examples:
        source = example.source.split("-")[0]
        characters[source] = characters.get(source, 0) + len(example.text)
    facts = {"seed": seed, "epochs": epochs, "characters": characters}
    (folder / "training.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, save, measure on the part left out, write the model card."""
    parser = argparse.ArgumentParser(prog="python -m dpmlm.scrub.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the training sets")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--card-only", action="store_true", help="measure the model that is there")
    options = parser.parse_args(arguments)
    if not options.card_only:
        train(read_examples(options.data), options.out, seed=options.seed, epochs=options.epochs)
    from dpmlm.scrub.training.card import write_card

    write_card(options.out, options.data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
