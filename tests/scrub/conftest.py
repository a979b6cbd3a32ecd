"""One loaded scrubber for the whole folder: loading takes seconds."""

import os
from pathlib import Path

import pytest

from dpmlm.scrub import Scrubber, load_policy
from dpmlm.scrub.engine import Analyzer


@pytest.fixture(scope="session")
def scrubber() -> Scrubber:
    return Scrubber(load_policy("default"))


@pytest.fixture(scope="session")
def analyzer() -> Analyzer:
    return Analyzer(load_policy("hipaa-safe-harbor"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = os.environ.get("DPMLM_DATA")
    if not folder or not Path(folder, "tab").is_dir():
        pytest.skip("DPMLM_DATA does not name the folder of the shared data")
    return Path(folder)
