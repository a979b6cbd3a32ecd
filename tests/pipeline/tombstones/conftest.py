"""A corpus with its run file, keys and ledger."""

import shutil

import pytest
from forgotten_rows import rows
from small_stages import begin

from dpmlm.config import load_config


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Corpus, run file, keys and ledger."""
    folder = tmp_path_factory.mktemp("base")
    begin(folder, rows())
    return folder


@pytest.fixture
def config(base, tmp_path):
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    return load_config(tmp_path / "run.yaml")
