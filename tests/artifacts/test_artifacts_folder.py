"""A stage's artifact: names, manifest, damage, rewrap, interrupted writes."""

import errno
import io
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from dpmlm.artifacts import (
    CLASSICAL,
    Identity,
    IntegrityError,
    SealedFolder,
    UserError,
    digest,
    new_identity,
)

SENTENCE = b"The patient was seen on Monday. "


@pytest.fixture(scope="module")
def identity() -> Identity:
    return new_identity()


@pytest.fixture
def folder(tmp_path: Path, identity: Identity) -> SealedFolder:
    made = SealedFolder.create(tmp_path / "work" / "corpus", [identity.recipient], role="corpus")
    made.write_bytes("documents-00000", SENTENCE * 2000)
    made.write_json("counts", {"kept": 3})
    return made


def test_round_trip(folder: SealedFolder, identity: Identity) -> None:
    folder.finish({"stage": "corpus"})
    again = SealedFolder.open(folder.path, [identity])
    assert again.role == "corpus"
    assert again.path == folder.path
    assert again.read_bytes("documents-00000") == SENTENCE * 2000
    assert again.read_json("counts") == {"kept": 3}
    assert again.names() == ["counts", "documents-00000"]
    assert again.names("documents-") == ["documents-00000"]
    assert again.has("counts")
    assert not again.has("other")
    with again.open("documents-00000") as reader:
        reader.seek(32)
        assert reader.read(32) == SENTENCE
    manifest = again.manifest
    assert manifest is not None
    assert manifest == folder.manifest
    assert manifest["stage"] == "corpus"
    for name, record in manifest["files"].items():
        blob = (folder.path / f"{name}.sealed").read_bytes()
        assert record["digest"] == digest(blob)
        assert record["size"] == len(blob)
    files = {name: record["digest"] for name, record in manifest["files"].items()}
    assert again.digest == folder.digest == digest(files)
    again.verify()


def test_nothing_is_in_clear(folder: SealedFolder) -> None:
    folder.finish({"note": SENTENCE.decode()})
    for path in folder.path.rglob("*"):
        assert SENTENCE[:12] not in path.read_bytes()


def test_unfinished_folder(folder: SealedFolder, identity: Identity) -> None:
    again = SealedFolder.open(folder.path, [identity])
    assert again.manifest is None
    assert again.read_json("counts") == {"kept": 3}
    for call in (again.verify, lambda: again.digest):
        with pytest.raises(UserError, match="unfinished"):
            call()
    with pytest.raises(ValueError, match="files"):
        again.finish({"files": {}})


def test_finish_covers_files_of_an_earlier_process(
    folder: SealedFolder, identity: Identity
) -> None:
    resumed = SealedFolder.open_or_create(
        folder.path, [identity], [identity.recipient], role="corpus"
    )
    resumed.write_bytes("documents-00001", b"more")
    resumed.finish({})
    resumed.verify()
    assert resumed.manifest is not None
    assert sorted(resumed.manifest["files"]) == ["counts", "documents-00000", "documents-00001"]
    SealedFolder.open(folder.path, [identity]).verify()


def test_changes_of_a_finished_folder_are_seen_once_it_is_finished_again(
    folder: SealedFolder, identity: Identity
) -> None:
    folder.finish({"version": 1})
    folder.write_json("counts", {"kept": 4})
    folder.write_json("more", {})
    folder.remove("documents-00000")
    assert folder.manifest is None
    assert folder.names() == ["counts", "more"]
    assert folder.has("more")
    assert not folder.has("documents-00000")
    assert folder.read_json("counts") == {"kept": 4}
    with pytest.raises(UserError, match="unfinished"):
        folder.verify()
    other = SealedFolder.open(folder.path, [identity])
    other.verify()
    assert other.manifest is not None
    assert other.manifest["version"] == 1
    assert other.names() == ["counts", "documents-00000"]
    assert other.read_json("counts") == {"kept": 3}
    folder.finish({"version": 2})
    for found in (folder, SealedFolder.open(folder.path, [identity])):
        found.verify()
        assert found.names() == ["counts", "more"]
        assert found.read_json("counts") == {"kept": 4}
    assert not list(folder.path.glob("*.next"))


def test_changes_that_were_never_finished_are_dropped(
    folder: SealedFolder, identity: Identity
) -> None:
    folder.finish({})
    folder.write_json("counts", {"kept": 4})
    folder.remove("documents-00000")
    again = SealedFolder.open(folder.path, [identity])
    again.write_json("more", {})
    again.finish({})
    again.verify()
    assert again.names() == ["counts", "documents-00000", "more"]
    assert again.read_json("counts") == {"kept": 3}
    with pytest.raises(UserError, match="another process changed the folder"):
        folder.finish({})
    again.verify()


