from pathlib import Path

import pytest

from dpmlm.privacy import Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return Ledger.register(path, epsilon=16, delta=1e-5, corpus="posts")
