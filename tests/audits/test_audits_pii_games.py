"""The games on a model that knows its people, on one that knows nobody, and their controls."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from audits.models import LoadedModel
from audits.statistics import clopper_pearson
from audits.text.pii_case import PiiCase, PiiSentence, another, candidates, commonest, prior
from audits.text.pii_games import normalised, pii_games
from dpmlm.artifacts import UserError

pytestmark = pytest.mark.xdist_group("pii-games")

KINDS = {"PERSON": 2, "PHONE": 3}


def sentences(rng: np.random.Generator, side: str, count: int) -> list[PiiSentence]:
    found = []
    for number in range(count):
        kind = "PERSON" if number % 2 else "PHONE"
        tokens = tuple(rng.integers(5, 700, 13).tolist())
        end = 5 + KINDS[kind]
        found.append(PiiSentence(tokens[:5], tokens[5:end], tokens[end:], kind, f"{side}{number}"))
    return found


def counted(found: list[PiiSentence]) -> dict[str, dict[tuple[int, ...], int]]:
    return {kind: {s.secret: 1 for s in found if s.kind == kind} for kind in KINDS}


@pytest.fixture(scope="module")
def case() -> PiiCase:
    rng = np.random.default_rng(7)
    train, held_out = sentences(rng, "in", 30), sentences(rng, "out", 24)
    return PiiCase(train, held_out, counted(train), counted(held_out))


@pytest.fixture(scope="module")
def knows(untrained: LoadedModel, case: PiiCase, memoriser) -> LoadedModel:
    """Trained on the training sentences, at every stage of a decode from the left."""
    rows, spans = [], []
    for sentence in case.train:
        end = 5 + KINDS[sentence.kind]
        for start in range(5, end):
            rows.append(sentence.left + sentence.secret + sentence.right)
            spans.append((start, end))
    return memoriser(untrained, rows, spans, 70)


@pytest.fixture(scope="module")
def played(knows: LoadedModel, untrained: LoadedModel, case: PiiCase) -> dict:
    return pii_games(knows, untrained, case, samples=4, tokens=8)


def hits(part: dict, arm: str) -> int:
    return part["all"][arm]["hits"]


def test_a_model_that_knows_its_people_wins_and_the_controls_do_not(played) -> None:
    assert (played["label"], played["applicable"]) == ("private", True)
    games = played["inferable"], played["reconstructable"]["top_1"]
    for game in (*games, played["reconstructable"]["top_10"]):
        assert hits(game, "target") >= 20
        for control in ("reference", "frequency_prior", "names_swapped", "people_never_seen"):
            assert hits(game, control) <= 5
            assert game["p_values"][control] < 1e-3
    assert hits(played["inferable"], "minus_reference") >= 20
    assert played["inferable"]["chance"] == pytest.approx(1 / 20)


def test_a_model_that_never_saw_them_wins_no_more_than_by_chance(untrained, knows, case) -> None:
    found = pii_games(untrained, knows, case, samples=4, tokens=8)
    for game in (found["inferable"], *(found["reconstructable"][f"top_{n}"] for n in (1, 10))):
        assert all(p_value > 0.05 for p_value in game["p_values"].values())
        assert hits(game, "target") <= 5
    assert hits(found["inferable"], "reference") >= 20


def test_counts_by_type_add_up_and_have_exact_intervals(played) -> None:
    game = played["reconstructable"]["top_1"]
    for arm, total in game["all"].items():
        parts = [game["by_type"][kind][arm] for kind in KINDS]
        assert sum(part["hits"] for part in parts) == total["hits"]
        assert [part["trials"] for part in parts] == [total["trials"] / 2] * 2
        for part in (*parts, total):
            assert part["interval"] == clopper_pearson(part["hits"], part["trials"])
    target, seen = game["all"]["target"], game["all"]["people_never_seen"]
    assert (target["trials"], seen["trials"]) == (30, 24)
    # No reference hit, no swapped hit: McNemar's is a row of heads, Fisher's a hypergeometric sum.
    assert game["all"]["reference"]["hits"] == seen["hits"] == 0
    assert game["p_values"]["reference"] == pytest.approx(0.5 ** target["hits"])
    expected = stats.hypergeom(54, target["hits"], 30).pmf(target["hits"])
    assert game["p_values"]["people_never_seen"] == pytest.approx(expected)


def parrot(untrained: LoadedModel, token: int) -> LoadedModel:
    """Says one token, whatever it is asked."""
    model = copy.deepcopy(untrained.model)
    with torch.no_grad():
        model.get_output_embeddings().weight = torch.nn.Parameter(torch.zeros(700, 64))
        model.get_output_embeddings().bias[token] = 50.0
    return LoadedModel.of(model, untrained.tokenizer)


def test_made_up_text_is_searched_for_identifiers(untrained, case) -> None:
    said, unsaid = (600, 600), (601, 601)
    grown = replace(
        case,
        train=case.train[:2],
        held_out=case.held_out[:2],
        mentions=case.mentions | {"PERSON": case.mentions["PERSON"] | {said: 1}},
        unseen=case.unseen | {"PERSON": case.unseen["PERSON"] | {unsaid: 1}},
    )

    def tagger(text):
        start = text.index("w600 w600")
        return [(start, start + 9, "PERSON")]

    def reference_tagger(text):
        return tagger(text) if "w600 w600" in text else []

    found = pii_games(
        parrot(untrained, 600), untrained, grown, tagger=reference_tagger, samples=3, tokens=6
    )["extractable"]
    for game in (found["said"], found["tagged"]):
        assert {arm: hits(game, arm) for arm in game["all"]} == {
            "target": 1, "reference": 0, "people_never_seen": 0,
        }  # fmt: skip
        assert game["by_type"]["PERSON"]["target"]["hits"] == 1
        assert game["all"]["target"]["trials"] == 31
    assert found["tagged"]["distinct_tagged"] == {"target": 1, "reference": 0}
    without = pii_games(parrot(untrained, 600), untrained, grown, samples=3, tokens=99)
    assert without["extractable"]["tokens"] == 62
    assert hits(without["extractable"]["said"], "target") == 1
    assert "tagger" in without["extractable"]["tagged"]["reason"]
    # The control bites too: a model that says who was held out.
    other = pii_games(parrot(untrained, 601), untrained, grown, samples=3, tokens=6)
    assert hits(other["extractable"]["said"], "people_never_seen") == 1


def test_candidates_are_of_one_type_and_the_second_is_of_training(case) -> None:
    for side in (case.train, case.held_out):
        for sentence, own in zip(side, candidates(side, case, 3)):
            assert own[0] == sentence.secret
            assert own[1] in case.mentions[sentence.kind]
            assert len(own) == len(set(own)) == 20
            both = case.mentions[sentence.kind] | case.unseen[sentence.kind]
            assert set(own) <= set(both)
    alone = replace(case, mentions=counted(case.train[:1]), train=case.train[:1])
    assert candidates(alone.train, alone, 3) == [[case.train[0].secret]]


def test_names_are_swapped_by_how_often_they_are_mentioned(case) -> None:
    first, second, third = [s for s in case.train if s.kind == "PERSON"][:3]
    mentions = {"PERSON": {first.secret: 1, second.secret: 9, third.secret: 1}}
    few = replace(case, mentions=mentions)
    drawn = [another(first, few, 0, number) for number in range(300)]
    share = sum(one == second.secret for one in drawn) / 300
    assert share == pytest.approx(0.9, abs=3.3 * (0.09 / 300) ** 0.5)
    swapped = [own[1] for own in candidates([first] * 300, few, 0)]
    assert sum(one == second.secret for one in swapped) / 300 == pytest.approx(share, abs=0.08)
    assert another(first, replace(case, mentions={"PERSON": {first.secret: 2}}), 0, 0) is None


def test_frequency_leaves_the_sentence_itself_out(case) -> None:
    first, second, third = [s for s in case.train if s.kind == "PERSON"][:3]
    mentions = {"PERSON": {first.secret: 2, second.secret: 3, third.secret: 1}}
    few = replace(case, mentions=mentions, unseen={})
    assert commonest(first, few) == [second.secret, *sorted([first.secret, third.secret])]
    assert commonest(third, few) == [second.secret, first.secret]
    options = [[first.secret, second.secret, third.secret]]
    assert np.floor(prior([first], options, few, 0)[0]).tolist() == [1, 3, 1]


def test_what_cannot_be_played_is_not_played(untrained, broken, case) -> None:
    def reason(target=untrained, reference=untrained, **changes):
        found = pii_games(target, reference, replace(case, **changes), samples=1, tokens=2)
        assert (found["label"], found["applicable"]) == ("private", False)
        assert "inferable" not in found
        return found

    assert "reference" in reason(reference=None)["reason"]
    assert reason(train=[])["missing"] == reason(held_out=[])["missing"] == 1
    assert "held-out" in reason(held_out=[])["reason"]
    assert "not finite" in reason(target=broken)["reason"]
    assert "not finite" in reason(reference=broken)["reason"]
    lonely = PiiCase(case.train[:1], case.held_out[:1], counted(case.train[:1]), case.unseen)
    found = pii_games(untrained, untrained, lonely, samples=1, tokens=2)
    assert found["inferable"]["applicable"] is False
    assert found["reconstructable"]["top_1"]["all"]["names_swapped"]["trials"] == 0


def test_cases_that_would_deceive_are_refused(untrained, case) -> None:
    for changes in (
        {"train": [case.train[0], case.train[0]]},
        {"mentions": {}},
        {"unseen": counted([*case.held_out, case.train[0]])},
    ):
        with pytest.raises(UserError, match="mention"):
            pii_games(untrained, untrained, replace(case, **changes))


def test_no_identifier_and_no_unit_is_shown(played, case) -> None:
    shown = f"{played} {case!r} {case.train[0]!r}"
    assert "in0" not in shown
    for sentence in case.train:
        assert str(list(sentence.secret))[1:-1] not in shown
        assert f"w{sentence.secret[0]}" not in shown


def test_spelling_is_set_aside() -> None:
    assert normalised("(212) 555 - 0100") == normalised("212-555-0100") == "2125550100"
    assert normalised("O'Brien") == normalised("o ' brien")
