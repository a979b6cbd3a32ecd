"""Sealed shards: the round trip, going on after a crash, and nothing in clear on disk."""

from itertools import islice
from pathlib import Path

import pytest

from dpmlm.artifacts import SealedFolder, new_identity
from dpmlm.corpus import count_shards, read_shards, shard_name, write_shard, write_shards
from dpmlm.errors import IntegrityError

SENTENCE = "the patient was admitted at night"
DOCUMENTS = [{"id": f"d{n}", "text": f"{SENTENCE} {n}\n\u2028ü", "row": n} for n in range(10)]


@pytest.fixture
def folder(tmp_path: Path) -> SealedFolder:
    return SealedFolder.create(tmp_path / "work", [new_identity().recipient], role="corpus")


def test_shards_give_back_what_was_written(folder: SealedFolder) -> None:
    assert write_shards(folder, iter(DOCUMENTS), per_shard=4) == 10
    write_shards(folder, [{"reason": "empty"}], prefix="documents-dropped")
    assert folder.names() == [
        "documents-00000",
        "documents-00001",
        "documents-00002",
        "documents-dropped-00000",
    ]
    assert list(read_shards(folder)) == DOCUMENTS
    assert list(read_shards(folder, "documents-dropped")) == [{"reason": "empty"}]
    assert list(read_shards(folder, "absent")) == []


def test_no_sentence_stands_on_disk_in_clear(folder: SealedFolder) -> None:
    write_shards(folder, DOCUMENTS, per_shard=4)
    files = [file for file in folder.path.rglob("*") if file.is_file()]
    assert files
    assert not any(SENTENCE.encode() in file.read_bytes() for file in files)


def test_a_killed_stage_goes_on_where_it_stopped(folder: SealedFolder) -> None:
    def dies():
        yield from DOCUMENTS[:9]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(folder, dies(), per_shard=4)
    assert count_shards(folder) == 2
    before = [(folder.path / f"documents-0000{n}.sealed").read_bytes() for n in (0, 1)]
    rest = islice(DOCUMENTS, 2 * 4, None)
    assert write_shards(folder, rest, per_shard=4, first=count_shards(folder)) == 2
    assert list(read_shards(folder)) == DOCUMENTS
    write_shards(folder, DOCUMENTS, per_shard=4)
    after = [(folder.path / f"documents-0000{n}.sealed").read_bytes() for n in (0, 1)]
    assert after == before


def test_shards_beyond_the_end_are_removed(folder: SealedFolder) -> None:
    write_shard(folder, 7, DOCUMENTS)
    write_shards(folder, DOCUMENTS[:3], per_shard=2)
    assert folder.names() == ["documents-00000", "documents-00001"]


def test_a_missing_or_broken_shard_is_named(folder: SealedFolder) -> None:
    write_shards(folder, DOCUMENTS, per_shard=4)
    folder.remove(shard_name("documents", 1))
    with pytest.raises(IntegrityError, match="documents-00001 is missing"):
        list(read_shards(folder))
    folder.write_bytes(shard_name("documents", 1), b"no json\n")
    with pytest.raises(IntegrityError, match="documents-00001"):
        list(read_shards(folder))
