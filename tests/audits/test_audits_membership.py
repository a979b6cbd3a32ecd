"""Membership of real records: what an overfitted model shows, an untrained one and blind guesses
do not, and when nothing can be said."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from audits.models import LoadedModel
from audits.scores.masked_loss import masked_losses
from audits.text import blind
from audits.text.membership import (
    PER_RECORD,
    MembershipCase,
    Record,
    above_blind,
    calibrated,
    lira_offline,
    membership,
    rmia,
)
from audits.text.roc import Scores, gain
from dpmlm.artifacts import UserError

pytestmark = pytest.mark.xdist_group("membership")

TOKENS = 16


def draw(rng: np.random.Generator, units: int, side: str, each: int = 1) -> list[Record]:
    rows = rng.integers(5, 700, (units * each, TOKENS)).tolist()
    return [Record(tuple(row), f"{side}{index // each}") for index, row in enumerate(rows)]


@pytest.fixture(scope="module")
def case() -> MembershipCase:
    rng = np.random.default_rng(1)
    return MembershipCase(
        members=draw(rng, 30, "in", 2),
        non_members=draw(rng, 110, "out"),
        population=draw(rng, 30, "other"),
        randomised=True,
    )


@pytest.fixture(scope="module")
def references(untrained: LoadedModel) -> list[LoadedModel]:
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(LoadedModel.of(BertForMaskedLM(untrained.model.config), untrained.tokenizer))
    return models


@pytest.fixture(scope="module")
def overfitted(untrained: LoadedModel, case: MembershipCase, memoriser) -> LoadedModel:
    """Trained on the members until it knows them, a quarter masked at a time."""
    rows = [record.tokens for record in case.members]
    places = [start for start in range(0, TOKENS, 4) for _ in rows]
    return memoriser(untrained, rows * 4, [(start, start + 4) for start in places], 25)


def test_an_overfitted_model_shows_its_members(overfitted, references, case) -> None:
    found = membership(overfitted, references, case, masks=4)
    assert found["label"] == "private"
    assert found["records"] == {"members": 60, "non_members": 110, "population": 30}
    assert found["units"] == {"members": 30, "non_members": 110, "population": 30}
    for level in (found["record_level"], found["person_level"]):
        assert set(level["leaks"]) == {"calibrated_loss", "lira_offline", "rmia"}
        highest = max(part["auc_interval"][1] for part in level["blind"].values())
        for name, attack in level["attacks"].items():
            assert attack["auc_interval"][0] > highest
            assert attack["above_blind"]["gain_interval"][0] > 0
            if name == "rmia":  # 30 others leave many scores at 1
                assert attack["tpr_at"]["0.01"]["missing"] == 70
            else:
                assert attack["tpr_at"]["0.01"]["interval"][0] > 0.2
                assert attack["tpr_at"]["0.001"]["missing"] == 890


@pytest.mark.parametrize("role", ["untrained", "reference"])
def test_a_model_that_never_trained_shows_nothing(untrained, references, case, role) -> None:
    model = {"untrained": untrained, "reference": references[0]}[role]
    found = membership(model, references, case, masks=4)
    for level in (found["record_level"], found["person_level"]):
        assert level["leaks"] == []
        for attack in level["attacks"].values():
            low, high = attack["auc_interval"]
            assert low <= 0.5 <= high or attack["auc"] < 0.5
            assert attack["above_blind"]["p_value"] > 0.05


def test_what_the_text_alone_tells_is_no_leak(overfitted, references, case) -> None:
    """Members of a language of their own: every attack is right, and none adds to the words."""
    apart = [Record(tuple(5 + t % 300 for t in r.tokens), r.unit) for r in case.members]
    others = [Record(tuple(400 + t % 300 for t in r.tokens), r.unit) for r in case.non_members]
    found = membership(
        overfitted, references, replace(case, members=apart, non_members=others), masks=2
    )
    words = found["record_level"]["blind"]["bag_of_words"]
    assert words["auc"] == 1.0
    assert found["record_level"]["leaks"] == []
    assert found["record_level"]["attacks"]["rmia"]["above_blind"]["rival"] == "bag_of_words"


def test_scores_are_those_of_loops() -> None:
    rng = np.random.default_rng(2)
    target_N, references_KN = rng.uniform(1, 5, 9), rng.uniform(1, 5, (3, 9))
    target_Z, references_KZ = rng.uniform(1, 5, 7), rng.uniform(1, 5, (3, 7))

    def ratio(loss, references):
        return math.exp(-loss) / (sum(math.exp(-other) for other in references) / 3)

    for gamma in (1.0, 1.5):
        expected = [
            sum(
                ratio(target_N[x], references_KN[:, x]) / ratio(target_Z[z], references_KZ[:, z])
                >= gamma
                for z in range(7)
            )
            / 7
            for x in range(9)
        ]
        found = rmia(target_N, references_KN, target_Z, references_KZ, gamma=gamma)
        assert found.tolist() == pytest.approx(expected)
    assert 0 < np.mean(expected) < 1
    pooled = math.sqrt(sum(np.var(column, ddof=1) for column in references_KN.T) / 9)
    by_hand = [(sum(references_KN[:, x]) / 3 - target_N[x]) / pooled for x in range(9)]
    assert lira_offline(target_N, references_KN).tolist() == pytest.approx(by_hand)
    assert calibrated(target_N, references_KN[0])[0] == references_KN[0, 0] - target_N[0]


def test_a_record_beats_its_equal() -> None:
    """LR(x, z) >= gamma: equality counts, as the paper has it."""
    same = np.array([2.0, 3.0])
    assert rmia(same, same[None] + 1, same[:1], same[None, :1] + 1).tolist() == [1.0, 1.0]


def test_an_attack_must_beat_chance_too() -> None:
    """Baselines that are wrong throughout are no proof of a leak."""
    attack = Scores.of(np.arange(0, 120, 2), np.arange(1, 121, 2))  # in turns: it tells nothing
    wrong = Scores.of(np.arange(60.0), np.arange(60.0) + 50)
    found = above_blind(attack, {"bag_of_words": wrong}, 0.95)
    assert gain(attack, wrong)[2] < 1e-6
    assert found["rival"] == "chance"
    assert found["p_value"] > 0.05


def test_lira_takes_a_records_own_deviation_from_many_models() -> None:
    rng = np.random.default_rng(3)
    references_KN = rng.normal(3, [[0.1, 2.0]], (PER_RECORD, 2))
    scores = lira_offline(np.array([2.0, 2.0]), references_KN)
    for x in range(2):
        column = references_KN[:, x]
        assert scores[x] == pytest.approx((column.mean() - 2) / np.std(column, ddof=1))
    assert scores[0] > 5 > scores[1]


def test_one_reference_orders_by_rmia_as_by_the_calibrated_loss() -> None:
    rng = np.random.default_rng(4)
    target, reference = rng.uniform(1, 5, 40), rng.uniform(1, 5, (1, 40))
    scores = rmia(target[:30], reference[:, :30], target[30:], reference[:, 30:])
    order = np.argsort(calibrated(target[:30], reference[0, :30]))
    assert (np.diff(scores[order]) >= 0).all()
    assert len(np.unique(scores)) > 5


def test_naive_bayes_is_held_out_and_is_that_of_a_dictionary() -> None:
    rng = np.random.default_rng(5)
    rows = [rng.integers(5, 12, rng.integers(2, 6)).tolist() for _ in range(30)]
    member, units = np.arange(30) < 14, np.arange(30) // 2
    known, asked = np.arange(0, 25), np.arange(25, 30)
    found = {}

    def spy(fit, member, units, *, seed):
        found["odds"] = fit(known)(asked)
        return found["odds"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blind, "held_out", spy)
        blind.bag_of_words(rows, member, units, seed=0)
    vocabulary = {token for row in rows for token in row}

    def log_share(token, label):
        seen = [t for i in known if member[i] == label for t in rows[i]]
        return math.log((seen.count(token) + 1) / (len(seen) + len(vocabulary)))

    for index, value in zip(asked, found["odds"]):
        odds = [log_share(t, True) - log_share(t, False) for t in rows[index]]
        assert value == pytest.approx(sum(odds) / len(odds))


def test_no_unit_is_scored_by_what_it_taught() -> None:
    member, units = np.arange(60) < 30, np.arange(60) // 3
    seen = []

    def fit(known):
        def score(asked):
            assert not set(units[known]) & set(units[asked])
            assert set(member[known]) == {True, False}
            seen.extend(asked.tolist())
            return asked.astype(float)

        return score

    assert blind.held_out(fit, member, units, seed=1).tolist() == list(range(60))
    assert sorted(seen) == list(range(60))


def test_a_direction_is_learnt_from_other_units() -> None:
    feature = np.concatenate([np.full(30, -2.0), np.full(30, 3.0)])
    member = np.arange(60) < 30
    scores = blind.directed(feature, member, np.arange(60), seed=1)
    assert scores[member].min() > scores[~member].max()


def test_what_cannot_be_said_is_not_said(untrained, broken, references, case) -> None:
    def reason(**changes):
        found = membership(
            changes.pop("target", untrained),
            changes.pop("references", references),
            replace(case, **changes),
            masks=1,
        )
        assert (found["label"], found["applicable"]) == ("private", False)
        assert "record_level" not in found
        return found

    assert "not drawn at random" in reason(randomised=False)["reason"]
    assert reason(references=[])["missing"] == 1
    few = reason(non_members=case.non_members[:29])
    assert few["missing"] == 1
    assert "non-members" in few["reason"]
    assert reason(members=case.members[:40])["missing"] == 10  # two records a unit
    assert "the model: " in reason(target=broken)["reason"]
    assert "a reference: " in reason(references=[broken])["reason"]


def test_attacks_that_lack_something_are_told_apart(untrained, references, case) -> None:
    alone = replace(case, members=case.members[::2], population=case.population[:9])
    found = membership(untrained, references[:1], alone, masks=1)
    assert set(found["record_level"]["attacks"]) == {"calibrated_loss"}
    assert found["record_level"]["skipped"]["lira_offline"]["missing"] == 1
    assert found["record_level"]["skipped"]["rmia"]["missing"] == 21
    assert found["person_level"]["applicable"] is False


def test_a_unit_on_two_sides_is_refused(untrained, references, case) -> None:
    both = replace(case, non_members=[*case.non_members, case.members[0]])
    with pytest.raises(UserError, match="two sides"):
        membership(untrained, references, both)


def test_no_text_and_no_unit_is_shown(untrained, references, case) -> None:
    found = membership(untrained, references, case, masks=1)
    assert "in0" not in f"{case!r} {case.members[0]!r} {found}"
    assert str(case.members[0].tokens[0]) not in repr(case.members[0])


def test_persons_are_scored_by_the_mean_of_their_records(untrained, references, case) -> None:
    found = membership(untrained, references[:1], case, masks=2, seed=3)
    rows = [record.tokens for record in (*case.members, *case.non_members)]
    target, reference = masked_losses([untrained, references[0]], rows, masks=2, seed=3)
    scores = reference - target
    persons = [(scores[i] + scores[i + 1]) / 2 for i in range(0, 60, 2)]
    area = np.mean([person > other for person in persons for other in scores[60:]])
    attack = found["person_level"]["attacks"]["calibrated_loss"]
    assert attack["auc"] == pytest.approx(area)
    assert attack["tpr_at"]["0.01"]["members"] == 30


@pytest.mark.full
def test_leaks_without_a_leak_are_as_rare_as_they_say(untrained, references, monkeypatch) -> None:
    """200 sets of losses that know nothing of membership: at most 22 alarms at 5 % (99.9 %)."""
    from audits.text import membership as module

    alarms = 0
    for number in range(200):
        rng = np.random.default_rng(number)
        case = MembershipCase(
            members=draw(rng, 40, "in", 2),
            non_members=draw(rng, 40, "out", 2),
            population=draw(rng, 40, "other"),
            randomised=True,
        )
        ease = rng.normal(3, 1, 200)
        losses = np.stack([ease + rng.normal(0, 0.3, 200) for _ in range(3)])
        monkeypatch.setattr(module, "masked_losses", lambda *_, found=losses, **__: found)
        found = membership(untrained, references, case, seed=number)
        alarms += bool(found["record_level"]["leaks"])
    assert alarms <= 22
