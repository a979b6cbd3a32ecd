"""`dpmlm runs ablate`: trainings without a source, what is left out of them, and what is said."""

import json
import random
import stat
from functools import cache

import numpy as np
import pytest
import yaml
from scipy.stats import t as student
from small_run import draw_keys, sentences
from small_stages import run_stages, write_rows

from dpmlm.cli.main import status_of
from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline.evaluation import HeldOut
from dpmlm.pipeline.grid import price_of, run_grid
from dpmlm.pipeline.grid.measured import read_measured
from dpmlm.pipeline.grid.result import GridResult, Row
from dpmlm.pipeline.models import _private_units
from dpmlm.pipeline.runs.ablation import ablation_grid, ablation_of, halves_of
from dpmlm.pipeline.sources import origins_of, standing_alone
from dpmlm.privacy import Ledger
from dpmlm.training.model import SIZES

pytestmark = pytest.mark.xdist_group("ablation")

SHARED = "a text that two deliveries hold word for word, and so it stays in both of them"
ABLATED = {
    "ledger__cap": {"epsilon": 200, "delta": 1e-3},
    "privacy__accountant": "rdp",
    "privacy__units": 120,
    "split__validation": 0.3,
    "training__steps": 2,
    "training__checkpoint_minutes": 30,
    "audit__canaries": 20,
    "corpus__path": "deliveries",
}


