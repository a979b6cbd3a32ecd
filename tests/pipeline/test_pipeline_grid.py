"""`dpmlm masks compare` and `dpmlm runs sweep`: what a grid charges, leaves and hides."""

import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from html_page import Page
from leaks import find_leaks
from small_grid import begin, entries, grid_of
from small_run import KNOWN_SENTENCE
from small_stages import run_stages

from dpmlm.cli.main import status_of
from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.grid import Axis, axes_of, cells, checks, price_of, run_grid, write_page
from dpmlm.pipeline.grid.budget import run_of
from dpmlm.pipeline.grid.masks import masking_axes
from dpmlm.pipeline.grid.measured import refuse_looked_at
from dpmlm.pipeline.grid.page import render
from dpmlm.pipeline.models import TRAINING, plan_of
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import stages_of
from dpmlm.pipeline.stages import execute
from dpmlm.pipeline.workspace import Workspace
from dpmlm.privacy import Ledger
from dpmlm.tokens import load_sealed_tokenizer
from dpmlm.training.model import SIZES

pytestmark = pytest.mark.xdist_group("grid")


def read_text(grid):
    """The stages of the text without the models of scrubbing, as if an earlier attempt had."""
    grid.claim()
    run_stages(grid.text)


@pytest.fixture(scope="module")
def halted(tmp_path_factory):
    """A grid of 2 strategies and 2 seeds that stopped while its third cell began, then went on."""
    run_file = begin(tmp_path_factory.mktemp("grid"))
    grid = grid_of(run_file, seeds=2, exposing=True)
    before = price_of(grid)
    read_text(grid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", (16, 2, 2))
        train, calls = cells._train, []

        def stops(run):
            calls.append(run.config.name)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return train(run)  # the second attempt begins with the third cell

        patch.setattr(cells, "_train", stops)
        with pytest.raises(KeyboardInterrupt):
            run_grid(grid)
        between = price_of(grid)
        result = run_grid(grid)
    return grid, result, before, (between, calls)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A folder whose ledger nothing was charged to."""
    return begin(tmp_path_factory.mktemp("fresh"))


def tokens_of(grid, sentence):
    run = Run.load(grid.text, Progress(quiet=True))
    return load_sealed_tokenizer(run.folder("tokens"))(sentence)["input_ids"]


def test_every_cell_is_a_run_of_the_ledger_charged_once(halted):
    grid, result, before, _ = halted
    folder = grid.base.workspace.parent
    reserved = [e for e in entries(folder) if e["kind"] == "reserve"]
    assert len(reserved) == 4
    names = [entry["run_id"].rpartition("-")[0] for entry in reserved]
    assert names == [cell.name for cell in grid.cells]
    # What was told before the first cell is what the ledger then says, summed by hand as well.
    ledger = Ledger.open(folder / "ledger.jsonl")
    naive = sum(float(entry["divergence"]) for entry in reserved)
    assert ledger.spent().rdp == pytest.approx(naive)
    assert before.account.after.epsilon == pytest.approx(ledger.spent().epsilon)
    assert (before.charged, len(before.plans)) == (0, 4)
    charges = [e["run_id"] for e in entries(folder) if e["kind"] == "charge"]
    assert all(charges.count(entry["run_id"]) == 2 for entry in reserved)
    assert all(row.failed is None for row in result.rows)


def test_a_grid_that_was_stopped_goes_on_where_it_was(halted):
    grid, _, _, (price, trained) = halted
    assert (price.charged, len(price.plans)) == (2, 2)
    names = [cell.name for cell in grid.cells]
    assert trained == [*names[:3], *names[2:]]
    assert price_of(grid).plans == ()


def test_cells_read_one_text_and_are_asked_the_same(halted):
    grid, result, *_ = halted
    for stage in ("corpus", "scrub", "dedup", "tokens"):
        sealed = (grid.folder / "text" / stage / "manifest.sealed").read_bytes()
        for cell in grid.cells:
            assert (cell.config.workspace / stage / "manifest.sealed").read_bytes() == sealed
    asked = {(row.figures["held_out"]["documents"], row.figures["held_out"]["tokens"])
             for row in result.rows}  # fmt: skip
    assert len(asked) == 1
    assert len({row.figures["held_out"]["loss"] for row in result.rows}) == 4


def test_each_seed_has_its_masks_and_all_read_one_text(fresh):
    grid = grid_of(fresh, seeds=2)
    base = Run.load(grid.text, Progress(quiet=True))
    told = [run_of(cell, base).secrets for cell in grid.cells]
    assert told == [Run.load(cell.config, base.progress).secrets for cell in grid.cells]
    assert len({one.mask_seed for one in told}) == 2
    assert {replace(one, mask_seed=b"") for one in told} == {replace(base.secrets, mask_seed=b"")}


def test_a_cell_goes_on_as_a_run_with_what_it_holds(halted):
    grid, *_ = halted
    before = entries(grid.base.workspace.parent)
    for cell in grid.cells[::2]:
        run = Run.load(load_config(cell.run_file), Progress(quiet=True))
        every = [one for one in stages_of(run.config) if one.name not in ("recall", "control")]
        until = every.index(TRAINING) + 1
        assert all(run.finished(stage.name) for stage in every[:until])
        execute(run, every[:until])
    assert entries(grid.base.workspace.parent) == before


def test_a_cell_whose_secrets_were_looked_at_is_not_released(halted, tmp_path):
    grid, result, *_ = halted
    run = Run.load(grid.cells[0].config, Progress(quiet=True))
    with pytest.raises(UserError, match="looked at its planted secrets"):
        refuse_looked_at(run)
    refuse_looked_at(replace(run, workspace=Workspace(tmp_path)))
    assert "none of them is released" in result.selecting(grid.folder)
    unseen = [replace(row, figures={**row.figures, "exposure": None}) for row in result.rows]
    assert "released" not in replace(result, rows=tuple(unseen)).selecting(grid.folder)


def test_a_run_that_was_compared_without_its_secrets_is_released(halted, monkeypatch):
    run = Run.load(halted[0].cells[0].config, Progress(quiet=True))
    monkeypatch.setattr("dpmlm.pipeline.grid.measured.read_measured", lambda _: {"exposure": None})
    refuse_looked_at(run)


def fill(ledger, config):
    """Reserve runs, the largest that fit, until none like the run file's does."""
    plan = plan_of(config)
    while ledger.affordable([plan])[0]:
        largest = config.privacy.model_copy(update={"epsilon": ledger.fitting_epsilon(plan, 1)})
        rest = plan_of(config.model_copy(update={"privacy": largest}))
        ledger.reserve(f"filling {len(ledger.run_ids)}", rest)


def test_a_finished_grid_asks_for_no_room(halted, monkeypatch):
    grid, result, *_ = halted

    def refuses(*_, **__):
        raise UserError("a plan", "nothing is left of the cap", "lower it")

    monkeypatch.setattr(Ledger, "refuse_unaffordable", refuses)
    assert price_of(grid).plans == ()
    assert run_grid(grid).rows == result.rows


@pytest.mark.full
def test_a_finished_grid_is_read_where_no_room_is_left(halted):
    grid, result, *_ = halted
    path = grid.base.ledger.path
    ledger, before = Ledger.open(path), path.read_bytes()
    try:
        fill(ledger, grid.cells[0].config)
        full = path.read_bytes()
        assert price_of(grid).plans == ()
        assert run_grid(grid).rows == result.rows
        assert path.read_bytes() == full
    finally:
        path.write_bytes(before)


def test_cells_draw_canaries_of_their_own(halted):
    _, result, *_ = halted
    exposure = [row.figures["exposure"] for row in result.rows]
    assert len({one["mean_bits"] for one in exposure}) == 4
    for one in exposure:
        low, high = one["interval"]
        assert low < one["mean_bits"] < high


def test_what_is_private_is_sealed_and_shown_on_request_alone(halted):
    grid, result, *_ = halted
    loss = [repr(row.figures["held_out"]["loss"])[:10] for row in result.rows]
    page = write_page(result, grid.folder / "compare.html")
    for path in (path for path in grid.folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        assert not any(one.encode() in data for one in loss), path
    assert not find_leaks(grid.folder, KNOWN_SENTENCE, tokens_of(grid, KNOWN_SENTENCE))
    shown = json.dumps(result.to_json()) + result.text() + page.read_text()
    assert '"private"' not in shown
    assert not any(one in shown for one in loss)
    assert all(cell["held_out"] is None for cell in result.to_json()["cells"])
    assert all(cell["cpu_seconds"] is None for cell in result.to_json()["cells"])
    asked = json.dumps(result.to_json(private=True))
    assert all(one in asked for one in loss), "the search finds what it looks for"
    assert {row.figures["public_text"]["label"] for row in result.rows} == {"dp"}


def test_the_page_stands_alone_and_says_what_it_holds(halted, tmp_path):
    _, result, *_ = halted
    html = render(result)
    page = Page(html)
    assert not {"script", "img", "iframe", "object", "link"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert page.tags.count("svg") == 2
    assert "no private figure" in html
    target = write_page(result, tmp_path / "open.html", private=True)
    assert stat.S_IMODE(os.stat(target).st_mode) == 0o600
    assert "contains private figures" in target.read_text()
    with pytest.raises(UserError, match="it is there already"):
        write_page(result, target, private=True)
    shouting = replace(result, name="<script>alert(1)</script>")
    assert "<script>" not in render(shouting)


def test_run_files_of_cells_are_the_runs(halted):
    grid, *_ = halted
    for cell in grid.cells:
        assert load_config(cell.run_file) == cell.config


def test_the_command_reads_a_finished_grid_again(halted, capsys, monkeypatch):
    grid, result, *_ = halted
    monkeypatch.chdir(grid.base.workspace.parent)
    words = ["masks", "compare", "run.yaml", "--strategies", "token,whole_word", "--seeds", "2"]
    before = entries(Path())
    assert status_of([*words, "--out", "grid", "--json", "--show-private"]) == 0
    found = json.loads(capsys.readouterr().out)
    price = found.pop("price")
    assert (found.pop("schema"), found.pop("page")) == ("dpmlm.grid/1", "grid/compare.html")
    assert found == json.loads(json.dumps(result.to_json(private=True)))
    assert (price["charged_before"], price["to_charge"]) == (4, 0)
    assert status_of([*words, "--out", "grid"]) == 0
    told = capsys.readouterr().out
    assert "dpmlm runs select grid/small-token-seed3.yaml" in told
    assert entries(Path()) == before


def test_a_cell_that_fails_is_a_row_with_its_reason(halted, monkeypatch):
    grid, *_ = halted
    once = cells._run_cell

    def fails(grid, cell, run):
        if cell.setting["masking.strategy"] == "token" and cell.seed == grid.seeds[0]:
            raise UserError("step 3", "training diverged", "lower the rate")
        return once(grid, cell, run)

    monkeypatch.setattr(cells, "_run_cell", fails)
    result = run_grid(grid)
    assert [bool(row.failed) for row in result.rows] == [True, False, False, False]
    assert "training diverged" in result.text()
    assert "training diverged" in render(result)
    # The seed without all of its cells decides nothing.
    assert {one.seeds for one in result.findings()} == {1}
    monkeypatch.setattr(cells, "_run_cell", lambda *_: (_ for _ in ()).throw(
        UserError("everything", "fails", "mend it")))  # fmt: skip
    with pytest.raises(UserError, match="everything"):
        run_grid(grid)


def test_run_of_such_a_cell_says_so(halted, capsys):
    grid, *_ = halted
    before = entries(grid.base.workspace.parent)
    assert status_of(["run", str(grid.cells[0].run_file)]) == 2
    assert "looked at its planted secrets" in capsys.readouterr().err
    assert not (grid.cells[0].config.workspace / "audit").exists()
    assert entries(grid.base.workspace.parent) == before


def test_another_grid_in_the_folder_is_refused(halted):
    grid, *_ = halted
    run_file = grid.base.workspace.parent / "run.yaml"
    other = grid_of(run_file, [Axis("masking.ratio", (0.1, 0.2))], seeds=2, exposing=True)
    with pytest.raises(UserError, match="another grid"):
        other.claim()
    taken = grid_of(run_file, seeds=2, out=".")
    with pytest.raises(UserError, match="not empty"):
        taken.claim()


def test_a_corpus_with_charges_is_not_public(halted):
    grid, *_ = halted
    with pytest.raises(UserError, match="it is not public"):
        grid_of(grid.base.workspace.parent / "run.yaml", out="open", public=True)


def test_cells_with_figures_are_not_checked_again(halted, monkeypatch):
    monkeypatch.setattr(checks, "preflight", lambda *_, **__: pytest.fail("it was checked"))
    assert run_grid(halted[0]).rows == halted[1].rows


@pytest.mark.full
def test_a_grid_that_is_killed_goes_on_and_its_choice_becomes_a_release(tmp_path):
    run_file = begin(tmp_path, training__steps=8, training__checkpoint_minutes=0)
    words = ["runs", "sweep", str(run_file), "--set", "training.learning_rate=1e-3,5e-3"]
    words += ["--seeds", "2", "--out", str(tmp_path / "grid"), "--yes"]
    axes, overrides = axes_of([words[4]])
    grid = grid_of(run_file, axes, seeds=2, overrides=overrides)
    ledger = tmp_path / "ledger.jsonl"
    command = [sys.executable, "-m", "dpmlm.cli.main", *words]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and ledger.read_text().count('"kind":"charge"') < 12:
            time.sleep(0.02)
        process.kill()
    assert process.returncode == -9
    assert price_of(grid).charged == 2
    assert status_of(words) == 0
    kept = Ledger.open(ledger)
    assert [kept.committed_steps(run) for run in kept.run_ids] == [8] * 4
    assert not find_leaks(grid.folder, KNOWN_SENTENCE, tokens_of(grid, KNOWN_SENTENCE))
    files = [str(cell.run_file) for cell in grid.cells[:2]]
    assert status_of(["runs", "select", *files, "--epsilon", "0.5"]) == 0
    assert status_of(["run", files[0]]) in (0, 1)
    assert (grid.cells[0].config.workspace / "bundle").is_dir()


@pytest.mark.full
def test_tokens_with_marked_names_are_made_once_for_all_cells_that_mask_names(tmp_path):
    run_file = begin(tmp_path, audit__canaries=0, audit__verbatim_spans=0)
    axes = masking_axes(None, "token,entity", None)
    grid = grid_of(run_file, axes, seeds=2)
    result = run_grid(grid)
    assert [row.failed for row in result.rows] == [None] * 4
    made = {}
    for cell in grid.cells:
        sealed = (cell.config.workspace / "tokens" / "manifest.sealed").read_bytes()
        made.setdefault(cell.setting["masking.strategy"], set()).add(sealed)
    assert [len(found) for found in made.values()] == [1, 1]
    assert made["token"] != made["entity"]


@pytest.mark.parametrize(("device", "told"), [("cpu", True), ("cuda", False)])
def test_processor_seconds_are_told_where_a_processor_did_the_work(
    tmp_path, monkeypatch, device, told
):
    monkeypatch.setattr(cells, "best_device", lambda: device)
    monkeypatch.setattr(cells, "execute", lambda run, stages: None)
    run = SimpleNamespace(workspace=Workspace(tmp_path))
    assert (cells._train(run) is not None) == told
