"""An unfinished stage begun from other inputs, and what a manifest says of its making."""

import json
from dataclasses import replace

import pytest
from small_run import draw_keys, write_corpus, write_run_file

from dpmlm.artifacts import SealedFolder, load_identity
from dpmlm.config import load_config
from dpmlm.corpus import read_shards, write_shards
from dpmlm.errors import UserError
from dpmlm.pipeline import stages
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.models import CONTROL, TRAINING, open_ledger, planned
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_until
from dpmlm.pipeline.stages import Stage, execute
from dpmlm.telemetry import Sinks


@pytest.fixture(scope="module")
def planned_run(tmp_path_factory) -> Run:
    """A run whose plan is made and whose training has not begun; nothing is written twice."""
    folder = tmp_path_factory.mktemp("planned")
    write_corpus(folder)
    write_run_file(folder, privacy__accountant="rdp")
    draw_keys(folder)
    config = load_config(folder / "run.yaml")
    execute_until(config, "plan")
    return Run.load(config, Progress(quiet=True))


def sealed(run: Run, stage: str) -> SealedFolder:
    return SealedFolder.open_or_create(
        run.workspace.stage(stage), [run.identity], run.own, role=stage
    )


def test_rows_of_a_broken_file_do_not_outlive_its_mending(small):
    write_run_file(small, privacy__accountant="rdp", privacy__units=4000, privacy__delta=1e-5)
    rows = [
        json.dumps({"id": f"d{n}", "text": f"note {n} of the orchard", "author": f"p{n}"})
        for n in range(2500)
    ]
    (small / "private.jsonl").write_text("\n".join([*rows[:2400], "{broken", *rows[2401:]]) + "\n")
    with pytest.raises(UserError, match="2401"):
        execute_until(load_config(small / "run.yaml"), "corpus")
    (small / "private.jsonl").write_text("\n".join(rows[1:]) + "\n")
    execute_until(load_config(small / "run.yaml"), "corpus")
    folder = SealedFolder.open(small / "work/corpus", [load_identity(small / "keys/trainer.key")])
    found = [document["text"] for document in read_shards(folder)]
    assert found == [json.loads(row)["text"] for row in rows[1:]]


def stage_of(number: int, *, fail: bool) -> Stage:
    """A stage whose one shard and one subfolder say from which settings they were made."""

    def build(run, folder, report):
        write_shards(folder, [{"made from": number}])
        beside = folder.path / "beside"
        if not beside.exists():
            beside.mkdir()
            (beside / "note").write_text(str(number))
        if fail:
            raise UserError("it", "stops here", "mend it")
        return {}

    return Stage(f"odd{fail}", (), lambda run: {"number": number}, build)


@pytest.mark.parametrize("again", [1, 2])
def test_an_unfinished_stage_goes_on_with_its_own_key_alone(planned_run, again):
    name = f"odd-{again}"
    for number, fail in ((1, True), (again, False)):
        stage = replace(stage_of(number, fail=fail), name=name)
        try:
            execute(planned_run, [stage])
        except UserError:
            assert fail
        else:
            assert not fail
        if fail:
            stamp = (planned_run.workspace.stage(name) / "documents-00000.sealed").stat()
    folder = sealed(planned_run, name)
    assert list(read_shards(folder)) == [{"made from": again}]
    assert (folder.path / "beside/note").read_text() == str(again)
    after = (folder.path / "documents-00000.sealed").stat()
    assert (after.st_mtime_ns == stamp.st_mtime_ns) is (again == 1)


def test_a_stage_that_stops_is_told_to_be_over(planned_run):
    """A file of figures outlives the process, and alerts ask which stage is at work."""

    class Told(list):
        def gauge(self, name, value, **labels):
            self.append((name, value, labels["stage"]))

    told = Told()
    run = replace(planned_run, sinks=Sinks({"textfile": told}))
    with pytest.raises(UserError, match="stops here"):
        execute(run, [replace(stage_of(1, fail=True), name="stopped")])
    assert told == [("stage", 1, "stopped"), ("stage", 0, "stopped")]


