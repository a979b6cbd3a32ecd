"""Checkpoints: whole or not there, sealed, and of one plan."""

import shutil

import pytest
import torch
from torch import nn

from dpmlm.artifacts import SealedFolder, new_identity
from dpmlm.errors import IntegrityError, UserError
from dpmlm.training import Checkpoints, Progress, adamw, checkpoint

IDENTITY = new_identity()


def checkpoints(folder, plan="sha256:plan", identity=IDENTITY, **more) -> Checkpoints:
    return Checkpoints(folder / "checkpoints", identity, [identity.recipient], plan, **more)


def trained(steps=3, seed=0):
    """A small model with tied weights and the state of AdamW after some steps."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    optimizer = adamw(model, 0.1, 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def same(one, other) -> bool:
    (model, optimizer), (model2, optimizer2) = one, other
    state, state2 = optimizer.state_dict()["state"], optimizer2.state_dict()["state"]
    return (
        all(torch.equal(a, b) for a, b in zip(model.parameters(), model2.parameters()))
        and state.keys() == state2.keys()
        and all(torch.equal(state[i][key], state2[i][key]) for i in state for key in state[i])
    )


def names(folder) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_weights_optimizer_and_counters_come_back(tmp_path):
    events = [{"step": 1, "private": {"loss": 0.5}}]
    done, fresh = trained(), trained(steps=0, seed=1)
    checkpoints(tmp_path).save(*done, Progress(1, 2, events))
    assert not same(done, fresh)
    assert checkpoints(tmp_path).load(*fresh) == Progress(1, 2, events)
    assert same(done, fresh)
    assert fresh[0][2].weight is fresh[0][0].weight


def test_without_a_checkpoint_nothing_is_touched(tmp_path):
    model, optimizer = trained(seed=2)
    assert checkpoints(tmp_path).load(model, optimizer) is None
    assert same((model, optimizer), trained(seed=2))


def test_only_the_newest_is_kept(tmp_path):
    for step in (1, 2, 9, 10, 100):
        checkpoints(tmp_path).save(*trained(), Progress(step, 1, []))
        assert names(tmp_path) == [f"step-{step:08d}"]


class Killed(BaseException):
    pass


def killed_at(monkeypatch, place: str) -> None:
    """Die at the file of this name, before the manifest ("finish"), or after it got its name."""
    whole = SealedFolder.writer

    def writer(folder, name):
        if name == place:
            raise Killed
        return whole(folder, name)

    def die(*arguments):
        raise Killed

    monkeypatch.setattr(SealedFolder, "writer", writer)
    if place == "finish":
        monkeypatch.setattr(SealedFolder, "finish", die)
    if place == "named":
        named = checkpoint.place_folder
        monkeypatch.setattr(checkpoint, "place_folder", lambda *names: (named(*names), die()))


@pytest.mark.parametrize("place", ["weights", "optimizer", "state", "finish", "named"])
def test_an_unfinished_checkpoint_leaves_the_one_before_it(tmp_path, monkeypatch, place):
    checkpoints(tmp_path).save(*trained(1), Progress(1, 1, []))
    with monkeypatch.context() as patch:
        killed_at(patch, place)
        with pytest.raises(Killed):
            checkpoints(tmp_path).save(*trained(2), Progress(2, 1, []))
    fresh = trained(0)
    progress = checkpoints(tmp_path).load(*fresh)
    assert progress.step == (2 if place == "named" else 1)
    assert same(fresh, trained(progress.step))
    checkpoints(tmp_path).save(*trained(3), Progress(3, 2, []))
    assert checkpoints(tmp_path).load(*trained(0)) == Progress(3, 2, [])
    assert names(tmp_path) == ["step-00000003"]


def test_an_empty_folder_and_a_half_removed_older_one_are_no_hindrance(tmp_path):
    checkpoints(tmp_path).save(*trained(1), Progress(1, 1, []))
    older = tmp_path / "older"
    shutil.copytree(tmp_path / "checkpoints/step-00000001", older)
    checkpoints(tmp_path).save(*trained(2), Progress(2, 1, []))
    (older / "recipients.json").unlink()
    shutil.move(older, tmp_path / "checkpoints/step-00000001")
    (tmp_path / "checkpoints/unfinished").mkdir()
    assert checkpoints(tmp_path).load(*trained(0)) == Progress(2, 1, [])
    checkpoints(tmp_path).save(*trained(3), Progress(3, 1, []))
    assert names(tmp_path) == ["step-00000003"]


def test_another_plans_checkpoint_is_refused(tmp_path):
    checkpoints(tmp_path).save(*trained(), Progress(1, 1, []))
    model = trained(seed=2)
    with pytest.raises(IntegrityError, match="another privacy plan"):
        checkpoints(tmp_path, plan="sha256:other").load(*model)
    assert same(model, trained(seed=2))


@pytest.mark.parametrize("schema", [1, 3])
def test_another_schemas_checkpoint_is_refused_with_the_version_that_wrote_it(
    tmp_path, monkeypatch, schema
):
    monkeypatch.setattr(checkpoint, "SCHEMA", schema)
    monkeypatch.setattr(checkpoint, "version", lambda name: "7.5.3")
    checkpoints(tmp_path).save(*trained(), Progress(1, 1, []))
    monkeypatch.undo()
    fresh = trained(0)
    with pytest.raises(IntegrityError) as caught:
        checkpoints(tmp_path).load(*fresh)
    assert caught.value.rule == f"its schema is {schema}, this version reads 2"
    assert "the version that wrote it (7.5.3)" in caught.value.next_step
    assert same(fresh, trained(0))


def test_a_checkpoint_that_does_not_name_its_version_is_refused_too(tmp_path, monkeypatch):
    finish = SealedFolder.finish
    old = {"schema": 1, "plan": "sha256:plan", "step": 1}
    monkeypatch.setattr(SealedFolder, "finish", lambda folder, manifest: finish(folder, old))
    checkpoints(tmp_path).save(*trained(), Progress(1, 1, []))
    with pytest.raises(IntegrityError, match=r"its schema is 1.*an earlier version"):
        checkpoints(tmp_path).load(*trained(0))


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_so_many_are_kept(tmp_path, keep):
    steps = (1, 2, 9, 10, 100)
    for done, step in enumerate(steps, start=1):
        checkpoints(tmp_path, keep=keep).save(*trained(), Progress(step, 1, []))
        assert names(tmp_path) == [f"step-{one:08d}" for one in steps[max(0, done - keep) : done]]


@pytest.mark.parametrize("name", ["weights", "state", "manifest"])
def test_a_damaged_one_says_how_to_go_on_from_the_one_before(tmp_path, name):
    shelf = checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        shelf.save(*trained(step), Progress(step, 1, []))
    path = tmp_path / "checkpoints/step-00000002"
    data = bytearray((path / f"{name}.sealed").read_bytes())
    data[len(data) // 2] ^= 1
    (path / f"{name}.sealed").write_bytes(data)
    fresh = trained(0)
    with pytest.raises(IntegrityError) as caught:
        shelf.load(*fresh)
    assert f"move {path} away to go on from step-00000001" in caught.value.next_step
    assert same(fresh, trained(0))
    shutil.move(path, tmp_path / "away")
    assert shelf.load(*fresh) == Progress(1, 1, [])
    assert same(fresh, trained(1))


def test_no_way_back_is_promised_where_the_older_ones_fit_no_better(tmp_path):
    for step in (1, 2):
        checkpoints(tmp_path, keep=2).save(*trained(), Progress(step, 1, []))
    with pytest.raises(IntegrityError) as caught:
        checkpoints(tmp_path, plan="sha256:other").load(*trained(0))
    assert "move" not in caught.value.next_step


def test_what_is_prepared_is_written_as_it_was(tmp_path):
    model, optimizer = trained(2)
    events = [{"step": 1}]
    write = checkpoints(tmp_path).prepare(model, optimizer, Progress(2, 1, events))
    with torch.no_grad():
        for param in model.parameters():
            param.zero_()
    assert not (tmp_path / "checkpoints").exists()
    write()
    fresh = trained(0)
    assert checkpoints(tmp_path).load(*fresh) == Progress(2, 1, events)
    assert same(fresh, trained(2))


def test_a_local_folder_is_written_first_and_left_empty(tmp_path, monkeypatch):
    places, place = [], checkpoint.place_folder

    def noted(draft, target):
        places.append(target.relative_to(tmp_path).as_posix())
        place(draft, target)

    monkeypatch.setattr(checkpoint, "place_folder", noted)
    local = tmp_path / "local/run"
    checkpoints(tmp_path, local=local).save(*trained(2), Progress(2, 1, []))
    assert places == ["local/run/step-00000002", "checkpoints/step-00000002"]
    assert list(local.iterdir()) == []
    assert local.stat().st_mode & 0o077 == 0
    fresh = trained(0)
    assert checkpoints(tmp_path).load(*fresh) == Progress(2, 1, [])
    assert same(fresh, trained(2))


@pytest.mark.parametrize("place", ["copy", "named"])
def test_what_a_killed_process_sealed_locally_is_taken_up(tmp_path, monkeypatch, place):
    """Killed before the copy, or after it and before the local one was removed."""
    shelf = checkpoints(tmp_path, local=tmp_path / "local")
    shelf.save(*trained(1), Progress(1, 1, []))
    copy = Checkpoints._copy

    def killed(self, sealed):
        if place == "named":
            copy(self, sealed)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_copy", killed)
        with pytest.raises(Killed):
            shelf.save(*trained(2), Progress(2, 1, []))
    assert (tmp_path / "local/step-00000002").is_dir()
    shelf.take_up()
    assert list((tmp_path / "local").iterdir()) == []
    fresh = trained(0)
    assert shelf.load(*fresh) == Progress(2, 1, [])
    assert same(fresh, trained(2))


def test_what_lies_locally_is_no_part_of_what_a_later_attempt_left(tmp_path):
    """Attempt 1 sealed three steps here, attempt 2 drew the second one again elsewhere."""
    local = tmp_path / "local"
    local.mkdir()
    checkpoints(tmp_path / "other").save(*trained(3), Progress(3, 1, []))
    checkpoints(tmp_path).save(*trained(2), Progress(2, 2, []))
    shutil.move(tmp_path / "other/checkpoints/step-00000003", local / "step-00000003")
    checkpoints(tmp_path, local=local).take_up()
    assert names(tmp_path) == ["step-00000002"]
    assert list(local.iterdir()) == []


def test_what_lies_locally_is_the_way_on_from_a_damaged_one(tmp_path):
    local = tmp_path / "local"
    local.mkdir()
    checkpoints(tmp_path / "other").save(*trained(3), Progress(3, 1, []))
    checkpoints(tmp_path).save(*trained(2), Progress(2, 1, []))
    shutil.move(tmp_path / "other/checkpoints/step-00000003", local / "step-00000003")
    damaged = tmp_path / "checkpoints/step-00000002"
    state = damaged / "state.sealed"
    state.write_bytes(state.read_bytes()[:-1])
    shelf = checkpoints(tmp_path, local=local)
    with pytest.raises(IntegrityError) as caught:
        shelf.take_up()
    assert f"move {damaged} away to go on from step-00000003" in caught.value.next_step
    assert (local / "step-00000003").is_dir()
    shutil.move(damaged, tmp_path / "away")
    shelf.take_up()
    assert shelf.load(*trained(0)) == Progress(3, 1, [])


def test_one_that_was_renamed_is_none(tmp_path):
    """As somebody does who goes on from the one before."""
    shelf = checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        shelf.save(*trained(step), Progress(step, 1, []))
    folder = tmp_path / "checkpoints"
    (folder / "step-00000002").rename(folder / "step-00000002.bad")
    assert checkpoint.last_step(folder) == 1
    assert shelf.load(*trained(0)) == Progress(1, 1, [])


def test_of_what_lies_locally_an_older_one_goes_and_a_damaged_one_is_refused(tmp_path):
    local = tmp_path / "local"
    checkpoints(tmp_path / "other").save(*trained(1), Progress(1, 1, []))
    checkpoints(tmp_path).save(*trained(2), Progress(2, 1, []))
    local.mkdir()
    shutil.move(tmp_path / "other/checkpoints/step-00000001", local / "step-00000001")
    (local / "unfinished").mkdir()
    checkpoints(tmp_path, local=local).take_up()
    assert [path.name for path in local.iterdir()] == ["unfinished"]
    assert names(tmp_path) == ["step-00000002"]
    checkpoints(tmp_path / "third").save(*trained(3), Progress(3, 1, []))
    shutil.move(tmp_path / "third/checkpoints/step-00000003", local / "step-00000003")
    weights = local / "step-00000003/weights.sealed"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(IntegrityError) as caught:
        checkpoints(tmp_path, local=local).take_up()
    assert f"move {weights.parent} away to go on from step-00000002" in caught.value.next_step
    assert names(tmp_path) == ["step-00000002"]


def test_a_checkpoint_whose_manifest_is_gone_is_refused_and_not_passed_over(tmp_path):
    checkpoints(tmp_path).save(*trained(), Progress(1, 1, []))
    (tmp_path / "checkpoints/step-00000001/manifest.sealed").unlink()
    with pytest.raises(IntegrityError):
        checkpoints(tmp_path).load(*trained(0))


def test_another_models_checkpoint_is_refused(tmp_path):
    checkpoints(tmp_path).save(*trained(), Progress(1, 1, []))
    other = nn.Linear(4, 4)
    with pytest.raises(IntegrityError, match="not this model's"):
        checkpoints(tmp_path).load(other, adamw(other, 0.1, 0.0))


@pytest.mark.parametrize("name", ["weights", "optimizer", "state", "manifest"])
def test_a_changed_byte_is_found(tmp_path, name):
    checkpoints(tmp_path).save(*trained(), Progress(1, 1, []))
    path = tmp_path / f"checkpoints/step-00000001/{name}.sealed"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=rf"{name}\.sealed"):
        checkpoints(tmp_path).load(*trained(0))


def test_it_is_sealed_to_the_trainer(tmp_path):
    model, optimizer = trained()
    checkpoints(tmp_path).save(model, optimizer, Progress(1, 1, [{"private": "figure"}]))
    weight = model[0].weight.detach().numpy().tobytes()
    for path in (tmp_path / "checkpoints").rglob("*"):
        if path.is_file():
            assert weight not in path.read_bytes()
            assert b"figure" not in path.read_bytes()
    with pytest.raises(UserError):
        checkpoints(tmp_path, identity=new_identity()).load(model, optimizer)
