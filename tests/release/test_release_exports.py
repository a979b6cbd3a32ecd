"""An export is its owner's alone, and is logged where its target does not hold it."""

import hashlib
import json
import os
import shutil
import stat

import pytest
from faults import Faults, Killed
from variants import rest_in_full

from dpmlm.cli.main import status_of
from dpmlm.errors import IntegrityError, UserError
from dpmlm.pipeline.export import export_plaintext
from dpmlm.release import exports
from dpmlm.release.exports import NAME, log_export, log_of, read_exports
from dpmlm.release.inventory import MANIFEST, release_digest, take_inventory
from dpmlm.release.verification import verify_bundle as verify


@pytest.fixture
def bundle(tmp_path, write, facts, tmp_path_factory, made=[]):  # noqa: B006
    """A copy of one bundle that passed."""
    if not made:
        made.append(write(tmp_path_factory.mktemp("made") / "bundle", facts))
    return shutil.copytree(made[0], tmp_path / "bundle")


@pytest.fixture
def export(bundle, keys, monkeypatch, known={}):  # noqa: B006
    """A function that exports the bundle to a folder beside it; each bundle is verified once."""

    def once(path, *given, **more):
        read = (path / MANIFEST).read_bytes()
        return (
            known[read] if read in known else known.setdefault(read, verify(path, *given, **more))
        )

    monkeypatch.setattr("dpmlm.release.bundle.verify_bundle", once)

    def to(name="plain", **more):
        return export_plaintext(
            bundle,
            bundle.parent / "out" / name,
            identity=keys.folder / "consumer.key",
            trusted_keys=keys.trusted,
            **more,
        )

    return to


@pytest.fixture
def named(tmp_path):
    """What looks like a bundle to whoever lists its exports."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / MANIFEST).write_text("{}")
    return str(tmp_path / "bundle")


def logged(path, count):
    for number in range(count):
        log_export(
            path,
            release="r",
            manifest="sha256:" + "a" * 64,
            opened_by="b" * 16,
            target=f"t{number}",
        )
    return path


def test_an_export_is_for_its_owner_alone_and_on_the_disk(export, monkeypatch):
    synced, real = [], os.fsync

    def spy(handle):
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", spy)
    before = os.umask(0)  # what others may do is not left to it
    try:
        folder = export()
    finally:
        os.umask(before)
    everything = [folder, *folder.rglob("*")]
    assert len(everything) > 4
    partial = folder.with_name(f".{folder.name}.partial")
    for path in everything:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        assert str(partial / path.relative_to(folder)) in synced
    assert synced[-2:] == [str(partial), str(folder.parent)]


def test_two_exports_are_two_lines_and_say_what_of_whose_where_to(export, bundle, keys):
    export("first"), export("second")
    log = read_exports(log_of(bundle))
    assert [one.target for one in log.exports] == ["first", "second"]
    assert {one.opened_by for one in log.exports} == {keys.consumer.key_id}
    digest = "sha256:" + hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()
    assert {one.bundle_manifest for one in log.exports} == {digest}
    assert {one.release for one in log.exports} == {release_digest(take_inventory(bundle))}
    assert str(bundle.parent) not in (bundle.parent / NAME).read_text()


CHANGES = {
    "a line gone": lambda lines: [lines[0], lines[2]],
    "the first gone": lambda lines: lines[1:],
    "two swapped": lambda lines: [lines[1], lines[0], lines[2]],
    "one doubled": lambda lines: [lines[0], lines[1], lines[1], lines[2]],
    "another target": lambda lines: [lines[0].replace(b'"t0"', b'"t9"'), *lines[1:]],
    "half a line": lambda lines: [*lines[:2], lines[2][:40]],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_or_missing_line_is_found(tmp_path, named, change, capsys):
    path = logged(tmp_path / NAME, 3)
    assert status_of(["release", "exports", named]) == 0
    path.write_bytes(b"".join(CHANGES[change](path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(IntegrityError, match=f"export log {path}, line"):
        read_exports(path)
    assert status_of(["release", "exports", named]) == 1
    assert "export log" in capsys.readouterr().err


@pytest.mark.parametrize("left", [0, 2])
def test_a_log_cut_short_or_taken_away_is_found_against_a_noted_head(tmp_path, named, left):
    path = logged(tmp_path / NAME, 3)
    head = read_exports(path).head
    log_export(path, release="r", manifest="sha256:" + "a" * 64, opened_by="b" * 16, target="later")
    assert len(read_exports(path, head=head).exports) == 4  # it has grown since
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:left]))
    if not left:
        path.unlink()
    assert len(read_exports(path).exports) == left
    with pytest.raises(IntegrityError, match="taken away"):
        read_exports(path, head=head)
    words = ["release", "exports", named, "--head", head]
    assert status_of(words) == 1


def test_nothing_is_written_where_it_cannot_be_logged(export, bundle, monkeypatch):
    broken = bundle.parent / NAME
    broken.mkdir()  # nobody, root included, writes a line into a folder
    with pytest.raises(UserError, match=r"export log .*--log"):
        export()
    assert not (bundle.parent / "out").exists()
    elsewhere = bundle.parent / "logs.jsonl"
    export(log=elsewhere)
    assert [one.target for one in read_exports(elsewhere).exports] == ["plain"]


def test_a_broken_log_takes_no_more_lines(export, bundle):
    path = logged(bundle.parent / NAME, 2)
    path.write_bytes(path.read_bytes().replace(b'"t0"', b'"t1"', 1))
    with pytest.raises(IntegrityError, match="export log"):
        export()
    assert not (bundle.parent / "out").exists()


def test_another_file_is_no_log(tmp_path, ledger_summary, plan):
    from dpmlm.privacy.ledger import Ledger

    Ledger.register(tmp_path / NAME, epsilon=1, delta=1e-6, corpus="c")
    with pytest.raises(UserError, match="another kind"):
        read_exports(tmp_path / NAME)


def test_what_has_no_log_is_not_called_without_exports(tmp_path, named, capsys):
    path = tmp_path / NAME
    assert status_of(["release", "exports", named]) == 0
    assert "no export is logged" in capsys.readouterr().out
    assert status_of(["release", "exports", str(tmp_path / "none")]) == 2
    assert "it is no bundle" in capsys.readouterr().err
    gone = ["release", "exports", str(tmp_path / "none"), "--log", str(path)]
    assert status_of(gone) == 2
    logged(path, 1)
    assert status_of(gone) == 0
    path.write_bytes(b"")
    assert status_of(["release", "exports", named]) == 1
    assert "its lines were taken away" in capsys.readouterr().err
    with pytest.raises(IntegrityError, match="taken away"):
        logged(path, 1)
    assert path.read_bytes() == b""


def test_the_log_lies_where_the_bundle_is_not_removed_with_it(tmp_path):
    assert log_of(tmp_path / "some/bundle") == tmp_path / "some" / NAME
    (tmp_path / "work").mkdir()
    (tmp_path / "work/run.json").write_text("{}")
    assert log_of(tmp_path / "work/bundle") == tmp_path / NAME
    (tmp_path / "models").mkdir()
    (tmp_path / "models/journal.jsonl").write_text("")
    assert log_of(tmp_path / "models/notes/1") == tmp_path / "models" / NAME


def test_no_line_is_added_to_another_kind_of_file(export, bundle):
    from dpmlm.privacy.ledger import Ledger

    ledger = bundle.parent / "ledger.jsonl"
    Ledger.register(ledger, epsilon=1, delta=1e-6, corpus="c")
    before = ledger.read_bytes()
    with pytest.raises(UserError, match=r"export log .*another kind"):
        export(log=ledger)
    assert ledger.read_bytes() == before
    assert not (bundle.parent / "out").exists()


def test_two_who_begin_the_log_at_once_both_stand_in_it(tmp_path, monkeypatch):
    real = exports.create

    def create(path, *given):
        monkeypatch.setattr(exports, "create", real)
        logged(path, 1)  # the other one
        real(path, *given)

    monkeypatch.setattr(exports, "create", create)
    log_export(tmp_path / NAME, release="r", manifest="m", opened_by="k", target="ours")
    assert [one.target for one in read_exports(tmp_path / NAME).exports] == ["t0", "ours"]


@pytest.mark.parametrize(
    "where",
    rest_in_full(["out/plain/log.jsonl", "bundle/log.jsonl", "out/plain"], ["bundle/log.jsonl"]),
)
def test_a_log_inside_what_it_is_about_is_refused(export, bundle, check, where):
    with pytest.raises(UserError, match="--log"):
        export(log=bundle.parent / where)
    assert not (bundle.parent / "out").exists()
    assert check(bundle).ok


def test_a_bundle_that_another_replaced_meanwhile_is_not_exported(export, bundle, monkeypatch):
    from dpmlm.pipeline import export as module

    real = module.load_released

    def load(path, **more):
        found = real(path, **more)
        (path / MANIFEST).write_bytes((path / MANIFEST).read_bytes() + b"\n")
        return found

    monkeypatch.setattr(module, "load_released", load)
    with pytest.raises(UserError, match="meanwhile"):
        export()
    assert not log_of(bundle).exists()


def test_a_name_that_is_no_text_is_logged_escaped(tmp_path):
    log_export(
        tmp_path / NAME, release="r", manifest="m", opened_by="k", target=os.fsdecode(b"a\xff")
    )
    assert read_exports(tmp_path / NAME).exports[0].target == "a\\udcff"


def test_a_name_gives_a_terminal_no_orders(tmp_path):
    log_export(
        tmp_path / NAME, release="r", manifest="m", opened_by="k", target="a\x1b[2J\nb\u202e"
    )
    found = read_exports(tmp_path / NAME)
    assert found.exports[0].target == "a\x1b[2J\nb\u202e"
    assert found.text().splitlines()[0].endswith("by k  to a\\x1b[2J\\nb\\u202e")


@pytest.mark.full
@pytest.mark.parametrize("mode", ["kill", "EIO", "torn"])
def test_a_failing_call_leaves_no_weights_without_their_line(export, bundle, mode):
    for nth in range(1, 40):
        faults = Faults(nth, mode)
        try:
            with faults:
                export()
        except (Killed, OSError, UserError):
            assert faults.reached
        target, log = bundle.parent / "out/plain", read_exports_mended(log_of(bundle))
        begun = target.exists() or (bundle.parent / "out/.plain.partial").exists()
        assert not begun or len(log.exports) == 1, (nth, faults.calls)
        assert not target.exists() or json.loads((target / "dpmlm-export.json").read_text())
        shutil.rmtree(bundle.parent / "out", ignore_errors=True)
        if log.path.exists():
            log.path.unlink()
        if not faults.reached:
            return
    pytest.fail("more calls than are tried")


def read_exports_mended(path):
    """As the next export reads it: a torn line is taken away."""
    from dpmlm.privacy.journal import Journal

    if path.exists():
        Journal(path, lambda entry: None, None).refresh()
    return read_exports(path)
