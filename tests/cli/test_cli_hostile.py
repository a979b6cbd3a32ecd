"""Files that are something else: whatever is handed in, the answer is a message, never a bug."""

import json
import os
import shutil
from pathlib import Path

import pytest
from variants import rest_in_full

pytestmark = pytest.mark.xdist_group("finished")


def bomb(path: Path) -> None:
    """Nine levels of nine aliases each: a gigabyte if it were expanded."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 9):
        again = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} [{again}]")
    path.write_text("\n".join(lines))


def merges(path: Path) -> None:
    """The same with merge keys, which safe loading does expand."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, 9):
        again = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} {{<<: [{again}]}}")
    path.write_text("\n".join(lines))


def loop(path: Path) -> None:
    path.symlink_to(path)


HOSTILE = {
    "folder": lambda path: path.mkdir(),
    "nothing": lambda path: path.write_bytes(b""),
    "NUL": lambda path: path.write_bytes(bytes(4096)),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 50),
    "one long line": lambda path: path.write_bytes(b"x" * 5_000_000),
    "one long line with an end": lambda path: path.write_bytes(b"x" * 5_000_000 + b"\n"),
    "deep": lambda path: path.write_bytes(b"[" * 300_000),
    "deep with an end": lambda path: path.write_bytes(b"[" * 300_000 + b"\n"),
    "brace": lambda path: path.write_bytes(b'{"a": '),
    "list": lambda path: path.write_bytes(b"[1, 2]\n"),
    "number": lambda path: path.write_bytes(b"1e999\n"),
    "odd object": lambda path: path.write_bytes(b'{"kind": [], "format": {}, "x": NaN}\n'),
    "UTF-16": lambda path: path.write_bytes("name: x".encode("utf-16")),
    "bomb": bomb,
    "merge bomb": merges,
    "python tag": lambda path: path.write_text("name: !!python/object/apply:os.system ['id']"),
    "twice": lambda path: path.write_text("name: a\nname: b\n"),
    "loop": loop,
    "gone": lambda path: path.symlink_to("nowhere"),
}

TARGETS = {
    "run file": ("run.yaml", ["plan", "run.yaml"]),
    "ledger": ("ledger.jsonl", ["ledger", "show", "ledger.jsonl"]),
    "ledger of a run": ("ledger.jsonl", ["gate", "run.yaml"]),
    "identity": ("keys/trainer.key", ["gate", "run.yaml"]),
    "signing key": ("keys/sign.key", ["gate", "run.yaml"]),
    "secret key": ("keys/pseudonym.key", ["gate", "run.yaml"]),
    "consumer": ("keys/consumer.pub", ["run", "run.yaml"]),
    "trusted key": ("keys/trusted/sign.pub", ["verify", "work/bundle", "--trusted-keys",
                                              "keys/trusted"]),
    "marker": ("work/run.json", ["gate", "run.yaml"]),
    "recipients": ("work/audit/recipients.json", ["gate", "run.yaml"]),
    "manifest": ("work/audit/manifest.sealed", ["gate", "run.yaml"]),
    "evidence": ("work/audit/evidence.sealed", ["gate", "run.yaml"]),
    "plan.json": ("claim.json", ["audit", "work/training", "--canaries", "work/canaries", "--plan",
                                 "claim.json", "--identity", "keys/trainer.key", "--out", "e"]),
    "canaries": ("canaries.json", ["audit", "work/training", "--canaries", "canaries.json",
                                   "--plan", "work/bundle/plan.json", "--out", "e",
                                   "--identity", "keys/trainer.key"]),
    "labels": ("labels.json", ["audit", "canaries", "insert", "work/canaries", "private.jsonl",
                               "out", "--labels", "labels.json", "--identity",
                               "keys/trainer.key"]),
    "commitment": ("commitment.json", ["audit", "canaries", "reveal", "work/canaries",
                                       "--commitment", "commitment.json", "--identity",
                                       "keys/trainer.key"]),
    "corpus jsonl": ("c.jsonl", ["dedup", "c.jsonl", "out", "--plaintext"]),
    "corpus csv": ("c.csv", ["dedup", "c.csv", "out", "--plaintext"]),
    "corpus parquet": ("c.parquet", ["dedup", "c.parquet", "out", "--plaintext"]),
    "gold": ("g.jsonl", ["scrub", "--gold", "g.jsonl"]),
    "scrub policy": ("p.yaml", ["scrub", "c.txt", "out", "--plaintext", "--policy", "p.yaml"]),
    "release policy": ("p.yaml", ["gate", "run.yaml", "--policy", "p.yaml"]),
}  # fmt: skip


FAST = (
    "run file", "ledger", "signing key", "trusted key", "marker", "manifest",
    "plan.json", "corpus jsonl", "corpus csv", "corpus parquet", "gold",
)  # fmt: skip


@pytest.mark.parametrize("target", rest_in_full(TARGETS, FAST))
def test_a_file_that_is_something_else_is_refused(copy, call, target):
    name, words = TARGETS[target]
    path = copy / name
    (copy / "c.txt").write_text("A text.")
    for kind, make in HOSTILE.items():
        if path.exists() or path.is_symlink():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        make(path)
        if path.suffix == ".key" and path.is_file():
            path.chmod(0o600)
        was = path.read_bytes() if path.is_file() else None
        called = call(*words)
        assert called.status in (1, 2), (kind, called)
        assert called.status == 2 or words[0] == "verify", (kind, called)
        assert "Traceback" not in called.err, (kind, called.err)
        assert len(called.err) < 3000, (kind, called.err[:500])
        assert not (copy / "out").exists(), kind
        # What was handed in is not ours to change.
        assert (path.read_bytes() if path.is_file() else None) == was, kind


