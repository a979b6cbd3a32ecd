"""What of a run is rotated, and what it makes of a bundle whose recipients were changed."""

import base64
import json
import os
import shutil
from pathlib import Path

import pytest

from dpmlm.artifacts import canonical_json
from dpmlm.config import load_config
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.outcome import _intact
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.rotation import parse_change, rotate


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
