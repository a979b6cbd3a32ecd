"""A bad file is delivered: it is found, left out, and the figure is back; an innocent one is not.

Small corpora and small models; the stages of the text as they are but for scrubbing.
"""

import json
import random

import pytest
from small_run import draw_keys, sentences, write_run_file
from small_stages import run_stages, write_rows

from dpmlm.artifacts import load_model
from dpmlm.config import load_config
from dpmlm.corpus import read_shards
from dpmlm.errors import UserError
from dpmlm.evaluation import EvaluationSpec
from dpmlm.pipeline.canaries import canaries_stage
from dpmlm.pipeline.evaluation import HeldOut
from dpmlm.pipeline.grid import run_grid
from dpmlm.pipeline.models import PLAN, TRAINING
from dpmlm.pipeline.runs.ablation import ablation_grid, ablation_of
from dpmlm.pipeline.runs.comparison import compare_runs
from dpmlm.pipeline.runs.postmortem import write_postmortem
from dpmlm.pipeline.runs.quarantining import quarantine
from dpmlm.pipeline.runs.shards import rank_parts
from dpmlm.pipeline.sources import standing_alone
from dpmlm.pipeline.stages import execute
from dpmlm.privacy import Ledger
from dpmlm.training.model import SIZES

pytestmark = pytest.mark.xdist_group("incident")

GOOD = tuple(f"week{n}.jsonl" for n in range(1, 8))
BAD = "week8.jsonl"
SETTINGS = {
    "ledger__cap": {"epsilon": 4000, "delta": 1e-3},
    "tokens__train": {"corpus": "public.jsonl", "size": 400, "unused": 150},
    "privacy__accountant": "rdp",
    "privacy__epsilon": 60,
    "privacy__units": 600,
    "split__validation": 0.25,
    "training__steps": 60,
    "training__expected_batch_size": 32,
    "training__learning_rate": 1e-2,
    "training__checkpoint_minutes": 30,
    "audit__canaries": 0,
    "dedup": {"near": None},
}

LONG = SETTINGS | {
    "ledger__cap": {"epsilon": 40000, "delta": 1e-3},
    "privacy__epsilon": 150,
    "training__steps": 150,
    "training__expected_batch_size": 64,
}
"""With so little noise the loss is 0.55 higher with the bad file than without it, and varies by
0.04 from run to run over one split (standard deviation of 26 trainings in four folders)."""


def spoilt(text, rng):
    """The same letters in another order: sound characters, and no words."""
    words = ["".join(rng.sample(word, len(word))) for word in text.split()]
    rng.shuffle(words)
    return " ".join(words)


