"""A source in quarantine is in no later corpus, whatever it is called, until it is lifted."""

import json

import pytest
from forgotten_rows import ids, kinds, new_workspace
from small_stages import begin, run_stages

from dpmlm.errors import UserError
from dpmlm.pipeline.runs.quarantining import parse_rows, quarantine, quarantined
from dpmlm.pipeline.summary import private_rows
from dpmlm.privacy import Ledger
from dpmlm.privacy.journal import Journal

FILES = ("april.jsonl", "june.jsonl", "may.jsonl")


@pytest.fixture
def delivery(tmp_path):
    """A folder of three files with four rows each; ids tell where a row stands."""
    config = begin(tmp_path, [{"id": "x", "text": "a", "author": "p"}])
    folder = tmp_path / "delivery"
    folder.mkdir()
    for name in FILES:
        rows = [
            {"id": f"{name[:3]}{n}", "text": f"note {n} of {name} river stone", "author": f"p{n}"}
            for n in range(1, 5)
        ]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = config.corpus.model_copy(update={"path": folder})
    return config.model_copy(update={"corpus": corpus})


def read(config, name: str) -> set[str]:
    config = new_workspace(config, name)
    run_stages(config, "corpus")
    return set(ids(config))


def everything(*names: str) -> set[str]:
    return {f"{name[:3]}{n}" for name in names or FILES for n in range(1, 5)}


def test_a_source_is_left_out_under_every_name_and_lifted_again(delivery):
    assert read(delivery, "a") == everything()
    told = quarantine(delivery, "may.jsonl", "inc-7", "public")
    assert (told.changed, told.documents, len(told.lines)) == (True, 4, 1)
    left = everything("april.jsonl", "june.jsonl")
    assert read(delivery, "b") == left
    (delivery.corpus.path / "may.jsonl").rename(delivery.corpus.path / "renamed.jsonl")
    assert read(delivery, "c") == left
    assert [line["source"] for line in quarantined(delivery).lines] == ["renamed.jsonl"]
    assert quarantine(delivery, "renamed.jsonl", "inc-8", "public", lift=True).changed
    assert read(delivery, "d") == everything()
    assert not quarantine(delivery, "renamed.jsonl", "inc-8", "public", lift=True).changed


def test_lifting_what_was_never_in_quarantine_leaves_a_ledger_that_is_read(delivery):
    before = delivery.ledger.path.read_bytes()
    assert not quarantine(delivery, "may.jsonl", "inc-7", "public", lift=True).changed
    assert delivery.ledger.path.read_bytes() == before
    assert quarantine(delivery, "may.jsonl", "inc-7", "public").changed


def test_rows_of_a_source_are_left_out_and_counted(delivery):
    quarantine(delivery, "may.jsonl", "inc-7", "public", rows=(2, 3))
    again = new_workspace(delivery)
    run = run_stages(again, "corpus")
    assert set(ids(again)) == everything() - {"may2", "may3"}
    counts = run.folder("corpus").manifest["counts"]
    assert (counts["quarantined"], counts["documents"]) == (2, 10)
    assert ("quarantined", "2 rows of quarantined sources") in private_rows(
        {"corpus": counts, "seconds": {}}
    )


def test_a_file_of_the_name_with_other_bytes_is_refused(delivery):
    quarantine(delivery, "may.jsonl", "inc-7", "public")
    file = delivery.corpus.path / "may.jsonl"
    file.write_bytes(file.read_bytes().replace(b"note 1", b"note 9"))
    with pytest.raises(UserError, match="holds other bytes now"):
        read(delivery, "b")
    quarantine(delivery, "may.jsonl", "inc-7", "public", lift=True)
    assert read(delivery, "c") == everything()


def test_a_file_that_changed_is_quarantined_again_as_it_is_now(delivery):
    """The refusal's own advice is enough: the older line needs no lifting."""
    quarantine(delivery, "may.jsonl", "inc-7", "public")
    file = delivery.corpus.path / "may.jsonl"
    file.write_bytes(file.read_bytes().replace(b"note 1", b"note 9"))
    assert quarantine(delivery, "may.jsonl", "inc-8", "public").changed
    assert read(delivery, "b") == everything("april.jsonl", "june.jsonl")


def test_the_same_again_writes_nothing_and_nothing_names_the_file(delivery):
    quarantine(delivery, "may.jsonl", "inc-7", "public")
    path = delivery.ledger.path.with_name("ledger.tombstones.jsonl")
    before = path.read_bytes(), delivery.ledger.path.read_bytes()
    assert not quarantine(delivery, "may.jsonl", "inc-7", "public").changed
    assert (path.read_bytes(), delivery.ledger.path.read_bytes()) == before
    assert b"may" not in before[0] + before[1]
    assert kinds(delivery) == ["register", "tombstones"]


def test_a_workspace_that_holds_the_source_is_refused_and_another_goes_on(delivery):
    run_stages(delivery)
    others = new_workspace(delivery, "others")
    hidden = delivery.corpus.path / "may.jsonl"
    data = hidden.read_bytes()
    hidden.unlink()
    run_stages(others)
    hidden.write_bytes(data)
    quarantine(delivery, "may.jsonl", "inc-7", "public")
    with pytest.raises(UserError, match="source that was quarantined since") as caught:
        run_stages(delivery, check=True)
    assert "stays charged" in str(caught.value)
    hidden.unlink()
    run_stages(others, check=True)


def test_private_grounds_are_a_choice_that_no_claim_covers(delivery):
    quarantine(delivery, "may.jsonl", "inc-7", "private")
    ledger = Ledger.open(delivery.ledger.path)
    assert [one["label"] for one in ledger.choices()] == ["private"]
    ledger.verify()
    quarantine(delivery, "may.jsonl", "inc-7", "private")
    assert len(Ledger.open(delivery.ledger.path).choices()) == 1
    quarantine(delivery, "april.jsonl", "inc-7", "public")
    assert len(Ledger.open(delivery.ledger.path).choices()) == 1


def test_a_kill_between_file_and_ledger_is_refused_until_repeated(delivery, monkeypatch):
    written = Journal.append

    def killed(self, kind, fields):
        if kind == "choose":
            raise KeyboardInterrupt
        written(self, kind, fields)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            quarantine(delivery, "may.jsonl", "inc-7", "private")
    with pytest.raises(UserError, match="it was interrupted"):
        run_stages(delivery, "corpus", check=True)
    assert not quarantine(delivery, "may.jsonl", "inc-7", "private").changed
    run_stages(delivery, "corpus", check=True)
    assert kinds(delivery) == ["register", "choose", "tombstones"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("none.jsonl", "inc-7", "public"), "no file of"),
        (("may.jsonl", "two words", "public"), "ticket number"),
        (("may.jsonl", "inc-7", "because"), "--basis"),
    ],
)
def test_what_cannot_be_quarantined_is_refused(delivery, given, says):
    with pytest.raises(UserError, match=says):
        quarantine(delivery, *given)
    assert kinds(delivery) == ["register"]


def test_rows_that_are_none_are_refused(delivery):
    for text in ("3", "a-b", "1-", "-2", "٣-٤", "1-" + "9" * 5000):
        with pytest.raises(UserError, match="two numbers"):
            parse_rows(text)
    for rows in ((3, 2), (0, 1), (5, 9)):
        with pytest.raises(UserError):
            quarantine(delivery, "may.jsonl", "inc-7", "public", rows=rows)
    with pytest.raises(UserError, match="no line in force"):
        quarantine(delivery, "none.jsonl", "inc-7", "public", lift=True)
