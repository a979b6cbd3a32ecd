import os
import shutil

import pytest
from filelock import FileLock
from hypothesis import settings
from small_run import PASSING, draw_keys, write_corpus, write_run_file

from dpmlm.config import load_config

# The same examples on every machine, however loaded it is; helpers/fuzzing.py has its own seeds.
settings.register_profile("dpmlm", derandomize=True, deadline=None)
settings.load_profile("dpmlm")


def pytest_addoption(parser):
    parser.addoption(
        "--write-docs", action="store_true", help="write tables of docs/ from what tests measure"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Put the group behind each test's id, by which pytest-xdist keeps a group on one worker.

    pytest-xdist 3.8 does so itself, but pytest 9.2 keeps ids elsewhere (pytest-xdist issue 1386).
    """
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        group = item.get_closest_marker("xdist_group")
        if group and not item.nodeid.endswith(f"@{group.args[0]}"):
            item._id = type(item._id).parse(f"{item.nodeid}@{group.args[0]}")


@pytest.fixture
def small(tmp_path):
    """A folder with corpus, run file, keys and ledger, not run yet."""
    write_corpus(tmp_path)
    write_run_file(tmp_path)
    draw_keys(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The same after one run; tests copy it before they change anything.

    One worker makes it; a worker outside the group "finished" copies it.
    """
    from dpmlm.pipeline.run import execute_run

    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished-run"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            made = tmp_path_factory.mktemp("making")
            write_corpus(made)
            write_run_file(made, **PASSING)
            draw_keys(made)
            execute_run(load_config(made / "run.yaml"))
            made.rename(shared)
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(shared, folder, dirs_exist_ok=True)
    return folder, execute_run(load_config(folder / "run.yaml"))
