"""Every call that changes the disk while a bundle is written fails once, or is the last.

After each of them the bundle is there whole, or not at all; where it takes the place of another,
as in a run that makes its release again, one of the two is there whole.
"""

import shutil

import pytest
from faults import MODES, Faults, Killed

from dpmlm.artifacts.atomic import replace_folder, settle_folder
from dpmlm.errors import UserError

FULL = pytest.mark.full


@pytest.fixture
def quickly(monkeypatch):
    """Accounts are counted once: they write nothing, and are not what is tested here."""
    monkeypatch.setattr("dpmlm.release.bundle.contradictions", lambda *_: [])


def state(folder, check):
    """`absent`, or the title of the page of a bundle that verifies."""
    if not folder.exists():
        return "absent"
    found = check(folder)
    assert found.ok, found.findings
    return (folder / "report.html").read_text()


def failing(work, nth, mode):
    """Whether there was an n-th call."""
    faults = Faults(nth, mode)
    try:
        with faults:
            work()
    except (Killed, OSError, UserError):
        assert faults.reached
    return faults.reached


def page(word):
    return f"<!doctype html><title>{word}</title>"


def calls_of(work):
    """How many calls `work` makes that change the disk."""
    faults = Faults()
    with faults:
        work()
    return len(faults.calls)


RUNS = [
    pytest.param("kill", False, id="kill-some"),
    pytest.param("EIO", False, id="EIO-some", marks=FULL),
    *(pytest.param(mode, True, id=mode, marks=FULL) for mode in MODES),
]


@pytest.mark.parametrize(("mode", "every"), RUNS)
@pytest.mark.usefixtures("quickly")
def test_a_bundle_is_written_whole_or_not_at_all(tmp_path, write, facts, check, mode, every):
    count = calls_of(lambda: write(tmp_path / "counted", facts, report_html=page("new")))
    assert count > 40
    for nth in range(1, count + 2) if every else (count // 2, count - 1, count):
        folder = tmp_path / str(nth) / "bundle"
        folder.parent.mkdir()
        reached = failing(lambda f=folder: write(f, facts, report_html=page("new")), nth, mode)
        assert reached == (nth <= count)
        found = state(folder, check)
        assert found in (("absent", page("new")) if nth <= count else (page("new"),)), nth
        if mode in ("EIO", "ENOSPC"):
            left = [path.name for path in folder.parent.iterdir()]
            assert left == ([] if found == "absent" else ["bundle"]), nth


@pytest.mark.full
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("quickly")
def test_a_bundle_that_takes_the_place_of_another_is_the_old_or_the_new(
    tmp_path, write, facts, check, mode
):
    count = calls_of(lambda: write(tmp_path / "old", facts, report_html=page("old")))

    def again(bundle):
        settle_folder(bundle)
        for left in bundle.parent.glob(".*.partial"):
            shutil.rmtree(left)
        draft = bundle.with_name("bundle.next")
        shutil.rmtree(draft, ignore_errors=True)
        replace_folder(write(draft, facts, report_html=page("new")), bundle)

    nth, reached, seen = 1, True, []
    while reached:
        bundle = tmp_path / str(nth) / "bundle"
        shutil.copytree(tmp_path / "old", bundle)
        reached = failing(lambda b=bundle: again(b), nth, mode)
        seen.append(state(bundle, check))
        if nth % 20 == 0:
            again(bundle)
            assert state(bundle, check) == page("new")
            assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
        nth += 1
    assert set(seen) == {page("old"), page("new")}
    assert seen == sorted(seen, key=[page("old"), page("new")].index)
    assert nth > count
