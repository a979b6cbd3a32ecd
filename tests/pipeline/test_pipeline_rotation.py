"""What of a run is rotated, and what it makes of a bundle whose recipients were changed."""

import base64
import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from dpmlm.artifacts import canonical_json, create_keys, load_recipient, load_signing_key
from dpmlm.config import load_config
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.openers import tell_changed_openers
from dpmlm.pipeline.outcome import _intact
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.rotation import parse_change, rotate
from dpmlm.pipeline.run import execute_run


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Run:
    """A finished run of a copy; the current folder."""
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    monkeypatch.chdir(folder)
    return Run.load(load_config(folder / "run.yaml"), Progress(quiet=True))


def test_a_bundle_with_a_changed_wrapped_key_is_not_intact(run):
    release, listing = run.folder("release"), Path("work/bundle/model/recipients.json")
    assert _intact(run, release)
    fields = json.loads(listing.read_bytes())
    wrapped = bytearray(base64.b64decode(fields["recipients"][-1]["wrapped"]))
    wrapped[9] ^= 1
    fields["recipients"][-1]["wrapped"] = base64.b64encode(wrapped).decode()
    listing.write_bytes(canonical_json(fields) + b"\n")
    assert not _intact(run, release)
    listing.unlink()
    assert not _intact(run, release)


def test_a_released_model_is_found_as_its_bundle_and_drafts_are_not_found(run):
    shutil.copytree("work/bundle/model", "work/.bundle.next.0a.partial/model")
    shutil.copytree("work/bundle", "work/bundle.former")
    nothing = parse_change([], [], [])
    done = rotate(
        [Path("work"), Path("work/bundle/model")], nothing, identities=["keys/trainer.key"]
    )
    bundles = [one.path for one in done.targets if one.kind == "bundle"]
    assert bundles == ["work/bundle", "work/bundle.former"]
    assert not any("partial" in one.path for one in done.targets)
    assert len({one.path for one in done.targets}) == len(done.targets)


def test_a_folder_that_cannot_be_looked_into_is_not_passed_over(run, monkeypatch):
    real = os.scandir

    def denied(path):
        if Path(path).name == "training":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PermissionError):
        rotate([Path("work")], parse_change([], [], []), identities=["keys/trainer.key"])


class Said(Progress):
    """What a run says, kept."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def warned(run: Run, *, passed: bool = True) -> list[str]:
    said = Said()
    active = dataclasses.replace(run, progress=said)
    tell_changed_openers(active, Path("work/bundle"), passed=passed)
    return said.lines


def test_a_run_names_those_whom_it_drops_from_the_bundle_that_it_replaces(run):
    assert warned(run) == []
    create_keys(Path("partner"), roles=["consumer"])
    rotate(
        [Path("work/bundle")],
        parse_change(["partner/consumer.pub"], [], []),
        identities=["keys/trainer.key"],
        signing_key="keys/sign.key",
    )
    added = load_recipient("partner/consumer.pub").key_id
    (line,) = warned(run)
    assert f"{added} (to keep it, add its .pub file to release.recipients)" in line
    assert not any(recipient.key_id in line for recipient in (*run.keepers, *run.consumers))
    # What another key signed, or nobody, is no ground for a warning.
    create_keys(Path("other"), roles=["trainer"])
    stranger = dataclasses.replace(run, signing=load_signing_key("other/sign.key"))
    assert warned(stranger) == []
    # The run file names both consumers now, and an auditor no more.
    tree = yaml.safe_load(Path("run.yaml").read_text())
    tree["release"]["recipients"].append("partner/consumer.pub")
    tree["release"]["auditors"] = []
    Path("run.yaml").write_text(yaml.safe_dump(tree))
    (line,) = warned(Run.load(load_config("run.yaml"), Progress(quiet=True)))
    auditor = load_recipient("keys/auditor.pub").key_id
    assert line.count(" (to keep it") == 1
    assert f"{auditor} (to keep it, add its .pub file to release.auditors)" in line


def test_a_run_names_those_who_newly_can_open_the_bundle(run):
    create_keys(Path("thief"), roles=["consumer", "auditor"])
    consumer, auditor = (load_recipient(f"thief/{role}.pub").key_id for role in
                         ("consumer", "auditor"))  # fmt: skip
    tree = yaml.safe_load(Path("run.yaml").read_text())
    tree["release"]["recipients"].append("thief/consumer.pub")
    tree["release"].setdefault("auditors", []).append("thief/auditor.pub")
    Path("run.yaml").write_text(yaml.safe_dump(tree))
    changed = Run.load(load_config("run.yaml"), Progress(quiet=True))
    (line,) = warned(changed)
    assert line.endswith(
        f"newly open for {consumer} (of release.recipients), {auditor} (of release.auditors)"
    )
    (line,) = warned(changed, passed=False)  # then no consumer opens it
    assert line.endswith(f"newly open for {auditor} (of release.auditors)")


@pytest.mark.full
def test_the_warning_comes_before_the_bundle_is_replaced(run, capsys):
    create_keys(Path("partner"), roles=["consumer"])
    rotate(
        [Path("work/bundle")],
        parse_change(["partner/consumer.pub"], [], []),
        identities=["keys/trainer.key"],
        signing_key="keys/sign.key",
    )
    key_id = load_recipient("partner/consumer.pub").key_id
    assert execute_run(load_config("run.yaml")).verdict == "PASS"
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1
    assert key_id in said
    listed = json.loads(Path("work/bundle/model/recipients.json").read_bytes())["recipients"]
    assert key_id not in {one["key_id"] for one in listed}
    assert execute_run(load_config("run.yaml")).verdict == "PASS"
    assert "warning: " not in capsys.readouterr().err
