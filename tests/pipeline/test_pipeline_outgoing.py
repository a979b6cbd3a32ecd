"""Nothing of the private text leaves in the public files of a bundle, whoever put it there."""

import json
import shutil

import pytest
import yaml
from small_run import KNOWN_SENTENCE
from variants import rest_in_full

from dpmlm.config import load_config
from dpmlm.corpus import read_shards
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.outgoing import Words, identifiers, passages, refuse_leaks
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_run

pytestmark = pytest.mark.xdist_group("finished")


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "copy")
    return tmp_path / "copy"


def pseudonym(folder) -> str:
    run = Run.load(load_config(folder / "run.yaml"), Progress(quiet=True))
    return next(d["person"] for d in read_shards(run.folder("corpus")) if d.get("person"))


PLANTED = {
    "write to jane.roe@example.org about it": "kind EMAIL_ADDRESS",
    "ask (212) 555-0123": "kind PHONE_NUMBER",
    f"as in {KNOWN_SENTENCE}": "8 words in a row",
    "for person 17": "a person as the corpus",
}
FAST = [f"as in {KNOWN_SENTENCE}", "pseudonym"]


@pytest.mark.parametrize("planted", rest_in_full([*PLANTED, "pseudonym"], FAST))
def test_what_a_run_file_says_is_looked_through_before_it_is_signed(copied, planted):
    said = f"of {pseudonym(copied)}" if planted == "pseudonym" else planted
    tree = yaml.safe_load((copied / "run.yaml").read_text())
    tree["release"]["intended_use"] = said
    (copied / "run.yaml").write_text(yaml.safe_dump(tree))
    bundle = copied / "work/bundle"
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    lines = (copied / "releases.log").read_bytes()
    with pytest.raises(UserError) as caught:
        execute_run(load_config(copied / "run.yaml"))
    message = str(caught.value)
    assert PLANTED.get(planted, "a pseudonym") in message
    assert said not in message
    assert "MODEL_CARD.md of the bundle" in message
    assert before == {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    assert (copied / "releases.log").read_bytes() == lines
    assert not [path for path in (copied / "work").iterdir() if "partial" in path.name]


def test_a_policys_text_is_looked_through(copied):
    policy = copied / "few-canaries.yaml"
    policy.write_text(policy.read_text() + "\n# agreed with jane.roe@example.org\n")
    with pytest.raises(UserError, match=r"policy\.yaml of the bundle"):
        execute_run(load_config(copied / "run.yaml"))


def test_an_honest_bundle_is_quiet_with_and_without_its_corpus_file(copied):
    run = Run.load(load_config(copied / "run.yaml"), Progress(quiet=True))
    refuse_leaks(run, copied / "work/bundle")
    run.config.corpus.path.unlink()
    refuse_leaks(run, copied / "work/bundle")


def test_passages_equal_their_naive_twin():
    text = "One two, three four five six seven EIGHT nine9 ten; a a a a a a a a"
    words = "one two three four five six seven eight nine ten a a a a a a a a".split()
    naive = [tuple(words[i : i + 8]) for i in range(len(words) - 7)]
    assert list(passages(text)) == [one for one in naive if len(set(one)) > 4]
    assert not list(passages("only seven words are in this text"))


def test_names_are_told_from_words():
    words = Words(["Agreed by Zoe Quill, with person 3 and the person."])
    assert words.hold_name("zoe  quill")
    assert words.hold_name("Person 3")
    assert not words.hold_name("person")  # a single word may be any word
    assert not words.hold_name("Zoe Quillfeather")
    assert not words.hold_name("")


def test_what_this_program_writes_is_no_identifier():
    ours = [
        "sha256:" + "1234567890" * 6 + "abcd", "2026-11-27T16:30:27.123456Z", "7.998212345678",
        "1e-05", "2111.10652", "torch 2.11.0", "0.1234567890123456",
    ]  # fmt: skip
    assert not [kind for text in ours for kind in identifiers(text)]
    theirs = {
        "jane.roe@example.org": "EMAIL_ADDRESS", "4111 1111 1111 1111": "CREDIT_CARD",
        "SSN 536-22-1234": "US_SSN", "DE89370400440532013000": "IBAN_CODE",
    }  # fmt: skip
    for text, kind in theirs.items():
        assert kind in set(identifiers(text)), json.dumps(text)
