"""Releases outside the workspace are told: each line of the log, each version of a registry."""

import shutil

import pytest

from dpmlm.artifacts import load_signing_key
from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline.runs.affected import affected
from dpmlm.pipeline.runs.handed_out import handed_out
from dpmlm.pipeline.workspace import Workspace, deciding_settings
from dpmlm.release.log.reading import read_log
from dpmlm.release.registry.local import Registry

pytestmark = pytest.mark.xdist_group("finished")


@pytest.fixture(scope="module")
def made(finished, tmp_path_factory):
    """A finished run's folder with its release in a registry, and its id."""
    folder = tmp_path_factory.mktemp("handed") / "run"
    shutil.copytree(finished[0], folder)
    key = load_signing_key(folder / "keys/sign.key")
    registry = Registry(folder / "models", trusted_keys=folder / "keys/trusted", signing_key=key)
    for name in ("notes", "other"):
        registry.add(folder / "work/bundle", name)
    registry.promote("notes", 1, "champion")
    return folder, read_log(folder / "releases.log", None).entries[0]


def test_ledger_log_and_registry_are_all_named(made):
    folder, entry = made
    outside = handed_out(load_config(folder / "run.yaml"), folder / "models")
    (one,), (sentence,) = outside.releases, outside.sentences(entry["run_id"])
    assert outside.charged == [entry["run_id"]]
    assert (one["run_id"], one["release"]) == (entry["run_id"], entry["release"])
    assert (one["verdict"], one["created"]) == (entry["verdict"], entry["created"])
    assert one["log"] == 1
    assert one["registered"] == ["notes/1 @champion", "other/1"]
    for part in (entry["release"], "line 1 of the log", "notes/1 @champion", "other/1"):
        assert part in sentence
    assert "that were not looked into" in outside.sentences(None)[0]


def test_of_a_run_of_another_name_there_is_nothing(made):
    folder, _ = made
    config = load_config(folder / "run.yaml", {"name": "another"})
    outside = handed_out(config, folder / "models")
    assert (outside.releases, outside.charged, outside.sentences(None)) == ([], [], [])


def test_a_broken_log_is_said_and_does_not_hide_the_registry(made, tmp_path):
    folder, entry = made
    shutil.copytree(folder, tmp_path / "run")
    config = load_config(tmp_path / "run/run.yaml")
    config.release.log.write_bytes(b"{}\n")
    config.ledger.path.write_bytes(b"{}\n")
    outside = handed_out(config, tmp_path / "run/models")
    (one,), said = outside.releases, outside.sentences(entry["run_id"])
    assert one["log"] is None
    assert "notes/1" in said[0]
    assert "the ledger was not read" in said[1]
    assert "the log was not read" in said[2]


@pytest.mark.parametrize("gone", ["work", "work/corpus"])
def test_a_run_whose_workspace_was_removed_is_not_called_unaffected(made, tmp_path, gone):
    folder, entry = made
    shutil.copytree(folder, tmp_path / "run")
    config = load_config(tmp_path / "run/run.yaml")
    shutil.rmtree(tmp_path / "run" / gone)
    (run,) = affected([config], "person 3", registry=tmp_path / "run/models").runs
    assert run.answer == "unknown"
    assert run.short()["releases"][0]["registered"] == ["notes/1 @champion", "other/1"]
    assert any(entry["run_id"] in sentence for sentence in run.why)
    assert any("notes/1 @champion" in sentence for sentence in run.why)
    # Any one of the three is enough.
    config.ledger.path.unlink()
    config.release.log.unlink()
    assert affected([config], "person 3", registry=folder / "models").runs[0].answer == "unknown"
    (run,) = affected([config], "person 3").runs
    if gone == "work":
        assert (run.answer, "nothing was read yet" in run.why[0]) == ("not affected", True)
    else:
        assert (run.answer, "stages made from it" in run.why[0]) == ("unknown", True)


def test_an_earlier_run_of_the_name_is_said_beside_the_one_at_hand(made, tmp_path):
    folder, entry = made
    config = load_config(folder / "run.yaml", {"workspace": str(tmp_path / "work2"), "seed": 4})
    Workspace(config.workspace).claim(config.name, deciding_settings(config))
    (run,) = affected([config], "person 3").runs
    assert run.answer == "unknown"
    assert [one["run_id"] for one in run.releases] == [entry["run_id"]]


def test_a_folder_that_is_no_registry_is_refused_first(made, tmp_path):
    folder, _ = made
    for place in (tmp_path, tmp_path / "nope"):
        config = load_config(folder / "run.yaml", {"workspace": str(tmp_path / "none")})
        with pytest.raises(UserError):
            affected([config], "person 3", registry=place)
