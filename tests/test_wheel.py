"""The built wheel holds all that the code reads at run time, and nothing of the tests."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("wheel")

ROOT = Path(__file__).parents[1]
PROBE = """
import json, sys
from importlib.resources import files
from pathlib import Path
import audits, dpmlm, policies
from dpmlm.cli.main import status_of
from dpmlm.release import load_policy as release_policy
from dpmlm.scrub import Scrubber, load_policy
from dpmlm.scrub.policy import shipped_policies

text = "Ask Maria Gonzalez, maria@example.org, on Tuesday."
scrubbed = Scrubber(load_policy("default")).scrub(text)
print(json.dumps({
    "from": [str(Path(module.__file__).parent) for module in (audits, dpmlm, policies)],
    "scrub": shipped_policies(),
    "release": release_policy("internal").policy,
    "scrubbed": scrubbed.text,
    "report": len(files("dpmlm.release.report").joinpath("page.html.j2").read_text()),
    "card": len(files("dpmlm.release.report").joinpath("card.md.j2").read_text()),
    "init": status_of(["init", "fresh"]),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of a copy of the sources, built without a network."""
    build = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, build)
    for name in ("dpmlm", "audits", "policies", "tests"):
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, build / name, ignore=skipped)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", "."]
    done = subprocess.run(command, cwd=build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = (build / "out").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel installed in it and nothing else."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True)
    return target


@pytest.mark.full
def test_the_installed_wheel_finds_policies_model_and_templates(site, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P", "-c", PROBE]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert all(Path(place).is_relative_to(site) for place in found["from"]), found["from"]
    assert {"default", "hipaa-safe-harbor"} <= set(found["scrub"])
    assert found["release"].startswith("internal")
    assert "Gonzalez" not in found["scrubbed"]
    assert "maria@example.org" not in found["scrubbed"]
    assert found["report"] > 1000
    assert found["card"] > 100
    assert found["init"] == 0
    assert (tmp_path / "fresh/run.yaml").is_file()
    assert (tmp_path / "fresh/keys/trainer.key").is_file()


def test_the_console_script_is_there(site):
    (entry,) = site.glob("dpmlm_framework-*.dist-info/entry_points.txt")
    assert "dpmlm = dpmlm.cli.main:main" in entry.read_text()


def test_the_wheel_holds_every_package_and_no_test(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "audits",
        "dpmlm",
        "policies",
    }
    for package in (path for path in (ROOT / "dpmlm").iterdir() if (path / "__init__.py").exists()):
        assert f"dpmlm/{package.name}/__init__.py" in names
    assert sum(zipfile.ZipFile(wheel).getinfo(name).file_size for name in names) < 16 << 20