def test_a_finished_folder_that_cannot_be_tidied_up_is_read_as_its_manifest_says(
    folder: SealedFolder, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill right after the new manifest, and a disk that is read-only since."""
    folder.finish({})

    def fails(*arguments: object, **_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    folder.write_json("counts", {"kept": 4})
    folder.remove("documents-00000")
    with monkeypatch.context() as patch:
        patch.setattr("dpmlm.artifacts.drafts.os.replace", renamed_unless(folder, fails))
        patch.setattr(os, "unlink", fails)
        folder.finish({})
        for found in (folder, SealedFolder.open(folder.path, [identity])):
            assert found.names() == ["counts"]
            assert found.read_json("counts") == {"kept": 4}
            found.verify()
    assert list(folder.path.glob("*.next"))
    SealedFolder.open(folder.path, [identity]).verify()
    assert not list(folder.path.glob("*.next"))


def renamed_unless(folder: SealedFolder, fails: Any) -> Any:
    """`os.replace` that refuses to move what waits in `folder`."""
    replace = os.replace
    return lambda a, b: fails() if str(a).endswith(".next") else replace(a, b)


def test_unfinish_counts_at_once(folder: SealedFolder, identity: Identity) -> None:
    folder.finish({})
    folder.write_json("counts", {"kept": 4})
    folder.unfinish()
    assert folder.read_json("counts") == {"kept": 3}
    folder.write_json("counts", {"kept": 5})
    folder.remove("documents-00000")
    folder.remove("documents-00000")
    again = SealedFolder.open(folder.path, [identity])
    assert again.manifest is None
    assert again.names() == ["counts"]
    assert again.read_json("counts") == {"kept": 5}
    again.unfinish()
    folder.finish({})
    folder.verify()


def test_role_and_name_are_bound(folder: SealedFolder, identity: Identity) -> None:
    os.replace(folder.path / "counts.sealed", folder.path / "other.sealed")
    with pytest.raises(IntegrityError, match=r"other\.sealed, header"):
        folder.read_bytes("other")
    with pytest.raises(UserError, match=r"corpus artifact.*tokens artifact is needed"):
        SealedFolder.open(folder.path, [identity], role="tokens")
    with pytest.raises(UserError, match="corpus artifact"):
        SealedFolder.open_or_create(folder.path, [identity], [], role="tokens")
    text = (folder.path / "recipients.json").read_text()
    (folder.path / "recipients.json").write_text(text.replace('"corpus"', '"tokens"'))
    with pytest.raises(IntegrityError, match=r"recipients\.json"):
        SealedFolder.open(folder.path, [identity])


def test_create_refuses_a_taken_folder(tmp_path: Path, identity: Identity) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UserError, match="already holds files"):
        SealedFolder.create(tmp_path, [identity.recipient], role="corpus")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(UserError, match="no folder can be made"):
        SealedFolder.create(tmp_path / "mine", [identity.recipient], role="corpus")
    with pytest.raises(UserError, match="0 recipients"):
        SealedFolder.create(tmp_path / "new", [], role="corpus")
    assert not (tmp_path / "new").exists()


def test_open_what_is_not_there(tmp_path: Path, identity: Identity, folder: SealedFolder) -> None:
    with pytest.raises(UserError, match="no sealed folder"):
        SealedFolder.open(tmp_path / "absent", [identity])
    with pytest.raises(UserError, match="use the identity file of a recipient"):
        SealedFolder.open(folder.path, [new_identity()])
    with pytest.raises(UserError, match="No such file"):
        folder.read_bytes("absent")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "manifest", "x" * 200, "ü"])
def test_names_that_are_refused(folder: SealedFolder, name: str) -> None:
    with pytest.raises(ValueError, match=r"name|manifest"):
        folder.write_bytes(name, b"")


def damaged(folder: SealedFolder, name: str, offset: int) -> Path:
    path = folder.path / name
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    return path


def test_verify_names_file_and_place(folder: SealedFolder, identity: Identity) -> None:
    folder.finish({})
    whole = (folder.path / "documents-00000.sealed").read_bytes()
    draw = random.Random(11)
    offsets = [*range(0, 56, 5), *draw.sample(range(56, len(whole)), 40)]
    for offset in offsets:
        path = damaged(folder, "documents-00000.sealed", offset)
        chunk = (offset - 56) // 16_400
        place = "header, offset 0 to 56" if offset < 56 else f"chunk {chunk}"
        again = SealedFolder.open(folder.path, [identity])
        with pytest.raises(IntegrityError, match=rf"documents-00000\.sealed, {place}"):
            again.verify()
        path.write_bytes(whole)
    folder.verify()


def test_bytes_of_the_manifest_count(folder: SealedFolder, identity: Identity) -> None:
    folder.finish({})
    path = folder.path / "manifest.sealed"
    whole = path.read_bytes()
    for offset in [*range(56), *range(56, len(whole), 9)]:
        damaged(folder, "manifest.sealed", offset)
        with pytest.raises(IntegrityError, match=r"manifest\.sealed, (header|chunk 0)"):
            SealedFolder.open(folder.path, [identity])
        path.write_bytes(whole)


def test_missing_cut_and_added_files(folder: SealedFolder, identity: Identity) -> None:
    folder.finish({})
    path = folder.path / "documents-00000.sealed"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(IntegrityError, match=r"documents-00000\.sealed: it has \d+ bytes"):
        SealedFolder.open(folder.path, [identity])
    path.unlink()
    with pytest.raises(IntegrityError, match=r"documents-00000\.sealed: it is missing"):
        SealedFolder.open(folder.path, [identity])
    with pytest.raises(IntegrityError, match="is missing"):
        folder.verify()
    path.write_bytes(whole)
    shutil.copy(path, folder.path / "extra.sealed")
    with pytest.raises(IntegrityError, match=r"extra\.sealed.*added"):
        folder.verify()


def test_an_older_version_of_a_file_is_refused(folder: SealedFolder, identity: Identity) -> None:
    """Both versions are sound under the same key and name; only the manifest tells them apart."""
    old = (folder.path / "counts.sealed").read_bytes()
    folder.write_json("counts", {"kept": 4})
    folder.finish({})
    (folder.path / "counts.sealed").write_bytes(old)
    again = SealedFolder.open(folder.path, [identity])
    with pytest.raises(IntegrityError, match=r"counts\.sealed.*older"):
        again.read_json("counts")
    with pytest.raises(IntegrityError, match=r"counts\.sealed.*older"):
        again.verify()


def test_rewrap_changes_who_can_open_and_nothing_else(
    folder: SealedFolder, identity: Identity
) -> None:
    folder.finish({})
    before = {path.name: path.read_bytes() for path in folder.path.glob("*.sealed")}
    value, second = folder.digest, new_identity()
    folder.rewrap([second.recipient, identity.recipient])
    assert SealedFolder.open(folder.path, [second]).read_json("counts") == {"kept": 3}
    folder.rewrap([second.recipient])
    with pytest.raises(UserError, match="recipient"):
        SealedFolder.open(folder.path, [identity])
    assert SealedFolder.open(folder.path, [second]).digest == value
    assert {path.name: path.read_bytes() for path in folder.path.glob("*.sealed")} == before
    listing = (folder.path / "recipients.json").read_bytes()
    with pytest.raises(UserError, match="not mixed"):
        folder.rewrap([second.recipient, new_identity(CLASSICAL).recipient])
    assert (folder.path / "recipients.json").read_bytes() == listing


def interrupted(folder: SealedFolder, name: str) -> None:
    with folder.writer(name) as file:
        file.write(SENTENCE * 5000)
        raise RuntimeError


def test_writer_streams_and_is_whole_or_absent(folder: SealedFolder) -> None:
    with folder.writer("stream") as file:
        with io.TextIOWrapper(io.BufferedWriter(file), encoding="utf-8") as text:
            text.writelines(f"{i}\n" for i in range(10_000))
    assert folder.read_bytes("stream") == "".join(f"{i}\n" for i in range(10_000)).encode()
    with pytest.raises(RuntimeError):
        interrupted(folder, "broken")
    assert not folder.has("broken")
    with pytest.raises(RuntimeError):
        interrupted(folder, "stream")
    assert folder.read_bytes("stream").startswith(b"0\n1\n")
    assert not list(folder.path.glob(".*"))


def test_full_disk_leaves_the_finished_folder_as_it_was(
    folder: SealedFolder, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.finish({})

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", no_room)
    with pytest.raises(UserError, match="No space left"):
        folder.write_bytes("counts", b"{}")
    monkeypatch.undo()
    again = SealedFolder.open(folder.path, [identity])
    again.verify()
    assert again.read_json("counts") == {"kept": 3}
    assert not list(folder.path.glob(".*"))


def test_finish_sweeps_what_a_kill_left(folder: SealedFolder) -> None:
    leftover = folder.path / ".documents-00001.sealed.1-aaaa.tmp"
    leftover.write_bytes(b"half")
    assert folder.names() == ["counts", "documents-00000"]
    folder.finish({})
    assert not leftover.exists()


def test_create_after_a_kill_before_the_recipients_were_written(
    tmp_path: Path, identity: Identity
) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / ".recipients.json.1-aaaa.tmp").write_bytes(b"half")
    made = SealedFolder.open_or_create(
        tmp_path / "f", [identity], [identity.recipient], role="corpus"
    )
    made.finish({})
    made.verify()
