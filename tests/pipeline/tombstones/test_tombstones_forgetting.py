"""`dpmlm runs forget`: what it takes, what it says, and that no line says who it was."""

import json

import pytest
from forgotten_rows import NAME, kinds
from small_stages import run_stages

from dpmlm.artifacts import load_secret_key
from dpmlm.errors import UserError
from dpmlm.pipeline.secrets import RunSecrets
from dpmlm.pipeline.tombstones import (
    file_beside,
    forget,
    forgotten,
    second_run,
    tombstones_of,
)
from dpmlm.privacy import Ledger


def test_forgetting_names_nobody_and_charges_nothing(config):
    before = Ledger.open(config.ledger.path).spent()
    assert forget(config, NAME, "request-17").added
    assert not forget(config, "Zoe\u0308 Quillfeather-Orme ", "again").added
    assert Ledger.open(config.ledger.path).spent() == before
    assert kinds(config) == ["register", "tombstones"]
    file = file_beside(config.ledger.path)
    secrets = RunSecrets.derive(load_secret_key(config.keys.scrub), config.seed)
    stones = tombstones_of(Ledger.open(config.ledger.path), secrets)
    assert [stones.name(person) for person in (NAME, "p0", None)] == [True, False, False]
    written = file.read_text()
    assert not any(hidden in written for hidden in (NAME, stones.pseudonym(NAME), "Quillfeather"))
    found = forgotten(config)
    assert (found.persons, len(found.dates), found.added) == (1, 1, None)
    assert "reason" not in json.dumps(found.to_json())
    # Of a run file of another seed it is the same person.
    assert not forget(config.model_copy(update={"seed": 9}), NAME, "again").added


@pytest.mark.parametrize(
    ("person", "reason", "rule"),
    [
        (NAME, "", "one word"), (NAME, "a\nb", "one word"), (NAME, "x" * 65, "one word"),
        (NAME, "request 17", "one word"), (NAME, "Ze\u0301", "one word"),
        (NAME, "QUILLFEATHER/17", "part of the person's name"), (NAME, "zoe-17", "part of"),
        ("Rene\u0301", "Rene-asked", "part of"), ("Anna  Smith", "anna.s", "part of"),
        ("Anna Smith", "mail#smith", "part of"), ("\uff33mith", "smith", "part of"),
        ("Anna Smith", "annasmith17", "part of"), ("7", "request-7", "part of"),
        ("\u0141ukasz", "lukasz-17", "part of"), ("S\xf8ren", "soren/2", "part of"),
        ("S\xf8ren", "soeren/2", "part of"), ("M\xf6ller", "mail-moeller", "part of"),
        ("M\xf6ller", "moller", "part of"), ("\xc6gir", "aegir", "part of"),
        ("\xdeora", "thora", "part of"), ("Y\u0131lmaz", "yilmaz", "part of"),
    ],
)  # fmt: skip
def test_reasons_that_are_none(config, person, reason, rule):
    with pytest.raises(UserError, match=rule) as caught:
        forget(config, person, reason, anyway=True)
    assert NAME.casefold() not in str(caught.value).casefold()
    assert not file_beside(config.ledger.path).exists()


def test_a_number_that_is_a_person_may_be_a_digit_of_another(config):
    assert forget(config, "7", "request-17", anyway=True).added


def test_whoever_is_in_no_row_is_refused_but_for_anyway(config):
    with pytest.raises(UserError, match="no row of") as caught:
        forget(config, "Zoe Quillfeather-Orme", "request-17")  # misspelled
    assert "--anyway" in caught.value.next_step
    assert "Quill" not in str(caught.value)
    assert not file_beside(config.ledger.path).exists()
    found = forget(config, "Zoe\u0308 Quillfeather-Orme", "request-17")
    assert found.rows == 3  # the row without text too
    assert "name them (private): 3" in found.text()
    assert "rows" not in found.to_json()
    config.corpus.path.unlink()
    with pytest.raises(UserError, match="no such file"):
        forget(config, NAME, "request-17")
    assert forget(config, "p77", "request-18", anyway=True).added


def test_it_is_said_what_a_second_run_on_the_ledger_claims(config, tmp_path):
    run_stages(config)
    fits = forget(config, NAME, "request-17")
    cap = config.ledger.cap.model_copy(update={"epsilon": 16.0})
    wide = config.model_copy(update={"ledger": config.ledger.model_copy(update={"cap": cap})})
    assert "so its verdict will be FAIL" in second_run(wide)
    for part in ("epsilon 16", "internal allows epsilon 8", "two runs of epsilon 4 each"):
        assert part in second_run(wide)
    narrow = cap.model_copy(update={"epsilon": 8.0})
    good = config.model_copy(update={"ledger": config.ledger.model_copy(update={"cap": narrow})})
    assert "claims the ledger's cap, epsilon 8" in second_run(good)
    assert "FAIL" not in second_run(good)
    assert second_run(config) in fits.text()
    with pytest.raises(UserError, match="a second run on a ledger claims the ledger's cap"):
        run_stages(config, check=True)
