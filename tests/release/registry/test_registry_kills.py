"""Killed at any call, or two at once: the old or the new, and a repeat completes it."""

import contextlib
import multiprocessing
import shutil

import pytest
from faults import MODES, Faults, Killed
from registries import again

from dpmlm.artifacts import (
    UserError,
)
from dpmlm.release.registry.local import JOURNAL, Registry

pytestmark = pytest.mark.usefixtures("verified_once")


def _add(folder, trusted, key, bundle, gate, out):
    gate.wait()
    made = Registry(folder, trusted_keys=trusted, signing_key=key).add(bundle, "notes")
    out.put(made.number)


@pytest.mark.full
def test_two_who_add_at_once_get_two_versions(registry, bundle, second, keys):
    ways = multiprocessing.get_context("fork")
    gate, out = ways.Barrier(2), ways.Queue()
    given = (registry.folder, keys.trusted, keys.signing)
    both = [ways.Process(target=_add, args=(*given, one, gate, out)) for one in (bundle, second)]
    for one in both:
        one.start()
    assert sorted(out.get(timeout=60) for _ in both) == [1, 2]
    for one in both:
        one.join()
    assert again(registry, keys).verify() == []


def work(registry, bundle, second) -> None:
    """Everything that writes."""
    registry.add(second, "notes")
    registry.promote("notes", 2, "champion")
    registry.rollback("notes", "champion")
    registry.retire("notes", 2)


def states(registry, keys, *, torn=False) -> list[str]:
    """What is there after a failing or last call; whole in any case."""
    found = again(registry, keys)
    wrong = {one.file for one in found.verify()}
    if wrong == {"notes/2"}:  # the copy is there, and its line is not
        assert len(found.versions()) == 1
    else:  # a torn line is mended by whoever writes next
        assert wrong <= ({JOURNAL} if torn else set())
    assert found.resolve("notes@champion").verdict == "PASS"
    return [one.state for one in found.versions("notes")]


def outcomes(registry, bundle, second, keys, nth, mode):
    """Do the work with the n-th call failing, look, and do it again; None if there is no such."""
    faults = Faults(nth, mode)
    with faults:
        with contextlib.suppress(Killed, UserError):
            work(registry, bundle, second)
    if not faults.reached:
        return None
    seen = states(registry, keys, torn=mode == "torn")
    fresh = again(registry, keys, signing_key=keys.signing)
    if seen != ["promoted", "retired"]:
        work(fresh, bundle, second)
    assert states(fresh, keys) == ["promoted", "retired"]
    assert fresh.verify() == []
    assert sorted(p.name for p in (fresh.folder / "notes").iterdir()) == ["1", "2"]
    return tuple(seen)


def begun(registry, bundle):
    registry.add(bundle, "notes")
    registry.promote("notes", 1, "champion")
    return registry


@pytest.mark.parametrize(
    ("mode", "stride"),
    [("kill", 50), *(pytest.param(mode, 1, marks=pytest.mark.full) for mode in MODES)],
)
def test_every_failing_or_last_call_leaves_the_old_or_the_new(
    registry, bundle, second, keys, mode, stride, tmp_path
):
    begun(registry, bundle)
    good = tmp_path / "good"
    shutil.copytree(registry.folder, good)
    seen, nth = set(), stride
    while True:
        shutil.rmtree(registry.folder)
        shutil.copytree(good, registry.folder)
        given = again(registry, keys, signing_key=keys.signing)
        one = outcomes(given, bundle, second, keys, nth, mode)
        if one is None:
            break
        seen.add(one)
        nth += stride
    assert nth > 100
    assert ("promoted",) in seen
