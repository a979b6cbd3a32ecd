"""Who may import whom (docs/architecture.md): each layer knows only those below it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BASE = {"errors", "canonical", "lazy"}
"""Modules of dpmlm that every package may import."""

ALLOWED = {
    "config": set(),
    "masking": set(),
    "privacy": set(),
    "artifacts": set(),
    "telemetry": {"artifacts"},
    "clipping": {"masking"},
    "evaluation": {"clipping", "masking"},
    "corpus": {"artifacts", "config"},
    "scrub": {"corpus", "artifacts", "config"},
    "dedup": {"corpus", "artifacts", "config"},
    "tokens": {"corpus", "artifacts", "config", "privacy"},
    "bench": {"clipping", "masking", "training", "privacy", "artifacts", "config"},
    "training": {
        "clipping", "privacy", "masking", "tokens", "artifacts", "config", "telemetry",
    },
    "release": {"artifacts", "privacy", "config", "audits"},
    "pipeline": {
        "config", "masking", "privacy", "artifacts", "clipping", "corpus", "scrub", "dedup",
        "tokens", "training", "bench", "release", "audits", "telemetry", "evaluation",
    },
    "cli": {
        "pipeline", "config", "artifacts", "privacy", "release", "scrub", "dedup", "clipping",
        "bench",
    },
}  # fmt: skip


def imports_of(source: str) -> set[str]:
    """Packages of this project that a module's imports name, wherever they stand in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            first, _, rest = name.partition(".")
            if first == "audits":
                found.add("audits")
            elif first == "dpmlm" and rest:
                found.add(rest.split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_only_what_lies_below_them(package):
    files = list((ROOT / "dpmlm" / package).rglob("*.py"))
    assert files
    for file in files:
        wrong = imports_of(file.read_text()) - ALLOWED[package] - BASE - {package}
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


def test_audits_import_nothing_of_dpmlm_but_its_artifacts():
    files = list((ROOT / "audits").rglob("*.py"))
    assert files
    for file in files:
        wrong = imports_of(file.read_text()) - {"artifacts", "audits"}
        assert not wrong, f"{file.relative_to(ROOT)} imports dpmlm.{sorted(wrong)}"


def test_every_package_has_a_rule():
    packages = {path.parent.name for path in (ROOT / "dpmlm").glob("*/__init__.py")}
    assert packages == set(ALLOWED)


def test_a_forbidden_import_is_found():
    assert imports_of("def f():\n    from dpmlm.training import train") == {"training"}
    assert imports_of("import audits.claim.gating") == {"audits"}
    assert imports_of("from dpmlm import training") == {"training"}


@pytest.mark.parametrize("package", ["pipeline", "pipeline/runs"])
def test_the_map_of_a_large_package_names_each_of_its_modules(package):
    folder = ROOT / "dpmlm" / package
    told = (folder / "__init__.py").read_text()
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {name for name in modules if f"`{name}`" not in told} == set()
