"""After a full run no sentence of the corpus lies in clear: neither in the work folder nor in the
temporary folder nor in any cache, and no file that was removed on the way held one."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from leaks import inflated
from small_run import PASSING, draw_keys, write_corpus, write_run_file

CACHES = ("TMPDIR", "HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME", "HOME")
GIVEN = ("private.jsonl", "marked.jsonl", "public.jsonl")
SENTENCE = re.compile(rb"The [a-z]+ near the [a-z]+ was [a-z]+ again")
NUMBER = re.compile(rb"\(212\) 555-\d{4}")
RUN = """
import os, sys, uuid
kept, remove = sys.argv[1], os.unlink

def unlink(path, *, dir_fd=None):
    # What is removed is kept aside under another name, and searched too.
    try:
        os.link(path, f"{kept}/{uuid.uuid4().hex}", src_dir_fd=dir_fd, follow_symlinks=False)
    except OSError:
        pass
    remove(path, dir_fd=dir_fd)

os.unlink = os.remove = unlink
from dpmlm.config import load_config
from dpmlm.pipeline.run import execute_run
print(execute_run(load_config(sys.argv[2])).verdict)
"""


UNLINK = RUN[: RUN.index("from dpmlm.config")]
TRAIN = (
    UNLINK
    + """
import json
from datasets import Dataset
from dpmlm import Trainer, make_plan
from dpmlm.artifacts import create_keys
from dpmlm.tokens import train_tokenizer
from dpmlm.training import new_model
rows = [json.loads(line) for line in open("private.jsonl")]
public = [json.loads(line)["text"] for line in open("public.jsonl")]
tokenizer = train_tokenizer(public, vocab_size=300)
create_keys("keys")
plan = make_plan(epsilon=8, delta=1e-3, units=100, unit="person", expected_batch_size=4, steps=2,
                 max_grad_norm=1.0, accountant="rdp")
documents = Dataset.from_list(rows)
trainer = Trainer(new_model("tiny", tokenizer, 32, seed=0), tokenizer, plan, documents=documents,
                  person="author", workspace="work", keys="keys", window=32, checkpoint_minutes=0)
trainer.train()
if sys.argv[2] == "leak":
    Dataset.from_list(rows).to_json(os.environ["HF_DATASETS_CACHE"] + "/left.jsonl")
print("trained", documents.num_rows)
"""
)


def private_pieces(folder: Path) -> set[bytes]:
    """Sentences and telephone numbers of the private corpus that the public one has not."""
    private, public = (
        b"\n".join(
            json.loads(line)["text"].encode() for line in (folder / name).read_text().splitlines()
        )
        for name in ("private.jsonl", "public.jsonl")
    )
    return {*SENTENCE.findall(private), *NUMBER.findall(private)} - {*SENTENCE.findall(public)}


def views(data: bytes) -> Iterator[bytes]:
    """The bytes, what is compressed in them, and each of them with UTF-16 and UTF-32 undone."""
    for view in (data, *inflated(data)):
        yield view
        yield view.replace(b"\0", b"")


def in_clear(folder: Path, pieces: set[bytes], skip: tuple[str, ...] = ()) -> dict[str, int]:
    """Files below `folder` that hold any of the pieces, and how many."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in skip:
            held: set[bytes] = set()
            for view in views(path.read_bytes()):
                held |= pieces & {*SENTENCE.findall(view), *NUMBER.findall(view)}
            if held:
                found[str(path.relative_to(folder))] = len(held)
    return found


def in_fresh_caches(
    folder: Path, code: str, work: Path, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run code in `work` with every cache and temporary folder in `folder`."""
    caches = {name: str(folder / name.lower()) for name in CACHES}
    for place in caches.values():
        Path(place).mkdir()
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, **caches},
        cwd=work,
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.full
@pytest.mark.parametrize("what", ["train", "leak"])
def test_a_dataset_of_hugging_face_leaves_no_sentence_in_clear(tmp_path: Path, what: str) -> None:
    """And where rows are written to the cache on purpose, the search finds them."""
    pytest.importorskip("datasets", reason="datasets is not installed: no Dataset can be made")
    work, kept = tmp_path / "run", tmp_path / "removed"
    for folder in (work, kept):
        folder.mkdir()
    write_corpus(work)
    done = in_fresh_caches(tmp_path, TRAIN, work, str(kept), what)
    assert done.stdout.split()[-2:] == ["trained", "82"]
    pieces = private_pieces(work)
    assert len(pieces) > 300
    found = in_clear(tmp_path, pieces, GIVEN)
    if what == "train":
        assert found == {}
        output = (done.stdout + done.stderr).encode()
        assert not [piece for piece in pieces if piece in output]
    else:
        assert found["hf_datasets_cache/left.jsonl"] == len(pieces)


@pytest.mark.full
def test_no_sentence_of_the_corpus_lies_in_clear_after_a_run(tmp_path: Path) -> None:
    work, kept = tmp_path / "run", tmp_path / "removed"
    for folder in (work, kept):
        folder.mkdir()
    write_corpus(work)
    write_run_file(work, **PASSING)
    draw_keys(work)
    done = in_fresh_caches(tmp_path, RUN, work, str(kept), str(work / "run.yaml"))
    assert done.stdout.split()[-1] == "PASS"
    pieces = private_pieces(work)
    assert len(pieces) > 300
    assert len(list(kept.iterdir())) > 5  # sealed shards of dedup at least
    assert in_clear(tmp_path, pieces, GIVEN) == {}
    output = (done.stdout + done.stderr).encode()
    assert not [piece for piece in pieces if piece in output]
    # The same search finds them where they are.
    assert in_clear(work, pieces)["private.jsonl"] == len(pieces)


@pytest.mark.parametrize("coding", ["utf-8", "utf-16-le", "utf-32-le", "gzip"])
def test_a_sentence_left_behind_is_found(tmp_path: Path, coding: str) -> None:
    text = "x The river near the stone was cold again. Call (212) 555-0001"
    data = gzip.compress(text.encode()) if coding == "gzip" else text.encode(coding)
    (tmp_path / "left").write_bytes(b"\0\1" + data)
    pieces = {b"The river near the stone was cold again", b"(212) 555-0001", b"(212) 555-0002"}
    assert in_clear(tmp_path, pieces) == {"left": 2}
