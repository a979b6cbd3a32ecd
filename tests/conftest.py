import pytest
from small_run import PASSING, write_corpus, write_run_file

from dpmlm.config import load_config
from dpmlm.pipeline.start import initialise


@pytest.fixture
def small(tmp_path):
    """A folder with corpus, run file, keys and ledger, not run yet."""
    write_corpus(tmp_path)
    write_run_file(tmp_path)
    initialise(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The same after one run; tests copy it before they change anything."""
    from dpmlm.pipeline.run import execute_run

    folder = tmp_path_factory.mktemp("finished")
    write_corpus(folder)
    write_run_file(folder, **PASSING)
    initialise(folder)
    result = execute_run(load_config(folder / "run.yaml"))
    return folder, result