def test_a_kill_while_a_stage_is_emptied_leaves_nothing_to_mix(planned_run, monkeypatch):
    with pytest.raises(UserError):
        execute(planned_run, [replace(stage_of(1, fail=True), name="emptied")])

    class Killed(Exception):
        pass

    real, removed = SealedFolder.remove, []

    def one_file(folder, name):
        if removed:
            raise Killed
        real(folder, name)
        removed.append(name)

    monkeypatch.setattr(SealedFolder, "remove", one_file)
    with pytest.raises(Killed):
        execute(planned_run, [replace(stage_of(2, fail=False), name="emptied")])
    monkeypatch.undo()
    left = sealed(planned_run, "emptied")
    assert left.names() == ["documents-00000"]
    # Back to the first settings: what is left of them may lack parts, so it is made anew.
    stamp = (left.path / "documents-00000.sealed").stat().st_mtime_ns
    execute(planned_run, [replace(stage_of(1, fail=False), name="emptied")])
    assert (left.path / "documents-00000.sealed").stat().st_mtime_ns != stamp


def test_the_control_forgets_checkpoints_of_other_public_text(planned_run):
    folder = sealed(planned_run, "control")
    folder.write_json(stages.BEGUN, {"key": "sha256:other", "code": stages.code_digest()})
    old = folder.path / "checkpoints" / "step-00000006"
    old.mkdir(parents=True)
    seen = []

    def build(run, folder, report):
        seen.append(old.exists())
        raise UserError("it", "stops here", "mend it")

    with pytest.raises(UserError, match="stops here"):
        execute(planned_run, [replace(CONTROL, build=build)])
    assert seen == [False]


def test_a_charged_training_is_not_begun_anew_from_something_else(planned_run):
    plan, run_id = planned(planned_run)
    folder = sealed(planned_run, "training")
    folder.write_json(stages.BEGUN, {"key": "sha256:other", "code": stages.code_digest()})
    (folder.path / "checkpoints" / "step-00000001").mkdir(parents=True)
    ledger = open_ledger(planned_run.config.ledger)
    ledger.reserve(run_id, plan)
    ledger.charge(run_id, ledger.begin_attempt(run_id), 0)
    before = sorted(folder.path.rglob("*"))
    with pytest.raises(UserError, match="steps are charged"):
        execute(planned_run, [TRAINING])
    assert sorted(folder.path.rglob("*")) == before


def test_a_manifest_names_its_settings_its_inputs_and_its_code(planned_run):
    manifests = {name: planned_run.folder(name).manifest for name in ("corpus", "scrub", "plan")}
    assert manifests["corpus"]["inputs"] == {}
    assert manifests["scrub"]["inputs"] == {"corpus": planned_run.folder("corpus").digest}
    assert len({manifest["config"] for manifest in manifests.values()}) == 3
    for manifest in manifests.values():
        assert manifest["config"].startswith("sha256:")
        assert manifest["code"] == stages.code_digest()
        assert manifest["version"]


def test_the_code_digest_is_of_the_source_files_alone(tmp_path):
    package = tmp_path / "package"
    (package / "__pycache__").mkdir(parents=True)
    (package / "one.py").write_text("a = 1\n")
    first = stages.tree_digest([package])
    (package / "__pycache__/one.cpython-311.pyc").write_bytes(b"compiled")
    assert stages.tree_digest([package]) == first
    (package / "one.py").write_text("a = 2\n")
    second = stages.tree_digest([package])
    (package / "one.py").rename(package / "two.py")
    assert len({first, second, stages.tree_digest([package])}) == 3


def test_other_code_is_said_once_and_goes_on(planned_run, monkeypatch, capsys):
    monkeypatch.setattr(stages, "code_digest", lambda: "sha256:" + "f" * 64)
    speaking = replace(planned_run, progress=Progress())
    from dpmlm.pipeline.data import data_stages

    execute(speaking, data_stages(speaking.config)[:3])
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "other code" in line]) == 1
    assert len([line for line in lines if "done before" in line]) == 3