BUNDLE_FILES = (
    "manifest.dsse.json", "plan.json", "decision.json", "policy.yaml", "report.html",
    "model/recipients.json", "model/weights.sealed",
)  # fmt: skip


@pytest.mark.parametrize("name", rest_in_full(BUNDLE_FILES, BUNDLE_FILES[-1:]))
def test_a_bundle_with_something_else_in_it_does_not_verify(copy, call, name):
    path = copy / "work/bundle" / name
    for kind, make in HOSTILE.items():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        make(path)
        called = call("verify", "work/bundle", "--trusted-keys", "keys/trusted", "--json")
        assert called.status == 1, (kind, called)
        found = json.loads(called.out)["findings"]
        assert any(finding["file"] == name for finding in found), (kind, found)
        exported = call(
            "release", "export", "work/bundle", "--trusted-keys", "keys/trusted", "--identity",
            "keys/consumer.key", "--plaintext", "--to", "out",
        )  # fmt: skip
        assert exported.status == 2, (kind, exported)


def test_odd_names_of_files_are_names(copy, call, monkeypatch):
    odd = "odd \u202e näme\nnew [bold]'\"{}%s"
    folder = copy / odd
    folder.mkdir()
    called = call("init", folder)
    assert called.status == 0, called.err
    assert call("ledger", "verify", folder / "ledger.jsonl").status == 0
    assert call("plan", folder / "run.yaml").status == 0
    missing = call("verify", copy / f"{odd}.x", "--trusted-keys", folder / "keys/trusted")
    assert missing.status == 2
    bytes_name = os.fsdecode(b"\xff\xfe")
    assert call("plan", bytes_name).status == 2


@pytest.mark.parametrize("row", ['{"text": 3}', '{"text": "\\ud800"}', '{"text": ["a"]}', "{}"])
def test_a_row_of_the_wrong_kind_is_named_by_file_and_line(tmp_path, refused, row):
    source = tmp_path / "c.jsonl"
    source.write_text('{"text": "fine"}\n' + row + "\n")
    for words in (("dedup", source, tmp_path / "out"), ("scrub", source, tmp_path / "out")):
        assert f"{source} line 2" in refused(*words, "--plaintext")
    assert not (tmp_path / "out").exists()


GOLD = [
    '{"text": "abc", "spans": [{"start": 0, "end": 9, "type": "X"}]}',
    '{"text": "abc", "spans": [{"start": "0", "end": 1, "type": "X"}]}',
    '{"text": "abc", "spans": [[0, 1]]}',
    '{"text": "abc", "spans": 3}',
    '{"text": 3, "spans": []}',
    '{"text": "abc", "spans": [{"start": 0, "end": 1, "type": 7}]}',
    '{"text": "abc", "spans": [{"start": false, "end": 1, "type": "X"}]}',
    '{"text": "abc", "spans": [{"start": 0, "end": true, "type": "X"}]}',
    '{"text": "abc", "spans": [{"start": 0, "end": 1, "type": ""}]}',
    '{"text": "abc", "spans": [{"start": 0, "end": 1, "type": "X", "identifier": [1]}]}',
    '{"text": "abc", "spans": [{"start": 0, "end": 1, "type": "X", "identifier": 1}]}',
    '{"text": "a\\ud800", "spans": []}',
    '{"text": "abc", "spans": [{"start": 0, "end": 1, "type": "X", "identifier": "DRIECT"}]}',
    '{"text": "abc", "spans": [{"text": "ab", "type": "X"}]}',
    '{"text": "abc", "spans": [{"text": "", "type": "X"}]}',
    '{"text": "abc", "spans": [{"text": "abc", "start": 0, "type": "X"}]}',
    '{"text": "abc", "spans": null}',
    '{"text": "abc", "spans": [], "prefilled": 1}',
    '{"text": "fine", "spans": []}',
    '{"text": "abc", "spans": "abc"}',
    '{"text": "abc", "spans": {}}',
    '["text", "spans"]',
]


@pytest.mark.parametrize("row", GOLD)
def test_gold_of_the_wrong_kind_is_refused(tmp_path, refused, row):
    gold = tmp_path / "gold.jsonl"
    gold.write_text(' {"text": "fine", "spans": []}\n' + row + "\n")
    message = refused("scrub", "--gold", gold)
    assert f"{gold}, line 2" in message
    assert "row" in message


NUMBERS = {
    "no noise to speak of": ["plan", "run.yaml", "--noise-multiplier", "1e-320"],
    "almost no noise": ["plan", "run.yaml", "--noise-multiplier", "1e-5"],
    "endless noise": ["plan", "run.yaml", "--noise-multiplier", "1e300"],
    "noise that is no number": ["plan", "run.yaml", "--noise-multiplier", "nan"],
    "a digit that is none": ["ledger", "verify", "ledger.jsonl", "--head", "²:sha256:" + "0" * 64],
    "a number of 5000 digits": [
        "ledger", "verify", "ledger.jsonl", "--head", "9" * 5000 + ":sha256:" + "0" * 64
    ],
    "a name that is no text": [
        "ledger", "register", "new.jsonl", "--epsilon", "8", "--delta", "1e-5", "--corpus", "\udcff"
    ],
    "a cap that is no number": ["ledger", "register", "new.jsonl", "--epsilon", "nan",
                                "--delta", "1e-5"],
}  # fmt: skip


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_and_names_out_of_range_are_refused(copy, refused, monkeypatch, case):
    monkeypatch.chdir(copy)
    said = refused(*NUMBERS[case])
    assert len(said) < 400
    assert not (copy / "new.jsonl").exists()
