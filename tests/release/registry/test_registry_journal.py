"""The journal: what was changed, cut, added or signed by a stranger is found."""

import json
import shutil

import pytest
from registries import again

from dpmlm.artifacts import (
    IntegrityError,
    UserError,
    canonical_json,
    digest,
    new_signing_key,
    save_verify_key,
)
from dpmlm.release import verify_bundle
from dpmlm.release.registry.local import JOURNAL, Registry

pytestmark = pytest.mark.usefixtures("verified_once")


def rechained(lines: list[dict]) -> bytes:
    """What somebody without a key can do: hash every line again."""
    head, out = "sha256:" + "0" * 64, b""
    for number, line in enumerate(lines, start=1):
        body = {key: value for key, value in line.items() if key != "hash"}
        body |= {"number": number, "previous": head}
        body["hash"] = head = digest(body)
        out += canonical_json(body) + b"\n"
    return out


def edited(field, value):
    return lambda lines: [*lines[:-1], {**lines[-1], field: value}]


@pytest.mark.parametrize(
    "edit",
    [
        edited("version", 2),
        edited("alias", "staging"),
        edited("kind", "rollback"),
        lambda lines: [*lines[:1], *lines[2:]],
        lambda lines: [*lines[:2], *lines[3:]],
        lambda lines: [*lines, {**lines[-1], "alias": "staging"}],
        lambda lines: lines[1:],
    ],
)
@pytest.mark.parametrize("hashed_again", [False, True])
def test_lines_that_were_changed_removed_or_added_are_found(held, keys, edit, hashed_again):
    registry = held
    path = registry.folder / JOURNAL
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    changed = edit(lines)
    if hashed_again:
        path.write_bytes(rechained(changed))
    else:
        path.write_bytes(b"".join(canonical_json(line) + b"\n" for line in changed))
    with pytest.raises(IntegrityError, match=r"registry .*line [1-5]"):
        again(registry, keys).resolve("notes@champion")
    assert [one.file for one in again(registry, keys).verify()] == [JOURNAL]


def test_a_journal_that_was_cut_is_found_by_a_noted_head(held, keys):
    registry = held
    path = registry.folder / JOURNAL
    before = path.read_bytes()
    registry.retire("notes", 2)
    head = registry.head
    assert registry.verify(head=head) == []
    path.write_bytes(before)
    found = again(registry, keys).verify(head=head)
    assert [one.where for one in found if one.file == JOURNAL] == [head]


@pytest.mark.parametrize(
    ("kind", "version", "said"),
    [("rollback", 2, "what was not before"), ("promote", 1, "what is promoted"),
     ("retire", 1, "in use"), ("add", 9, "says"), ("crown", 1, "no line is called")],
)  # fmt: skip
def test_a_line_that_does_not_follow_is_refused(held, keys, kind, version, said):
    with held._journal.exclusive():
        with pytest.raises(IntegrityError, match=said):
            held._append(kind, name="notes", version=version, alias="champion")
        again(held, keys).versions()  # what is refused is not left in the file
        held._journal._apply = lambda entry: None
        held._append(kind, name="notes", version=version, alias="champion")
    with pytest.raises(IntegrityError, match=said):
        again(held, keys).versions()


def test_only_trusted_keys_write(tmp_path, registry, bundle, keys):
    stranger = new_signing_key()
    theirs = Registry(registry.folder, trusted_keys=keys.trusted, signing_key=stranger)
    with pytest.raises(UserError, match="not among the trusted keys"):
        theirs.add(bundle, "notes")
    assert not registry.folder.exists()
    with pytest.raises(UserError, match="--signing-key"):
        Registry(registry.folder, trusted_keys=keys.trusted).add(bundle, "notes")
    registry.add(bundle, "notes")
    # A stranger who trusts themselves writes; nobody else believes the line.
    loose = tmp_path / "loose"
    shutil.copytree(keys.trusted, loose)
    (loose / "registry").mkdir()
    save_verify_key(loose / "registry/stranger.pub", stranger.verify_key)
    theirs = Registry(registry.folder, trusted_keys=loose, signing_key=stranger)
    theirs.promote("notes", 1, "champion")
    assert theirs.entries()[-1]["key_id"] == stranger.key_id
    with pytest.raises(IntegrityError, match=r"line 3.*not trusted"):
        again(registry, keys).resolve("notes@champion")
    # A key of the folder `registry` signs lines, and no bundle.
    assert stranger.key_id not in verify_bundle(bundle, loose, now=registry._clock()).signers
