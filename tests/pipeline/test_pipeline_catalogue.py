"""`dpmlm runs list`, `show` and `compare`: what lies on disk, whole or broken, without a key."""

import base64
import hashlib
import json
import os
import shutil
from datetime import UTC, datetime

import pytest
from small_stages import begin, run_stages

from dpmlm.canonical import digest
from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline.runs.catalogue import list_runs
from dpmlm.pipeline.runs.comparison import compare_runs
from dpmlm.pipeline.runs.entry import entry_of
from dpmlm.pipeline.runs.shown import show_run
from dpmlm.pipeline.workspace import SCHEMA, Workspace, deciding_settings
from dpmlm.release.inventory import release_digest
from dpmlm.release.verification import verify_bundle

pytestmark = pytest.mark.xdist_group("finished")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """An unfinished run."""
    folder = tmp_path_factory.mktemp("begun")
    rows = [{"id": f"d{n}", "text": f"note {n} " * 5, "author": f"p{n}"} for n in range(4)]
    run_stages(begin(folder, rows, name="begun"), "corpus")
    return folder


@pytest.fixture
def folder(finished, begun, tmp_path):
    """A finished run, an unfinished one, and something that is none."""
    shutil.copytree(finished[0], tmp_path / "a")
    shutil.copytree(begun, tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/run.json").write_text('{"scripts": {}}')
    return tmp_path


def test_runs_are_listed_without_a_key(folder):
    for keys in folder.rglob("keys"):
        shutil.rmtree(keys)
    listing = list_runs(folder)
    done, begun = listing.entries
    ledger = json.loads((folder / "a/work/bundle/ledger.json").read_text())
    assert (done.name, done.state, done.verdict, done.run_id) == (
        "small", "released", "PASS", ledger["run_id"],
    )  # fmt: skip
    assert 7.9 < done.epsilon <= 8
    assert (done.steps, done.stages["release"]) == (80, "finished")
    assert (begun.name, begun.state, begun.verdict, begun.stages) == (
        "begun", "unfinished", None, {"corpus": "finished"},
    )  # fmt: skip
    assert (begun.epsilon, begun.steps, begun.reached) == (8, 6, "corpus (finished)")
    assert "PASS" in listing.text()
    assert listing.to_json()["unreadable"] == []


def test_the_release_is_named_as_its_verification_does(finished):
    bundle = finished[0] / "work/bundle"
    signed = verify_bundle(bundle, finished[0] / "keys/trusted", now=datetime.now(UTC)).manifest
    found = entry_of(finished[0] / "work")
    assert found.release == release_digest(signed["files"])
    assert found.model_digest == signed["model_digest"]


def spoil(work, how: str) -> None:
    marker, bundle = work / "run.json", work / "bundle"
    if how == "run.json is half there":
        marker.write_text(marker.read_text()[:100])
    elif how == "run.json nests too deep":
        marker.write_text("[" * 100_000)
    elif how == "a setting was changed":
        marker.write_text(marker.read_text().replace('"seed":3', '"seed":4'))
    elif how == "the bundle is gone":
        shutil.rmtree(bundle)
    elif how == "the manifest is no JSON":
        (bundle / "manifest.dsse.json").write_text("{")
    elif how == "the manifest is another one":
        (bundle / "manifest.dsse.json").write_text('{"payload": "e30="}')
    elif how == "the statement is gone":
        (bundle / "statement.json").unlink()
    elif how == "the claim says less":
        text = (bundle / "statement.json").read_text()
        value = json.loads(text)
        (bundle / "statement.json").write_text(json.dumps({**value, "epsilon": 0.1}))
    elif how == "the plan is gone":
        (bundle / "plan.json").unlink()
    elif how == "the training is gone":
        (work / "training/manifest.sealed").unlink()
    elif how == "run.json is gone":
        marker.unlink()
    elif how == "run.json is a pipe":
        marker.unlink()
        os.mkfifo(marker)
    else:
        assert how == "the statement is a folder"
        (bundle / "statement.json").unlink()
        (bundle / "statement.json").mkdir()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("run.json is half there", "damaged"), ("run.json nests too deep", "damaged"),
        ("a setting was changed", "run.json was changed"), ("the bundle is gone", "is gone"),
        ("the manifest is no JSON", "damaged"), ("the manifest is another one", "damaged"),
        ("the claim says less", "not the file that"), ("the plan is gone", "No such file"),
        ("the training is gone", "gone or cut: training"), ("run.json is gone", "No such file"),
        ("run.json is a pipe", "damaged"),
        ("the statement is gone", "No such file"), ("the statement is a folder", "directory"),
    ],
)  # fmt: skip
def test_a_broken_workspace_is_listed_with_what_is_wrong(folder, how, says):
    spoil(folder / "a/work", how)
    broken, whole = list_runs(folder).entries
    assert broken.state == "broken"
    assert says in broken.problem
    assert whole.name == "begun"
    shown = show_run(folder / "a/work")
    assert says in shown.text()
    compared = compare_runs([folder / "a/work", folder / "b/work"])
    assert says in compared.text()


