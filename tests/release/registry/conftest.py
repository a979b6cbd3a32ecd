"""Bundles and registries, each made once and copied."""

import shutil
from pathlib import Path

import pytest
from registries import again

from dpmlm.release import verify_bundle
from dpmlm.release.registry import passing
from dpmlm.release.registry.local import Registry

_KEPT: dict[str, Path] = {}

_VERIFIED: dict[tuple, object] = {}


@pytest.fixture
def kept(request, tmp_path_factory):
    """Bundles of this module by name, written once; nobody changes them."""
    if not _KEPT:
        write, facts = (request.getfixturevalue(name) for name in ("write", "facts"))
        folder = tmp_path_factory.mktemp("kept")
        _KEPT["bundle"] = write(folder / "bundle", facts)
        facts["training"]["near_duplicates"] = 0.7
        _KEPT["second"] = write(folder / "second", facts)
        _KEPT["failed"] = write(folder / "failed", facts, policy="public")
    return _KEPT


@pytest.fixture
def bundle(kept, tmp_path):
    """A bundle that passed."""
    return shutil.copytree(kept["bundle"], tmp_path / "bundle")


@pytest.fixture
def second(kept, tmp_path):
    """Another one."""
    return shutil.copytree(kept["second"], tmp_path / "second")


@pytest.fixture
def failed(kept):
    """One that did not pass."""
    return kept["failed"]


@pytest.fixture
def verified_once(monkeypatch):
    """The same bytes under the same keys are verified once: the gate is decided anew each time."""

    def verify(folder, trusted, *, now):
        content = (
            *(
                (str(path.relative_to(base)), path.is_symlink(), path.is_fifo() or _bytes(path))
                for base in (folder, trusted)
                for path in sorted(base.rglob("*"))
            ),
        )
        if not folder.is_dir() or content not in _VERIFIED:
            _VERIFIED[content] = verify_bundle(folder, trusted, now=now)
        return _VERIFIED[content]

    monkeypatch.setattr(passing, "verify_bundle", verify)


@pytest.fixture
def registry(tmp_path, keys):
    return Registry(tmp_path / "reg", trusted_keys=keys.trusted, signing_key=keys.signing)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.fixture
def held(registry, kept, bundle, second, keys):
    """A registry with two versions of notes, the first of them champion; made once, copied."""
    if "registry" not in kept:
        for one in (kept["bundle"], kept["second"]):
            registry.add(one, "notes")
        registry.promote("notes", 1, "champion")
        kept["registry"] = shutil.copytree(registry.folder, kept["bundle"].parent / "registry")
    shutil.copytree(kept["registry"], registry.folder, dirs_exist_ok=True)
    return again(registry, keys, signing_key=keys.signing)
