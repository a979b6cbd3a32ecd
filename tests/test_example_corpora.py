"""The examples that cut MedQuAD: what their scripts write is what run files and pages name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dpmlm.config import load_config

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def made(tmp_path):
    """Runs an example's script on a stand-in for MedQuAD; returns the example's copy."""
    rows = [
        {"id": f"a{n}", "source": ("3_GHR_QA", "5_NIDDK_QA")[n % 2], "text": f"answer number {n}"}
        for n in range(2200)
    ]
    (tmp_path / "medquad").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "medquad/train.jsonl").write_text(lines)

    def make(name, script):
        folder = tmp_path / name
        shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("work*", "data"))
        subprocess.run(
            [sys.executable, folder / script], check=True, capture_output=True,
            env=os.environ | {"DPMLM_DATA": str(tmp_path)},
        )  # fmt: skip
        return folder

    return make


def texts(path):
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def test_the_incident_has_eight_good_weeks_and_a_ninth_that_is_shuffled(made):
    folder = made("incident", "deliver.py")
    before, new, after = (load_config(folder / f"{n}.yaml") for n in ("run", "new", "after"))
    assert [one.name for one in (before, new, after)] == ["before", "new", "after"]
    assert len({one.workspace for one in (before, new, after)}) == 3
    assert len({one.ledger.path for one in (before, new, after)}) == 1
    assert new.corpus.path == after.corpus.path != before.corpus.path
    assert new.tokens.train.corpus.exists()
    for number in range(1, 9):
        week = (before.corpus.path / f"week{number}.jsonl").read_bytes()
        assert (new.corpus.path / f"week{number}.jsonl").read_bytes() == week
    good, bad = texts(before.corpus.path / "week1.jsonl"), texts(new.corpus.path / "week9.jsonl")
    assert (len(good), len(bad)) == (60, 420)
    assert all(text.startswith("answer number") for text in good)
    assert sum(text.startswith("answer number") for text in bad) < 5
    assert {"".join(sorted(text)) for text in bad} & {
        "".join(sorted(f"answer number {n}")) for n in range(2200)
    }
    assert not (before.corpus.path / "week9.jsonl").exists()


def test_the_two_teams_have_texts_of_their_own(made):
    folder = made("continual", "split.py")
    first, second = (load_config(folder / name / "run.yaml") for name in ("first", "second"))
    assert second.model.continues.resolve() == (folder / "first/work/bundle").resolve()
    parts = [set(texts(one.corpus.path)) for one in (first, second)]
    parts += [set(texts(folder / f"data/{name}.jsonl")) for name in ("earlier", "public")]
    assert [len(part) for part in parts] == [240, 240, 300, 1000]
    assert len(set.union(*parts)) == sum(map(len, parts))
