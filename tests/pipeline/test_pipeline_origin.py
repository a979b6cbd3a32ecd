"""`dpmlm runs origin`: from a text to its source and row, by keyed digests, and back again."""

import hashlib
import hmac
import json

import pytest
from small_stages import EMPTY, begin, run_stages, write_rows

from dpmlm.artifacts import SealedFolder, create_keys, load_identity
from dpmlm.corpus import read_shards, write_shard
from dpmlm.errors import UserError
from dpmlm.pipeline.runs.origin import origin, read_text, sources
from dpmlm.pipeline.tombstones import forget
from dpmlm.tokens.shard import TokenShard

SECRET = "The quarrelsome heron waded past"


def rows() -> list[dict]:
    """Nine notes, one of which repeats another, one that scrubbing empties, one blank row."""
    plain = [
        {"id": f"d{n}", "text": f"{SECRET} note {n} " + f"stone {n * 7} " * 6, "author": f"p{n}"}
        for n in range(9)
    ]
    plain[4]["text"] = plain[0]["text"]
    return [*plain, {"id": "e", "text": EMPTY, "author": "p9"},
            {"id": "b", "text": "  ", "author": "p9"}]  # fmt: skip


@pytest.fixture
def made(tmp_path):
    config = begin(tmp_path, rows(), corpus__per_shard=3)
    run = run_stages(config)
    return config, run


def opened(config, stage: str) -> SealedFolder:
    return SealedFolder.open(config.workspace / stage, [load_identity(config.keys.identity)])


def opened_to_write(run, stage: str) -> tuple[SealedFolder, dict]:
    """A finished folder, and what to finish it with again."""
    folder = run.folder(stage)
    return folder, {k: v for k, v in folder.manifest.items() if k != "files"}


def shards(config) -> list[TokenShard]:
    folder = opened(config, "tokens")
    return [TokenShard.from_bytes(folder.read_bytes(n), name=n) for n in folder.names("tokens-")]


def test_the_digest_is_the_keyed_hash_of_the_text_as_read_in_every_stage(made):
    config, run = made
    twin = {
        row["id"]: hmac.new(
            run.secrets.unit_key, b"dpmlm/record\0" + row["text"].encode(), hashlib.sha256
        ).hexdigest()[:32]
        for row in rows()
    }
    seen = 0
    for stage in ("corpus", "scrub", "dedup"):
        for document in read_shards(opened(config, stage)):
            assert document["record"] == twin[document["id"]]
            seen += 1
    for shard in shards(config):
        assert list(shard.records) == [twin[name] for name in shard.ids]
        seen += len(shard)
    assert seen == 10 + 9 + 8 + 8
    clear = [path for path in config.workspace.parent.rglob("*") if path.suffix != ".sealed"]
    found = [path.name for path in clear if path.is_file() and twin["d1"] in path.read_text()]
    assert found == []


def test_a_text_is_found_with_its_row_and_how_far_it_came(made):
    config, _ = made
    [place] = origin(config, rows()[2]["text"] + "\n").places
    assert (place.source, place.row, place.state) == ("private.jsonl", 3, "unchanged")
    assert (place.stages, place.split) == (["corpus", "scrub", "dedup", "tokens"], "train")
    kept, removed = origin(config, rows()[0]["text"]).places
    assert (kept.row, removed.row) == (1, 5)
    assert sorted([kept.stages[-1], removed.stages[-1]]) == ["scrub", "tokens"]
    [emptied] = origin(config, EMPTY).places
    assert (emptied.row, emptied.stages, emptied.split) == (10, ["corpus"], None)
    nobody = origin(config, "somebody else's text")
    assert (nobody.places, nobody.held) == ([], True)
    assert SECRET not in nobody.text() + origin(config, rows()[2]["text"]).text()