def begin(folder, files=("a", "b", "c", "d"), *, each=12, **changes):
    """A corpus of several files, and its run file, keys and ledger."""
    from small_run import write_run_file

    rng = random.Random(2)
    folder.mkdir(exist_ok=True)
    write_rows(folder, [])
    (folder / "private.jsonl").unlink()
    (folder / "deliveries").mkdir()
    for name in files:
        rows = [
            {"id": f"{name}{n}", "text": sentences(rng, 3), "author": f"{name} person {n}"}
            for n in range(each)
        ]
        if name in ("a", "b"):
            rows.append({"id": f"{name}-shared", "text": SHARED, "author": f"{name} person 0"})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "deliveries" / f"{name}.jsonl").write_text(lines)
    public = [json.dumps({"text": sentences(rng, 6)}) for _ in range(40)]
    (folder / "public.jsonl").write_text("\n".join(public))
    write_run_file(folder, **{**ABLATED, **changes})
    draw_keys(folder)
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An ablation of two sources, a seed each, stopped at its second training and gone on with."""
    run_file = begin(tmp_path_factory.mktemp("ablation"))
    grid = ablation_grid(run_file, run_file.parent / "out", ["a.jsonl", "c.jsonl"], seeds=1)
    before = price_of(grid)
    grid.claim()
    run_stages(grid.text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", (16, 2, 2))
        result = run_grid(grid)
    return run_file, grid, before, result


def run_of(config):
    from dpmlm.pipeline.context import Run
    from dpmlm.pipeline.progress import Progress

    return Run.load(config, Progress(quiet=True))


def test_a_left_out_source_is_not_drawn_and_all_else_is(trained):
    _, grid, _, _ = trained
    every, without_a, without_c = (cell.config for cell in grid.cells)
    names = [
        {name for name in _private_units(run_of(one)).names if not name.startswith("canary/")}
        for one in (every, without_a, without_c)
    ]
    documents = list(read_tokens(run_of(every)))
    # Persons have documents of one file each, but for what both files hold.
    of = {
        letter: {d["unit"] for d in documents if d["split"] == "train" and d["id"][0] == letter}
        for letter in "abcd"
    }
    shared = {d["unit"] for d in documents if d["id"].endswith("-shared")}
    assert of["a"]
    assert of["c"]
    assert names[0] - names[1] == of["a"] - shared
    assert names[0] - names[2] == of["c"]
    assert names[1] < names[0]
    assert names[2] < names[0]


def test_what_was_left_out_does_not_count_as_trained_on(trained):
    _, grid, _, _ = trained
    every, without_a, _ = (run_of(cell.config) for cell in grid.cells)
    known = {one.id for one in HeldOut.trained_on(every, 10**6).documents}
    fewer = {one.id for one in HeldOut.trained_on(without_a, 10**6).documents}
    assert known - fewer == {id for id in known if id[0] == "a" and not id.endswith("-shared")}
    assert known - fewer
    assert fewer < known


def test_trainings_that_would_be_asked_about_nothing_are_refused_before_a_charge(trained):
    run_file, *_ = trained
    every = ["a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl"]
    grid = ablation_grid(run_file, run_file.parent / "all", every, seeds=1)
    grid.claim()
    run_stages(grid.text)
    ledger = (run_file.parent / "ledger.jsonl").read_bytes()
    with pytest.raises(UserError, match="nothing is left to ask about") as refused:
        run_grid(grid)
    assert "jsonl" not in str(refused.value)
    assert (run_file.parent / "ledger.jsonl").read_bytes() == ledger


def read_tokens(run):
    from dpmlm.corpus import read_shards

    return read_shards(run.source("tokens"))


def test_what_stands_in_another_source_too_is_still_trained_on(trained):
    _, grid, _, _ = trained
    run = run_of(grid.cells[0].config)
    shared = {name for name, of in origins_of(run).items() if of == {"a.jsonl", "b.jsonl"}}
    assert len(shared) == 1
    assert not shared & standing_alone(run, ["a.jsonl"])
    assert shared <= standing_alone(run, ["a.jsonl", "b.jsonl"])
    with pytest.raises(UserError, match="no document that came so far"):
        standing_alone(run, ["a"])


@pytest.mark.parametrize("unit", ["document", "person"])
def test_sources_are_those_of_a_naive_search_of_the_files(tmp_path, unit):
    run_file = begin(tmp_path, privacy__unit=unit, dedup={"near": None}, audit__canaries=0)
    run = run_stages(load_config(run_file))
    texts = {}
    for file in (tmp_path / "deliveries").iterdir():
        for line in file.read_text().splitlines():
            texts.setdefault(json.loads(line)["text"], set()).add(file.name)
    found = origins_of(run)
    documents = list(read_tokens(run))
    assert len(documents) > 40
    for document in documents:
        if unit == "document":  # texts instead of records
            assert found[document["id"]] == texts[document["text"]]
        else:
            assert found[document["id"]] <= texts[document["text"]]


def test_all_trainings_are_asked_about_the_other_sources(trained):
    _, grid, _, _ = trained
    held_out = [
        d for d in read_tokens(run_of(grid.text))
        if d["split"] == "validation" and (d["id"][0] in "bd" or d["text"] == SHARED)
    ]  # fmt: skip
    assert held_out
    for cell in grid.cells:
        told = read_measured(run_of(cell.config))["held_out"]
        assert told["documents"] == len(held_out)
        assert told["label"] == "private"


def test_each_training_is_charged_and_names_no_file_in_the_ledger(trained):
    run_file, grid, before, _ = trained
    assert len(before.plans) == 3
    text = (run_file.parent / "ledger.jsonl").read_text()
    ledger = Ledger.open(run_file.parent / "ledger.jsonl")
    assert len(ledger.run_ids) == 3
    assert 'jsonl"' not in text
    assert [cell.name for cell in grid.cells] == [f"small-part{n}-seed3" for n in range(3)]
    assert price_of(grid).plans == ()
    again = ablation_grid(run_file, grid.folder, ["a.jsonl", "c.jsonl"], seeds=1)
    assert ablation_of(again, run_grid(again)).runs == 3
    assert ledger.run_ids == Ledger.open(run_file.parent / "ledger.jsonl").run_ids


def test_figures_and_names_are_shown_on_request_alone(trained):
    _, grid, _, result = trained
    found = ablation_of(grid, result)
    for hidden in (found.text(), json.dumps(found.to_json()), repr(found)):
        assert "a.jsonl" not in hidden
        assert not any(f"{abs(one.loss.difference):.3f}" in hidden for one in found.found)
    assert "without a.jsonl: not told apart" in found.text(private=True)
    assert found.to_json(private=True)["private"]["culprits"] == []


def test_run_files_that_name_sources_are_their_owners_alone(trained):
    _, grid, *_ = trained
    named = [grid.cells[1].run_file, grid.cells[1].config.workspace / "run.json"]
    assert all("a.jsonl" in path.read_text() for path in named)
    assert {stat.S_IMODE(path.stat().st_mode) for path in named} == {0o600}
    assert stat.S_IMODE(grid.folder.stat().st_mode) == 0o700


def test_a_source_whose_trainings_fail_is_named_as_not_compared(trained):
    losses = [[5.0, 5.1, 5.2], [None] * 3, [4.6, 4.7, 4.801]]
    found = made(trained[0], ["a.jsonl", "b.jsonl"], losses)
    assert [one.sources for one in found.found] == [["b.jsonl"]]
    assert found.culprits == ["b.jsonl"]
    assert "without a.jsonl: not compared" in found.text(private=True)
    assert "a.jsonl" not in found.text()


@cache
def asked(run_file, sources, seeds, halves):
    """A grid of files that are there and are never read."""
    named = run_file.parent / "named"
    named.mkdir(exist_ok=True)
    for source in sources:
        (named / source).touch()
    path = run_file.with_name("named.yaml")
    settings = yaml.safe_load(run_file.read_text())
    settings["corpus"]["path"] = "named"
    path.write_text(yaml.safe_dump(settings))
    return ablation_grid(path, run_file.parent / "none", sources, seeds=seeds, halves=halves)


def made(run_file, sources, losses, *, halves=False, seeds=3):
    """The result of a grid whose trainings came to `losses` [setting][seed]."""
    grid = asked(run_file, tuple(sources), seeds, halves)
    rows = []
    for cell in grid.cells:
        loss = losses[grid.settings.index(cell.setting)][cell.seed - grid.base.seed]
        part = {"label": "private", "loss": loss, "top1": 1 / (1 + (loss or 0))}
        figures = {"held_out": None if loss is None else part}
        rows.append(Row(cell.name, cell.setting, cell.seed, figures=figures))
    return ablation_of(grid, GridResult.of(grid, rows))


def test_the_removal_that_brings_the_loss_back_is_named(trained):
    noise = np.random.default_rng(1).normal(0, 0.01, (4, 3))
    losses = np.array([[5.0], [5.0], [4.6], [5.01]]) + noise
    found = made(trained[0], ["a.jsonl", "b.jsonl", "c.jsonl"], losses.tolist())
    assert found.culprits == ["b.jsonl"]
    assert found.found[0].sources == ["b.jsonl"]
    # The interval by hand: two-way layout, 3 sources and 2 figures asked for.
    left = losses - losses.mean(1, keepdims=True) - losses.mean(0) + losses.mean()
    error = np.sqrt((left**2).sum() / 6 * 2 / 3)
    half = student.ppf(1 - 0.05 / (2 * 6), 6) * error
    middle = losses[2].mean() - losses[0].mean()
    assert found.found[0].loss.interval == pytest.approx((middle - half, middle + half))


def test_noise_alone_names_nobody(trained):
    rng = np.random.default_rng(4)
    named = [
        made(trained[0], ["a.jsonl", "b.jsonl", "c.jsonl"], rng.normal(5, 0.1, (4, 3)).tolist())
        for _ in range(200)
    ]
    # At most one in twenty by construction; one side of the interval is looked at.
    assert sum(bool(one.culprits) for one in named) <= 12


@pytest.mark.parametrize("bad", range(6))
def test_halves_find_one_bad_source_of_many(trained, bad):
    sources = [f"{n}.jsonl" for n in range(6)]
    rng = np.random.default_rng(bad)
    losses = [
        [4.6 + 0.5 * (sources[bad] not in out) + rng.normal(0, 0.01) for _ in range(3)]
        for out in halves_of(sources)
    ]
    assert len(losses) == 6
    assert made(trained[0], sources, losses, halves=True).culprits == [sources[bad]]


def test_halves_of_two_bad_sources_or_none_name_nobody_surely(trained):
    sources = [f"{n}.jsonl" for n in range(8)]
    rng = np.random.default_rng(0)

    def losses(bad):
        return [
            [4.6 + 0.5 * len(bad - set(out)) + rng.normal(0, 0.01) for _ in range(3)]
            for out in halves_of(sources)
        ]

    assert made(trained[0], sources, losses(set()), halves=True).culprits == []
    assert made(trained[0], sources, losses({sources[0], sources[7]}), halves=True).culprits == []


@pytest.mark.parametrize(
    ("sources", "halves", "why"),
    [([], False, "each suspect is named"), (["a.jsonl"] * 2, False, "each suspect is named"),
     (["a.jsonl", "b.jsonl"], True, "halves are made of 4 to 256"),
     (["a.jsonl", "week9.jsonl"], False, "has no file of this name")],
)  # fmt: skip
def test_what_is_no_question_is_refused(trained, sources, halves, why):
    with pytest.raises(UserError, match=why):
        ablation_grid(trained[0], trained[0].parent / "x", sources, seeds=1, halves=halves)


def test_an_unknown_source_and_a_missing_yes_charge_nothing(trained, capsys):
    run_file = trained[0]
    ledger = (run_file.parent / "ledger.jsonl").read_bytes()
    out = str(run_file.parent / "unasked")
    arguments = ["runs", "ablate", str(run_file), "--out", out, "--source"]
    for source, why in (("b.jsonl", "add --yes"), ("week9.jsonl", "no file of this name")):
        assert status_of([*arguments, source]) == 2
        assert why in capsys.readouterr().err
    assert (run_file.parent / "ledger.jsonl").read_bytes() == ledger
    assert not (run_file.parent / "unasked").exists()