def deliver(folder, name, rng, count, *, bad=False):
    rows = []
    for number in range(count):
        text = sentences(rng, 4)
        rows.append({"id": f"{name}-{number}", "text": spoilt(text, rng) if bad else text,
                     "author": f"{name} writer {number}"})  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def clinic_in(folder, settings):
    """Seven good files, and the same with a bad one that is as long as all of them."""
    rng = random.Random(7)
    write_rows(folder, [])
    for place in ("before", "new"):
        rng.seed(7)
        for name in GOOD:
            deliver(folder / place, name, rng, 24)
    deliver(folder / "new", BAD, rng, 168, bad=True)
    public = [json.dumps({"text": sentences(rng, 6)}) for _ in range(80)]
    (folder / "public.jsonl").write_text("\n".join(public))
    write_run_file(folder, **settings, corpus__path="before")
    draw_keys(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def smaller_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", (32, 2, 2))
        yield


@pytest.fixture(scope="module")
def clinic(tmp_path_factory, smaller_model):
    return clinic_in(tmp_path_factory.mktemp("clinic"), SETTINGS)


def config_of(folder, name, corpus, settings=SETTINGS):
    path = write_run_file(
        folder, **settings, corpus__path=corpus, name=name, workspace=f"work-{name}"
    )
    return load_config(path.rename(folder / f"{name}.yaml"))


def trained(config):
    run = run_stages(config)
    execute(run, [canaries_stage(config), PLAN, TRAINING])
    return run


def loss_on_good_text(run, bad=()):
    """Held-out loss on the documents of the good files."""
    held_out = HeldOut.of_run(run)
    if bad:
        held_out = held_out.without(standing_alone(run, bad))
    model, tokenizer = load_model(run.folder("training"))
    found = held_out.measured(
        model, held_out.asked(tokenizer), EvaluationSpec(48), lambda done, total: None
    )
    return len(held_out.documents), found.figures.loss


def sources_of(run):
    return {one["source"] for one in read_shards(run.folder("corpus"))}


@pytest.fixture(scope="module")
def runs(clinic):
    return {
        "before": trained(config_of(clinic, "before", "before")),
        "new": trained(config_of(clinic, "new", "new")),
    }


def test_the_bad_file_is_ranked_first_and_alone_is_a_suspect(clinic, runs):
    found = rank_parts(load_config(clinic / "new.yaml"), clinic / "before.yaml")
    assert found.suspects == [BAD]
    assert found.parts[0].name == BAD
    assert found.parts[0].state == "new"
    assert BAD not in found.text()
    assert BAD in found.text(private=True)


def test_runs_compared_show_the_files_that_are_not_the_same_in_both(clinic, runs):
    files = [clinic / "before.yaml", clinic / "new.yaml"]
    found = compare_runs(files, private=True)
    named = {key: cells for key, cells in found.private.items() if key.startswith("sources.")}
    ((key, (before, new)),) = named.items()
    assert (key, before) == (f"sources.{BAD}", None)
    assert len(new) == 8
    assert BAD not in compare_runs(files).text()


def test_an_innocent_corpus_names_nobody(clinic, runs):
    found = rank_parts(load_config(clinic / "before.yaml"))
    assert found.suspects == []
    assert len(found.parts) == len(GOOD)
    assert "no part stands out" in found.text(private=True)


def test_quarantine_leaves_the_source_out_of_new_workspaces_alone(clinic, runs):
    config = load_config(clinic / "new.yaml")
    done = quarantine(config, BAD, "inc-8", "private")
    assert done.changed
    assert not quarantine(config, BAD, "inc-8", "private").changed
    with pytest.raises(UserError, match="in a new workspace"):
        run_stages(config, check=True)
    after = run_stages(config_of(clinic, "without", "new"))
    assert sources_of(after) == set(GOOD)
    ledger = Ledger.open(config.ledger.path)
    assert [one["label"] for one in ledger.choices()] == ["private"]
    with pytest.raises(UserError, match="name rows all"):
        quarantine(config, BAD, "inc-8", "private", rows=(1, 5), lift=True)
    quarantine(config, BAD, "inc-8", "private", lift=True)
    assert sources_of(run_stages(config_of(clinic, "lifted", "new"))) == {*GOOD, BAD}


@pytest.mark.full
def test_out_of_quarantine_comes_the_former_figure(tmp_path):
    clinic = clinic_in(tmp_path, LONG)
    documents, before = loss_on_good_text(trained(config_of(clinic, "before", "before", LONG)))
    asked, new = loss_on_good_text(trained(config_of(clinic, "new", "new", LONG)), [BAD])
    assert asked == documents
    assert new > before + 0.3
    quarantine(load_config(clinic / "new.yaml"), BAD, "inc-8", "private")
    after = trained(config_of(clinic, "after", "new", LONG))
    again, back = loss_on_good_text(after)
    assert again == documents
    assert back < new - 0.2
    assert abs(back - before) < 0.25
    ledger = Ledger.open(after.config.ledger.path)
    assert ledger.summary(ledger.run_ids[-1])["choices_charged"] is False
    page = clinic / "incident.md"
    write_postmortem(clinic / "after.yaml", page, against=clinic / "work-new")
    told = page.read_text()
    assert "a source left out | inc-8 | private" in told
    assert BAD not in told
    assert f"{new:.4g}" not in told


@pytest.mark.full
def test_an_ablation_clears_the_innocent_file_and_names_the_bad_one(clinic, runs):
    sources = [GOOD[0], BAD]
    grid = ablation_grid(clinic / "new.yaml", clinic / "ablation", sources, seeds=3)
    grid.claim()
    run_stages(grid.text)
    found = ablation_of(grid, run_grid(grid))
    assert found.culprits == [BAD]
    assert found.failed == []
    assert [one.sources for one in found.found] == [[BAD], [GOOD[0]]]
