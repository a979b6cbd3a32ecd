"""Changing recipients: the payload stays, and what was changed by others is not taken over."""

import base64
import json
import os
from pathlib import Path

import pytest

from dpmlm.artifacts import (
    CLASSICAL,
    Identity,
    IntegrityError,
    SealedFolder,
    UserError,
    canonical_json,
    encrypt_bytes,
    new_identity,
    open_sealed,
    seal,
    sealed,
)
from dpmlm.artifacts.recipients import MAX_RECIPIENTS, WrappedKey
from dpmlm.artifacts.rotation import Change, plan_file, plan_folder
from dpmlm.artifacts.sealed import is_sealed

CONTEXT = b"tests/rotation"


@pytest.fixture(scope="module")
def people() -> list[Identity]:
    return [new_identity(CLASSICAL) for _ in range(4)]


@pytest.fixture
def folder(tmp_path, people) -> Path:
    """A finished folder that the first two can open."""
    made = SealedFolder.create(tmp_path / "f", [one.recipient for one in people[:2]], role="notes")
    made.write_bytes("a", b"text" * 10_000)
    made.finish({"stage": "notes"})
    return tmp_path / "f"


def opens(path: Path, identity: Identity) -> bool:
    try:
        return SealedFolder.open(path, [identity]).read_bytes("a") == b"text" * 10_000
    except IntegrityError:
        raise
    except UserError:
        return False


def payload(path: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.glob("*.sealed")}


def test_recipients_come_go_and_are_replaced_and_the_payload_stays(folder, people):
    first, second, third, fourth = people
    before = payload(folder)
    plan_folder(folder, [first], Change(add=(third.recipient,))).write()
    assert [opens(folder, one) for one in people] == [True, True, True, False]
    plan_folder(folder, [third], Change(remove=frozenset({second.key_id}))).write()
    assert [opens(folder, one) for one in people] == [True, False, True, False]
    heir = ((first.key_id, fourth.recipient),)
    plan_folder(folder, [first], Change(replace=heir)).write()
    assert [opens(folder, one) for one in people] == [False, False, True, True]
    assert payload(folder) == before
    SealedFolder.open(folder, [fourth]).verify()


def test_entries_that_stay_are_not_wrapped_again(folder, people):
    was = json.loads((folder / "recipients.json").read_bytes())["recipients"]
    plan_folder(folder, [people[0]], Change(add=(people[2].recipient,))).write()
    now = json.loads((folder / "recipients.json").read_bytes())["recipients"]
    assert now[:2] == was


def test_a_change_that_holds_already_writes_nothing(folder, people):
    def written():
        found = (folder / "recipients.json").stat()
        return found.st_ino, found.st_mtime_ns, found.st_size

    before = written()
    for change in (
        Change(),
        Change(add=(people[1].recipient,)),
        Change(remove=frozenset({people[3].key_id})),
        Change(replace=((people[3].key_id, people[2].recipient),)),
        Change(replace=((people[0].key_id, people[0].recipient),)),
    ):
        planned = plan_folder(folder, [people[0]], change)
        assert not planned.changes
        planned.write()
    assert written() == before


def test_who_comes_and_goes_equals_its_naive_twin(people):
    """Over all small changes: replace first, then remove, then add, on a set of names."""
    names = {one.key_id: one.recipient for one in people}
    ids = list(names)
    options = [
        (a, r, o, n) for a in ids for r in ids for o in ids for n in ids if r != n and r != a
    ]
    for add, remove, old, new in options:
        change = Change((names[add],), frozenset({remove}), ((old, names[new]),))
        for listed in ([ids[0]], ids[:2], ids[1:], ids):
            expected = set(listed)
            if old in expected and old != new:
                expected = expected - {old} | {new}
            expected = expected - {remove} | {add}
            if old == add and old in listed and old != new:
                continue  # asked to go and to come
            after = {*change.kept(listed), *(one.key_id for one in change.added(listed))}
            assert after == expected, (add, remove, old, new, listed)


