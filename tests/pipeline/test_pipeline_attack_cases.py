"""Cases for the attacks from a finished run: who is in them, what is in them, and that they run."""

import json

import pytest

import audits
from audits.text.membership import membership
from audits.text.pii_games import pii_games
from dpmlm.artifacts import load_model
from dpmlm.config import load_config
from dpmlm.corpus import read_shards
from dpmlm.pipeline import attack_cases
from dpmlm.pipeline.attack_cases import finding_identifiers, membership_case, pii_case
from dpmlm.pipeline.base import initial_model
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.progress import Progress
from dpmlm.tokens import Encoder, TokenStore


@pytest.fixture
def run(finished) -> Run:
    folder, _ = finished
    return Run.load(load_config(folder / "run.yaml"), Progress())


def split_units(run: Run) -> dict[str, set[str]]:
    store = TokenStore.open(run.folder("tokens"))
    return {split: set(store.units(split)) for split in ("train", "validation")}


def test_members_were_trained_on_and_the_others_were_not(run) -> None:
    case, units = membership_case(run, 3), split_units(run)
    assert case.randomised
    assert {record.unit for record in case.members} <= units["train"]
    others = [*case.non_members, *case.population]
    assert {record.unit for record in others} <= units["validation"]
    assert not {r.unit for r in case.non_members} & {r.unit for r in case.population}
    assert len(case.members) == 3
    assert 3 <= len(case.non_members) <= 4
    left = units["validation"] - {record.unit for record in case.non_members}
    assert left
    assert case.population
    assert membership_case(run, 3) == case


def test_records_are_windows_of_their_own_documents(run, monkeypatch) -> None:
    monkeypatch.setattr(attack_cases, "ROW", 12)
    store = TokenStore.open(run.folder("tokens"))
    case = membership_case(run)
    for record in (*case.members, *case.non_members):
        texts = [store.tokens(document).tolist() for document in store.documents_of(record.unit)]
        assert len(record.tokens) == 12
        assert any(
            tuple(text[start : start + 12]) == record.tokens
            for text in texts
            for start in range(len(text))
        )
    per_unit = [
        sum(r.unit == unit for r in case.members) for unit in {r.unit for r in case.members}
    ]
    assert max(per_unit) == 2


def test_a_run_that_is_too_small_is_said_to_be(run) -> None:
    model = audits.LoadedModel.of(*load_model(run.folder("training")))
    found = membership(model, [model], membership_case(run), masks=1)
    assert found["applicable"] is False
    assert found["missing"] > 0
    assert "30 units" in found["reason"]


def near(text: str) -> list[tuple[int, int, str]]:
    return [(i, i + 4, "NEAR") for i in range(len(text)) if text.startswith("near", i)]


def test_identifiers_of_the_original_text_are_those_that_the_run_took_out(run) -> None:
    case = pii_case(run, near, text="original")
    store = TokenStore.open(run.folder("tokens"))
    original = {d["unit"]: [] for d in read_shards(run.folder("corpus"))}
    for document in read_shards(run.folder("corpus")):
        original[document["unit"]].append(document["text"])
    units = split_units(run)
    assert "NEAR" not in case.mentions
    phones = [s for s in (*case.train, *case.held_out) if s.kind == "PHONE_NUMBER"]
    assert len(phones) > 10
    assert {s.unit for s in case.train} <= units["train"]
    assert {s.unit for s in case.held_out} <= units["validation"]
    encoder = Encoder(store.tokenizer)
    for sentence in phones:
        number = store.tokenizer.decode(list(sentence.secret))
        rows = [encoder.located(text)[0] for text in original[sentence.unit]]
        row = [*sentence.left, *sentence.secret, *sentence.right]
        assert any(
            list(found[start : start + len(row)]) == row
            for found in rows
            for start in range(len(found))
        )
        assert "212" in number
    trained = [d["text"] for d in read_shards(run.folder("corpus")) if d["unit"] in units["train"]]
    for secret, count in case.mentions["PHONE_NUMBER"].items():
        digits = "".join(store.tokenizer.decode(list(secret)).split())[-4:]
        assert count == sum(f"555-{digits}" in text for text in trained) > 0
    for secret in case.unseen["PHONE_NUMBER"]:
        digits = "".join(store.tokenizer.decode(list(secret)).split())[-4:]
        assert not any(f"555-{digits}" in text for text in trained)


def test_identifiers_of_the_training_text_are_what_a_tagger_finds_there(run) -> None:
    case = pii_case(run, near)
    assert set(case.mentions) == {"NEAR"}
    assert case.held_out == []  # the word stands in training text, so it is nobody unseen
    assert len({s.unit for s in case.train}) == len(case.train) > 5
    store = TokenStore.open(run.folder("tokens"))
    assert {store.tokenizer.decode(list(s.secret)) for s in case.train} == {"near"}
    documents = [d for d in read_shards(run.source("tokens")) if d["split"] == "train"]
    assert list(case.mentions["NEAR"].values()) == [len(documents)]


def test_the_games_are_played_on_a_run(run) -> None:
    target = audits.LoadedModel.of(*load_model(run.folder("training")))
    untrained = audits.LoadedModel.of(initial_model(run, target.tokenizer), target.tokenizer)
    case = pii_case(run, near, text="original", documents=5)
    found = pii_games(target, untrained, case, samples=4)
    assert found["applicable"] is True
    assert found["reconstructable"]["top_1"]["all"]["target"]["trials"] == len(case.train)
    # Scrubbed text never held the numbers.
    assert found["reconstructable"]["top_10"]["all"]["target"]["hits"] == 0
    assert json.loads(json.dumps(found))["label"] == "private"


def test_the_tagger_leaves_placeholders_alone() -> None:
    with finding_identifiers() as tagger:
        text = "Ms Jane Roe met <PERSON> and wrote to jane.roe@example.org on <DATE_TIME>."
        found = tagger(text)
    said = {text[start:end] for start, end, _ in found}
    assert "jane.roe@example.org" in said
    assert not any("PERSON" in one or "DATE" in one for one in said)
