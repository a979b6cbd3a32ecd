"""Private text under the name of public text, however it got there, is refused."""

import json
import math
import shutil
from pathlib import Path

import pytest
from small_run import write_corpus, write_run_file

from dpmlm.config import load_config
from dpmlm.config.text import PublicCorpusConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.declared import declared_public, refuse_private_text, refuse_shared
from dpmlm.pipeline.preflight import preflight
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.start import initialise

FIELDS = (
    "audit.control", "masking.weights", "model.forgetting", "tokens.train", "training.best",
    "training.scale",
)  # fmt: skip
NAMED = {f"{field}.corpus": "public.jsonl" for field in FIELDS} | {
    "model.from": "base",
    "model.size": None,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    write_run_file(tmp_path)
    return tmp_path


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(path: Path, found: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))


def test_every_field_that_names_public_text_is_known(folder):
    """A section of a run file with a corpus of its own is declared public text."""
    config = load_config(folder / "run.yaml", NAMED)
    dumped = config.model_dump()
    named = {
        f"{section}.{name}"
        for section, fields in dumped.items()
        if isinstance(fields, dict)
        for name, value in fields.items()
        if isinstance(value, dict) and "corpus" in value
    }
    assert named == set(declared_public(config)) == set(FIELDS)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("case", ["itself", "other bytes", "other file of a folder", "a part"])
def test_private_text_is_refused_wherever_it_is_named(folder, field, case):
    private, public = rows(folder / "private.jsonl"), rows(folder / "public.jsonl")
    place = folder / "named.jsonl"
    if case == "itself":
        place = folder / "private.jsonl"
    elif case == "other bytes":
        shouted = [{"text": row["text"].upper().replace(" ", "  ")} for row in private]
        written(place, shouted)
    elif case == "a part":
        written(place, public + private[: len(private) // 4])
    else:
        place = folder / "named"
        place.mkdir()
        shutil.copy(folder / "public.jsonl", place)
        written(place / "more.jsonl", private)
    asked = load_config(folder / "run.yaml", NAMED | {f"{field}.corpus": place})
    with pytest.raises(UserError, match=rf"{field}.corpus {place.name}: it holds documents"):
        refuse_private_text(asked)
    refuse_private_text(load_config(folder / "run.yaml", NAMED))


@pytest.mark.parametrize("case", ["as another kind", "by another field"])
def test_the_file_itself_is_refused_however_it_is_read(folder, case):
    place = folder / "private.jsonl"
    if case == "as another kind":
        place = folder / "copy.txt"
        shutil.copy(folder / "private.jsonl", place)
    named = {"audit.control.corpus": place, "audit.control.text": "author"}
    with pytest.raises(UserError, match="documents of the private corpus"):
        refuse_private_text(load_config(folder / "run.yaml", named))


def test_it_is_refused_before_anything_is_written(folder):
    initialise(folder)
    ledger = (folder / "ledger.jsonl").read_bytes()
    (folder / "copy.jsonl").write_text((folder / "private.jsonl").read_text() + "\n")
    config = load_config(folder / "run.yaml", {"audit.control.corpus": "copy.jsonl"})
    with pytest.raises(UserError, match="documents of the private corpus"):
        preflight(Run.load(config, Progress(quiet=True)))
    assert not (folder / "work").exists()
    assert (folder / "ledger.jsonl").read_bytes() == ledger


def test_a_run_that_promises_nothing_may_name_its_corpus(folder):
    """Whatever its ledger: without a cap, too, a run alone on it has a claim."""
    named = {"tokens.train.corpus": "private.jsonl", "ledger.cap.epsilon": math.inf}
    nothing = {"privacy.epsilon": math.inf, "privacy.max_grad_norm": math.inf}
    refuse_private_text(load_config(folder / "run.yaml", named | nothing))
    with pytest.raises(UserError):
        refuse_private_text(load_config(folder / "run.yaml", named))


@pytest.mark.parametrize(("number", "refused"), [(1, False), (2, True)])
def test_a_leaflet_that_lies_in_a_file_is_no_mistake(tmp_path, number, refused):
    """One of 100 documents of one length is 1 % of the characters, two are more."""
    own, public = [f"note {i:04}" for i in range(50)], [f"page {i:04}" for i in range(100)]
    for place in range(number):
        public[place] = own[place]
    written(tmp_path / "public.jsonl", [{"text": text} for text in public])
    section = {"control": PublicCorpusConfig(corpus=tmp_path / "public.jsonl")}
    if refused:
        with pytest.raises(UserError, match=r"control\.corpus public\.jsonl"):
            refuse_shared(section, own)
    else:
        refuse_shared(section, own)
    refuse_shared({}, own)
    refuse_shared(section, [])


def test_no_text_stands_in_the_message(folder):
    place = folder / "copy.jsonl"
    shutil.copy(folder / "private.jsonl", place)
    with pytest.raises(UserError) as caught:
        refuse_private_text(load_config(folder / "run.yaml", {"audit.control.corpus": place}))
    said = str(caught.value)
    assert not [row for row in rows(place) if row["text"] in said]