def test_nobody_is_locked_out(folder, people):
    first = people[0]
    with pytest.raises(UserError, match="nobody locks themselves out"):
        plan_folder(folder, [first], Change(remove=frozenset({first.key_id})))
    everybody = frozenset(one.key_id for one in people)
    with pytest.raises(UserError, match="locks themselves out"):
        plan_folder(folder, [first], Change(remove=everybody, add=(people[2].recipient,)))


def test_what_cannot_be_together_is_refused(folder, people):
    many = tuple(new_identity(CLASSICAL).recipient for _ in range(MAX_RECIPIENTS - 1))
    with pytest.raises(UserError, match="65 recipients"):
        plan_folder(folder, [people[0]], Change(add=many))
    assert len(plan_folder(folder, [people[0]], Change(add=many[:-1])).after) == MAX_RECIPIENTS
    with pytest.raises(UserError, match="not mixed"):
        plan_folder(folder, [people[0]], Change(add=(new_identity().recipient,)))
    hybrid = new_identity().recipient  # both at once: from one kind to the other
    replace = tuple((one.key_id, hybrid) for one in people[:2])
    assert plan_folder(folder, [people[0]], Change(replace=replace)).after == (hybrid.key_id,)


def test_a_stranger_opens_and_changes_nothing(folder, people):
    with pytest.raises(UserError, match="only the keys"):
        plan_folder(folder, [people[3]], Change(add=(people[3].recipient,)))


def test_an_entry_that_somebody_else_put_in_is_not_taken_over(folder, people):
    path = folder / "recipients.json"
    fields = json.loads(path.read_bytes())
    row = {"key_id": people[3].key_id, "wrapped": base64.b64encode(bytes(80)).decode()}
    path.write_bytes(canonical_json({**fields, "recipients": [*fields["recipients"], row]}) + b"\n")
    with pytest.raises(IntegrityError, match="MAC"):
        plan_folder(folder, [people[0]], Change(remove=frozenset({people[1].key_id})))


def test_recipients_of_another_folder_are_not_taken_over(folder, people, tmp_path):
    other = SealedFolder.create(tmp_path / "o", [people[0].recipient], role="notes")
    other.finish({})
    os.replace(tmp_path / "o/recipients.json", folder / "recipients.json")
    with pytest.raises(IntegrityError, match="commitment"):
        plan_folder(folder, [people[0]], Change(add=(people[2].recipient,)))


def test_a_kill_leaves_the_old_or_the_new(folder, people, monkeypatch):
    planned = plan_folder(folder, [people[0]], Change(add=(people[2].recipient,)))
    real = os.replace
    for call in ("fsync", "replace"):

        def killed(*_arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, call, killed)
        with pytest.raises(KeyboardInterrupt):
            planned.write()
        monkeypatch.undo()
        assert opens(folder, people[0])
        assert not opens(folder, people[2])
    assert os.replace is real
    planned.write()
    assert opens(folder, people[2])


def test_sealed_files(tmp_path, people):
    path = tmp_path / "f.sealed"
    seal(b"text", path, [people[0].recipient], context=CONTEXT)
    before = path.read_bytes()
    change = Change(replace=((people[0].key_id, people[1].recipient),))
    plan_file(path, [people[0]], change, context=CONTEXT).write()
    assert path.read_bytes() == before
    with open_sealed(path, [people[1]], context=CONTEXT) as reader:
        assert reader.read() == b"text"
    with pytest.raises(UserError, match="only the keys"):
        open_sealed(path, [people[0]], context=CONTEXT)
    with pytest.raises(IntegrityError, match="another context"):
        plan_file(path, [people[1]], change, context=b"other")


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def killed_before_the_list_moved(path: Path, text: bytes, identity: Identity) -> None:
    """A `seal` whose last rename did not happen: the list waits beside its payload."""
    with pytest.MonkeyPatch.context() as dies:
        dies.setattr(sealed, "settle_listing", lambda path: (_ for _ in ()).throw(OSError))
        with pytest.raises(OSError):
            seal(text, path, [identity.recipient], context=CONTEXT)


