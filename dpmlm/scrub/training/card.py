"""MODEL_CARD.md of the shipped name finder: sources, licences, and recall on the part left out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpmlm.scrub.policy import load_policy
from dpmlm.scrub.recall import Rate, RecallReport, measure_recall
from dpmlm.scrub.scrubber import Scrubber
from dpmlm.scrub.train import TEMPLATES_DRAWN
from dpmlm.scrub.training.examples import CONLL_FILES, fold_of, gold_rows, read_conll
from dpmlm.scrub.training.shapes import SENTENCES, SHAPES, left_by

SOURCES = (
    ("tab", "Text Anonymization Benchmark, court judgments (Pilan et al. 2022)", "MIT"),
    ("pii_synthetic", "presidio-research, templated sentences", "MIT"),
    ("wikigold", "Wikigold (Balasuriya et al. 2009)", "CC BY 4.0"),
    ("wnut17", "WNUT 2017 emerging entities (Derczynski et al. 2017)", "CC BY 4.0"),
    ("btc", "Broad Twitter Corpus (Derczynski et al. 2016)", "CC BY 4.0"),
    ("sec", "SEC filings, financial agreements (Alvarado et al. 2015)", "CC BY 3.0"),
    ("templates", "sentences of this project, in dpmlm/scrub/training/templates.py", "Apache-2.0"),
)

_CARD = """# Name finder of dpmlm

Two small spaCy pipelines (`first`, `second`), each a blank English tokenizer and a named-entity
component with hashed embeddings, no word vectors. The engine takes the union of both. Made by
`python -m dpmlm.scrub.train --data DIR`; {size:.1f} MB on disk; it runs offline.

Finds: PERSON, LOCATION, ORGANIZATION, DATE_TIME, ADDRESS, ID, PHONE_NUMBER, NRP (nationality,
religion, profession), QUANTITY, MISC. It is meant to run inside Presidio, beside its patterns.

## Trained on

| set | what | licence | characters seen |
| --- | --- | --- | ---: |
{sources}

The weights contain adapted material of these sets; their authors are to be named with them.
Words of the training text are not stored: the string store is left out of the files. Names are
exchanged for other names of the sets and for ones put together from two of them, companies,
addresses and numbers are made up, case and line breaks are varied, all from one seed. Of the token
sets a half is drawn in each of {epochs} passes, and {templates:,} filled templates beside it.

## Measured on what was left out

A fifth of the court judgments and a fifth of the templates, chosen by a hash of their names
before training; of the token sets a fifth of their documents or of runs of 60 sentences. Names
in templates are drawn from one generator, so the same name can stand on both sides. Whole
scrubber, policy `{policy}`, kept entities not counted as found. A span is found when every
character of it is replaced. Intervals are Clopper-Pearson, 95 %. Precision: of the replaced
characters that are no blanks, those in a gold span of any kind. The token sets annotate no dates,
numbers or links, so their precision says little. `python benchmarks/recall.py` measures every
document and template once, over five such models: docs/data.md.

{tables}
### Sentences of this project by shape (dpmlm/scrub/training/shapes.py)

Nothing was trained on them, but recognizers were written with them in view: they say what works,
not how often.

{shapes}

## Limits

English, mostly of courts, news, tweets, agreements and forms. Names in scripts without capitals,
unusual names in lower case, nicknames and descriptions are missed more often than others.
Quantities and works are found but kept by most shipped policies. Measure recall on your own text
before relying on it: `dpmlm scrub --gold FILE`.
"""


def write_card(model: Path, data: Path, *, policy: str = "default") -> dict[str, Any]:
    """Measure a model on the parts left out of its training and write its card beside it.

    Returns the reports as JSON objects by set; they are also kept beside the model.
    """
    asked = load_policy(policy)
    engine = asked.engine.model_copy(update={"spacy": str(model)})
    scrubber = Scrubber(asked.model_copy(update={"engine": engine}))
    gold = {
        "Court judgments (tab)": gold_rows(data, "tab"),
        "Templated sentences (pii_synthetic)": gold_rows(data, "pii_synthetic"),
        "Tweets, encyclopedia, agreements (token sets)": _token_rows(data),
    }
    reports = {name: measure_recall(scrubber, rows) for name, rows in gold.items()}
    facts = json.loads((model / "training.json").read_text(encoding="utf-8"))
    size = sum(p.stat().st_size for p in model.rglob("*") if p.is_file()) / 1e6
    card = _CARD.format(
        size=size,
        epochs=facts["epochs"],
        templates=TEMPLATES_DRAWN,
        shapes="\n".join(_shape_rows(scrubber)),
        policy=policy,
        sources="\n".join(_source_rows(facts["characters"])),
        tables="\n".join(_table(name, report) for name, report in reports.items()),
    )
    (model / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    result = {name: report.to_json() for name, report in reports.items()}
    (model / "recall.json").write_text(
        json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    print(card)
    return result


def _token_rows(data: Path) -> list[dict[str, Any]]:
    """The left-out part of the token sets as gold rows; only labelled spans count."""
    return [
        {
            "id": f"{e.source}-{e.group}",
            "text": e.text,
            "spans": [
                {"start": s.start, "end": s.end, "type": s.label} for s in e.spans if s.label
            ],
        }
        for name in CONLL_FILES
        for e in read_conll(data / "ner" / name)
        if fold_of(e.source, e.group) == 0
    ]


def _shape_rows(scrubber: Scrubber) -> list[str]:
    """A line a shape: how many names are found, and those that are not."""
    left = list(left_by(scrubber))
    rows = ["| shape | found | of | left |", "| --- | ---: | ---: | --- |"]
    for shape in SHAPES:
        names = sum(len(sentence.names) for sentence in SENTENCES if sentence.shape == shape)
        missed = [name for sentence, name in left if sentence.shape == shape]
        told = ", ".join(f"`{name}`" for name in missed)
        rows.append(f"| {shape} | {names - len(missed)} | {names} | {told} |")
    return rows


def _source_rows(characters: Mapping[str, int]) -> Sequence[str]:
    rows = []
    for name, what, licence in SOURCES:
        seen = f"{characters[name]:,}" if name in characters else "as drawn"
        rows.append(f"| {name} | {what} | {licence} | {seen} |")
    return rows


def _table(name: str, report: RecallReport) -> str:
    rates = report.by_type_and_identifier or report.by_type
    rows = [f"### {name}, {report.documents:,} texts", ""]
    rows += [
        "| spans | found | of | recall | 95 % interval |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    named = [*sorted(rates.items()), *sorted(report.by_identifier.items())]
    named.append(("all", report.recall))
    right = report.precision
    last = f"| precision | {right.hits} | {right.total} | {right.value or 0:.3f} | |"
    return "\n".join([*rows, *(_row(kind, rate) for kind, rate in named), last, ""])


def _row(kind: str, rate: Rate) -> str:
    low, high = rate.interval
    share = "" if rate.value is None else f"{rate.value:.3f}"
    return f"| {kind} | {rate.hits} | {rate.total} | {share} | {low:.3f} to {high:.3f} |"