def test_a_text_as_scrubbing_left_it_leads_to_its_record(made):
    config, run = made
    folder, kept = opened_to_write(run, "scrub")
    documents = list(read_shards(folder))[:3]
    documents[1]["text"] = "what <PERSON> wrote"
    write_shard(folder, 0, documents)
    folder.finish(kept)
    [place] = origin(config, "what <PERSON> wrote").places
    assert (place.row, place.state) == (2, "unchanged")


def test_sources_are_held_to_what_was_read(made):
    config, _ = made
    before = sources(config)
    assert before.held
    assert before.to_json()["sources"] == {"private.jsonl": {"unchanged": 10}}
    assert before.tokens == {"traced": 8}
    changed = rows()
    changed[1]["text"] += "!"  # one character
    changed[2], changed[3] = changed[3], changed[2]
    del changed[-2:]
    changed.append({"id": "n1", "text": "a new one", "author": "p20"})  # in the place of EMPTY
    changed.append({"id": "n2", "text": "another new one", "author": "p21"})
    write_rows(config.workspace.parent, changed)
    after = sources(config)
    assert not after.held
    assert after.by_source["private.jsonl"] == {
        "unchanged": 6,
        "changed": 2,
        "moved": 2,
        "added": 1,
    }
    assert SECRET not in json.dumps(after.to_json()) + after.text()
    [place] = origin(config, rows()[1]["text"]).places
    assert place.state == "changed"
    write_rows(config.workspace.parent, rows()[:5])
    assert sources(config).by_source["private.jsonl"] == {"unchanged": 5, "gone": 5}


def test_persons_who_were_forgotten_are_no_added_rows(tmp_path):
    config = begin(tmp_path, rows())
    forget(config, "p2", "request-1")
    run_stages(config)
    assert sources(config).held
    config.ledger.path.unlink()
    assert sources(config).by_source["private.jsonl"]["added"] == 1


def test_a_document_of_no_record_among_the_tokens_is_astray(made):
    config, run = made
    folder, kept = opened_to_write(run, "tokens")
    [name] = folder.names("tokens-")
    data = folder.read_bytes(name)
    one = shards(config)[0].records[0]
    folder.write_bytes(name, data.replace(one.encode(), b"0" * 32))
    folder.finish(kept)
    found = sources(config)
    assert (found.held, found.tokens) == (False, {"traced": 7, "astray": 1})


def test_a_set_of_texts_has_no_digests_and_is_followed_by_name(tmp_path):
    config = begin(tmp_path, rows(), privacy__unit="document", dedup={"near": None})
    run_stages(config)
    assert all("record" not in one for one in read_shards(opened(config, "dedup")))
    assert sources(config).tokens == {"without a digest": 8}
    [place] = origin(config, rows()[2]["text"]).places
    assert (place.row, place.split, place.stages[-1]) == (3, "train", "tokens")


def test_another_key_and_a_workspace_without_digests_are_refused(made, tmp_path):
    config, run = made
    folder, kept = opened_to_write(run, "corpus")
    documents = list(read_shards(folder))[:3]
    del documents[0]["record"]
    write_shard(folder, 0, documents)
    folder.finish(kept)
    with pytest.raises(UserError, match="before records had digests"):
        sources(config)
    with pytest.raises(UserError, match="nothing was read yet"):
        sources(begin(tmp_path / "other", rows()))
    create_keys(tmp_path / "another")
    other = (tmp_path / "another/pseudonym.key").read_bytes()
    config.keys.scrub.chmod(0o600)
    config.keys.scrub.write_bytes(other)
    with pytest.raises(UserError, match="another pseudonym key"):
        origin(config, "x")


@pytest.mark.parametrize("data", [b"", b" \n", b"\xff\xfe!"])
def test_what_is_no_text_is_refused_and_not_repeated(tmp_path, data):
    (tmp_path / "text").write_bytes(data)
    with pytest.raises(UserError, match="blank, or not UTF-8") as raised:
        read_text(str(tmp_path / "text"))
    assert raised.value.__context__ is None