def reads(path: Path, identity: Identity) -> bytes | None:
    try:
        with open_sealed(path, [identity], context=CONTEXT) as reader:
            return reader.read()
    except IntegrityError:
        raise
    except UserError:
        return None


@pytest.mark.parametrize("earlier", [True, False])
def test_a_list_that_waits_for_its_place_is_followed(tmp_path, people, earlier):
    """And its recipients do not come back when the file is sealed over, or that is killed."""
    first, second = people[:2]
    path = tmp_path / "f"
    if earlier:
        seal(b"earlier", path, [people[2].recipient], context=CONTEXT)
    killed_before_the_list_moved(path, b"text", first)
    assert files_of(tmp_path) == ["f", *["f.recipients"] * earlier, "f.recipients.next"]
    assert is_sealed(path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    change = Change(replace=((first.key_id, second.recipient),))
    planned = plan_file(path, [first], change, context=CONTEXT)
    plan_file(path, [first], Change(), context=CONTEXT).write()
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before
    assert (planned.label, planned.beside.name) == ("file", "f.recipients")
    planned.write()
    assert files_of(tmp_path) == ["f", "f.recipients"]
    assert (reads(path, first), reads(path, second)) == (None, b"text")
    with pytest.raises(UserError, match="0 recipients"):
        seal(b"new", path, [], context=CONTEXT)  # tidies up, and then stops
    assert (reads(path, first), reads(path, second)) == (None, b"text")


def test_a_kill_while_a_waiting_list_is_replaced(tmp_path, people, monkeypatch):
    first, second = people[:2]
    path = tmp_path / "f"
    change = Change(replace=((first.key_id, second.recipient),))
    for nth in range(1, 4):
        killed_before_the_list_moved(path, b"text", first)
        planned, real, calls = plan_file(path, [first], change, context=CONTEXT), os.replace, []

        def dying(source, target, nth=nth, real=real, calls=calls):
            calls.append(target)
            if len(calls) == nth:
                raise KeyboardInterrupt
            real(source, target)

        with monkeypatch.context() as dies:
            dies.setattr(os, "replace", dying)
            if nth < 3:
                with pytest.raises(KeyboardInterrupt):
                    planned.write()
            else:
                planned.write()
        assert len(calls) == min(nth, 2)
        assert (reads(path, first), reads(path, second)) == (
            (b"text", None) if nth < 3 else (None, b"text")
        )


def test_a_list_whose_payload_never_came_is_left_to_its_writer(tmp_path, people):
    first, second = people[:2]
    path, waiting = tmp_path / "f", tmp_path / "f.recipients.next"
    seal(b"text", path, [first.recipient], context=CONTEXT)
    seal(b"other", tmp_path / "g", [first.recipient], context=CONTEXT)
    os.replace(tmp_path / "g.recipients", waiting)
    theirs = waiting.read_bytes()
    plan_file(path, [first], Change(add=(second.recipient,)), context=CONTEXT).write()
    assert waiting.read_bytes() == theirs
    assert reads(path, second) == b"text"
    os.replace(tmp_path / "g", path)  # it comes after all
    assert reads(path, first) == b"other"
    assert reads(path, second) is None


def test_a_pair_of_an_earlier_version_keeps_its_label(tmp_path, people):
    key, path = bytes(range(32)), tmp_path / "f"
    path.write_bytes(encrypt_bytes(key, b"text", context=CONTEXT))
    listing = WrappedKey.wrap(key, [people[0].recipient], label="file", context=CONTEXT)
    (tmp_path / "f.recipients").write_bytes(listing.to_bytes())
    change = Change(add=(people[1].recipient,))
    plan_file(path, [people[0]], change, context=CONTEXT).write()
    found = WrappedKey.parse((tmp_path / "f.recipients").read_bytes(), name="f")
    assert found.label == "file"
    assert reads(path, people[1]) == b"text"
