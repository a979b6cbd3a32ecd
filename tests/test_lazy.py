"""Names imported on first use: what a type checker reads is what a program gets."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

PACKAGES = ("dpmlm", "dpmlm.artifacts", "dpmlm.release", "dpmlm.scrub")


@pytest.mark.parametrize("package", PACKAGES)
def test_names_for_the_type_checker_are_those_found(package):
    module = import_module(package)
    tree = ast.parse(Path(module.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    pairs = {(line.module, alias.name) for line in block.body for alias in line.names}
    assert pairs
    for home, name in pairs:
        assert name in module.__all__
        assert getattr(module, name) is getattr(import_module(home), name)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_found_and_no_other(package):
    module = import_module(package)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing
