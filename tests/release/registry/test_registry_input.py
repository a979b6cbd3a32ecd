"""What is no bundle, no name or not there is refused."""

import os

import pytest
from registries import flip

from dpmlm.artifacts import (
    IntegrityError,
    UserError,
)
from dpmlm.release.registry import local
from dpmlm.release.registry.local import Registry
from dpmlm.release.registry.names import check_alias, check_name, parse_reference

pytestmark = pytest.mark.usefixtures("verified_once")


def test_bundles_that_do_not_verify_are_not_added(registry, bundle, keys, tmp_path):
    (bundle / "model/link").symlink_to("weights.sealed")
    with pytest.raises(IntegrityError, match="model/link"):
        registry.add(bundle, "notes")
    (bundle / "model/link").unlink()
    os.mkfifo(bundle / "pipe")
    with pytest.raises(IntegrityError, match="pipe"):
        registry.add(bundle, "notes")
    (tmp_path / "empty").mkdir()
    with pytest.raises(IntegrityError, match="no signed manifest"):
        registry.add(tmp_path / "empty", "notes")
    with pytest.raises(UserError, match="no such folder"):
        registry.add(tmp_path / "nowhere", "notes")
    assert not registry.folder.exists()


def test_a_bundle_that_changes_while_it_is_copied_is_not_added(
    registry, bundle, second, monkeypatch
):
    def listed(folder):
        flip(folder / "plan.json")
        return list_files(folder)

    list_files = local.files_of
    monkeypatch.setattr(local, "files_of", listed)
    with pytest.raises(IntegrityError):
        registry.add(bundle, "notes")
    monkeypatch.setattr(local, "files_of", list_files)
    assert registry.verify() == []
    assert registry.versions() == []
    assert registry.add(second, "notes").number == 1


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../up", "a.b", "a\0b", "a" * 65, "a" * 200, "Notes", "n\u043etes",
     "\uff4eotes", "-a", "_a", "a b", "a\n", "no\u200btes", "notes@1", "\ud800"],
)  # fmt: skip
def test_names_that_are_no_plain_words_are_refused(registry, bundle, name):
    for wrong in (
        lambda: registry.add(bundle, name),
        lambda: check_alias(name),
        lambda: parse_reference(f"{name}@champion"),
        lambda: parse_reference(f"notes@{name}" if "@" not in name else name * 2),
    ):
        with pytest.raises(UserError) as refused:
            wrong()
        str(refused.value).encode("ascii")
    assert not registry.folder.exists()


def test_names_that_are_plain(registry):
    assert check_name("0-a_" + "z" * 60)
    for reserved in ("latest", "v1", "1st"):
        with pytest.raises(UserError):
            check_alias(reserved)
    assert parse_reference("notes@12").number == 12
    assert parse_reference("notes@latest-1").alias == "latest-1"


def test_what_is_not_there_is_said(held, registry, bundle, tmp_path, keys):
    with pytest.raises(UserError, match="there is none"):
        Registry(tmp_path).versions()
    for wrong, said in (
        (lambda: registry.promote("notes", 3, "champion"), "it has versions 1 to 2"),
        (lambda: registry.promote("notes", -1, "champion"), "it has versions 1 to 2"),
        (lambda: registry.promote("other", 1, "champion"), "it has notes"),
        (lambda: registry.resolve("notes@other"), "points nowhere; notes has champion"),
        (lambda: registry.resolve("notes"), "NAME@ALIAS"),
        (lambda: registry.rollback("notes", "other"), "points nowhere"),
        (lambda: Registry(registry.folder).resolve("notes@1"), "without trusted keys"),
    ):
        with pytest.raises(UserError, match=said):
            wrong()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thing").write_text("x")
    (tmp_path / "file").write_text("x")
    for place in ("full", "file"):
        other = Registry(tmp_path / place, trusted_keys=keys.trusted, signing_key=keys.signing)
        with pytest.raises(UserError, match="something else is there"):
            other.add(bundle, "notes")