def signed_anew(bundle, name: str, **changes) -> None:
    """Change a file, and its digest in the manifest: nothing here looks at signatures."""
    value = json.loads((bundle / name).read_text()) | changes
    (bundle / name).write_text(json.dumps(value))
    manifest = json.loads((bundle / "manifest.dsse.json").read_text())
    statement = json.loads(base64.b64decode(manifest["payload"]))
    digest = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    statement["predicate"]["files"][name]["digest"] = f"sha256:{digest}"
    manifest["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (bundle / "manifest.dsse.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("statement.json", {"sentence": ["a"]}), ("statement.json", {"epsilon": "8\nforged"}),
        ("statement.json", {"epsilon": True}), ("statement.json", {"unit": "\x1b[2J"}),
        ("ledger.json", {"run_id": 7}), ("decision.json", {"rules": [{"id": 1, "status": "a"}]}),
        ("decision.json", {"rules": 3}), ("evidence.json", {"subjects": {"target": 3}}),
    ],
)  # fmt: skip
def test_values_of_other_kinds_are_damage_and_reach_no_terminal(folder, name, changes):
    signed_anew(folder / "a/work/bundle", name, **changes)
    works = [folder / "a/work", folder / "b/work"]
    shown = show_run(works[0])
    assert shown.entry.state == "broken"
    for text in (shown.text(), compare_runs(works).text(), list_runs(folder).text()):
        assert "forged" not in text
        assert "\x1b" not in text
    assert "it is damaged" in compare_runs(works).text()


def test_odd_names_are_spelled_out(tmp_path):
    odd = tmp_path / "a\nsmall  PASS\x1b[1m"
    (odd / "corpus").mkdir(parents=True)
    (odd / "run.json").write_text(
        json.dumps({"schema": SCHEMA, "name": "n", "settings": {"a": "b\nc"}, "digest": "0"})
    )
    for text in (list_runs(tmp_path).text(), show_run(odd).text(), compare_runs([odd] * 2).text()):
        assert "\x1b" not in text
        assert "\nsmall" not in text
        assert "\\nsmall" in text


def test_a_bundle_alone_is_no_run(finished, tmp_path):
    shutil.copytree(finished[0] / "work/bundle", tmp_path / "bundle")
    assert list_runs(tmp_path).entries == []


def test_a_run_is_shown_by_workspace_and_by_run_file(finished):
    folder, result = finished
    by_file, by_folder = show_run(folder / "run.yaml"), show_run(folder / "work")
    assert by_file == by_folder
    assert by_file.claim == result.public["statement"]["sentence"]
    assert by_file.plan["noise_multiplier"] == result.public["plan"]["noise_multiplier"]
    assert by_file.audit == result.public["audit"]
    assert set(by_file.rules.values()) == {"pass"}
    assert by_file.private is None
    assert "label" not in by_file.to_json()


def test_private_figures_take_a_key(finished):
    folder, result = finished
    shown = show_run(folder / "run.yaml", private=True)
    assert shown.private["label"] == "private"
    assert shown.private["evaluation"] == result.private["evaluation"]
    assert shown.private["corpus"] == result.private["corpus"]
    assert "perplexity" in shown.text()
    with pytest.raises(UserError, match="--identity"):
        show_run(folder / "work", private=True)
    with pytest.raises(UserError, match="only the keys"):
        show_run(folder / "work", private=True, identity=folder / "keys/consumer.key")


def test_runs_are_compared_by_what_differs(folder):
    changed = load_config(folder / "a/run.yaml", {"seed": 9, "training.steps": 5, "name": "other"})
    Workspace(folder / "d").claim("other", deciding_settings(changed))
    found = compare_runs([folder / "a/run.yaml", folder / "d"])
    assert found.settings == {"seed": [3, 9], "training.steps": [80, 5]}
    assert found.claim["verdict"] == ["PASS", None]
    assert found.audit["power"] == ["shown", None]
    assert found.plan["steps"] == [80, None]
    assert found.private is None
    table = found.text().splitlines()
    assert [line.split() for line in table if "training.steps" in line] == [
        ["training.steps", "80", "5"]
    ]
    both = compare_runs([folder / "a/run.yaml"] * 2, private=True)
    assert both.settings == {}
    assert both.private["after.top1"][0] == both.private["after.top1"][1]
    assert both.private["overfitting.loss"][0] == both.private["overfitting.loss"][1] is not None
    assert "runs select" in both.text()
    with pytest.raises(UserError, match="fields of a run file"):
        compare_runs([folder / "d", folder / "a/run.yaml"], {"workspace": "elsewhere"})


def test_what_is_no_run(tmp_path):
    assert list_runs(tmp_path).entries == []
    assert "no run below" in list_runs(tmp_path).text()
    with pytest.raises(UserError, match="no such folder"):
        list_runs(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no run in"):
        show_run(tmp_path)
    with pytest.raises(UserError, match="two or more"):
        compare_runs([tmp_path])


def test_sources_that_were_left_out_are_counted_and_not_named(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "a")
    marker = tmp_path / "a/work/run.json"
    told = json.loads(marker.read_text())
    told["settings"]["training"]["leave_out"] = ["ward-7-psychiatry.jsonl"]
    told["digest"] = digest(told["settings"])
    marker.write_text(json.dumps(told))
    shown = show_run(tmp_path / "a/work")
    assert shown.settings["training"]["leave_out"] == "1 of its files"
    both = compare_runs([tmp_path / "a/work", begun / "work"])
    assert "ward-7" not in both.text() + json.dumps(both.to_json())
    assert "1 of its files" in both.text()
    opened = show_run(tmp_path / "a/work", identity=begun / "keys/trainer.key", private=True)
    assert opened.settings["training"]["leave_out"] == ["ward-7-psychiatry.jsonl"]
