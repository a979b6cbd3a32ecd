"""Exploratory groups under three scores: exact where they can be, sides by coins alone, bounded."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from audits import group_scores
from audits.exploring import explore
from audits.exposures.exposure import exposures, mean_ceiling
from audits.exposures.tails import tails_of
from audits.group_scores import rows_explored, score_groups
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet
from audits.planting.canary import CanaryGroup
from audits.planting.families import GroupRequest, draw_texts, split_group, split_texts
from audits.planting.labels import Labels
from audits.planting.secret_random import SecretRandom
from audits.scores.scoring import joint_logprobs, secret_positions

pytestmark = pytest.mark.xdist_group("exploring")

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789()-@."
SEED = b"alternatives are drawn from this"


def spelling_with(*pieces: str) -> PreTrainedTokenizerFast:
    every = [*SPECIALS, *CHARACTERS, *(f"##{c}" for c in CHARACTERS), *pieces]
    backend = Tokenizer(models.WordPiece({p: at for at, p in enumerate(every)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    roles = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIALS))
    named = {f"{role}_token": token for role, token in roles.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, do_lower_case=True, **named)


def phones(tokenizer, family="phone", count=4) -> CanaryGroup:
    drawn = draw_texts(GroupRequest(family, count), 1, SecretRandom(b"structured"))
    lower = tuple(replace(c, text=(c.text[0].lower(), c.text[1])) for c in drawn.canaries)
    return split_group(replace(drawn, canaries=lower), tokenizer, room=62)


@pytest.fixture(scope="module")
def speller() -> LoadedModel:
    tokenizer = spelling_with("12", "##00", "##19")
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=16,
        max_position_embeddings=70,
        initializer_range=0.5,
    )
    return LoadedModel.of(BertForMaskedLM(config), tokenizer)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        group_scores, "SAMPLES", {"left_to_right": 100, "joint": 120, "pll_word_l2r": 110}
    )


def planted(canaries: CanarySet, *groups: CanaryGroup) -> CanarySet:
    return replace(canaries.without_labels(), groups=groups)


def explored(
    canaries: CanarySet, labels: Labels, models: dict, plan: dict, *, seed=SEED, progress=None
) -> list[dict]:
    scored = score_groups(canaries, models, seed=seed, progress=progress)
    return explore(canaries, labels, scored, plan)


def words(canaries: CanarySet, count: int) -> CanaryGroup:
    return CanaryGroup("rare_tokens", "exempt", 1, canaries.canaries[:count])


def test_a_product_is_ranked_by_every_score_and_exactly_where_it_is_known(
    leaky: LoadedModel, canaries: CanarySet, plan: dict, few: None
) -> None:
    group = words(canaries, 16)
    (told,) = explored(planted(canaries, group), canaries.opened, {"target": leaky}, plan)
    found = told["models"]["target"]
    assert list(found["scores"]) == ["left_to_right", "joint", "pll_word_l2r"]
    assert told["default_score"] == "left_to_right"
    assert [s["secondary"] for s in found["scores"].values()] == [False, False, True]
    coins = np.array(canaries.opened.of(group.canaries))
    exact = exposures(joint_logprobs(leaky, group.canaries), secret_positions(group.canaries))
    bits = np.array([[one.optimistic, one.conservative] for one in exact])[coins].mean(axis=0)
    joint, chained = found["scores"]["joint"], found["scores"]["left_to_right"]
    assert (joint["method"], joint["exact"], joint["samples"]) == ("exact", 16, None)
    inside = joint["in"]["mean_bits_optimistic"], joint["in"]["mean_bits"]
    assert inside == pytest.approx(tuple(bits))
    # What the model knows is likely, so that its tree is small; the rest is sampled.
    assert 5 <= chained["exact"] <= coins.sum()
    assert chained["samples"] == 100
    assert chained["in"]["max_bits"] > 20 > chained["cap_bits"]
    assert chained["out"]["max_bits"] <= chained["cap_bits"]
    assert found["scores"]["pll_word_l2r"]["method"] == "sampled"
    for score in found["scores"].values():
        assert score["ceiling"]["bits"] == pytest.approx(mean_ceiling(8.0, 1e-6, 36), abs=0.05)
        assert score["in_vs_out"]["auc"] > 0.9
    assert found["extraction"]["in"]["extracted"] > 3 > found["extraction"]["out"]["extracted"]
    text = json.dumps(told, allow_nan=False)
    assert not any(json.dumps(list(canary.secret)) in text for canary in group.canaries)


def test_coins_decide_the_sides_and_nothing_else(
    untrained: LoadedModel, canaries: CanarySet, plan: dict, few: None
) -> None:
    group = words(canaries, 4)
    coins = dict(zip((canary.id for canary in group.canaries), canaries.opened.of(group.canaries)))
    labels = (Labels("0" * 64, coins), Labels("0" * 64, {name: not c for name, c in coins.items()}))
    one, other = (
        explored(planted(canaries, group), given, {"target": untrained}, plan)[0]["models"]
        for given in labels
    )
    one, other = one["target"], other["target"]
    for rule, score in one["scores"].items():
        for side, swapped in (("in", "out"), ("out", "in")):
            assert score[side] == other["scores"][rule][swapped]
    assert one["extraction"]["in"] == other["extraction"]["out"]


def test_rows_are_bounded_and_counted(
    untrained: LoadedModel, broken: LoadedModel, canaries: CanarySet, plan: dict, few, monkeypatch
) -> None:
    monkeypatch.setattr(group_scores, "MOST_CANARIES", 3)
    planned, seen = planted(canaries, words(canaries, 5)), []
    models_ = {"target": untrained, "control": broken, "absent": None}
    (told,) = explored(planned, canaries.opened, models_, plan, progress=seen.append)
    assert sum(seen) == 2 * rows_explored(planned) == 2 * (3 + 5 + 3)
    scored = told["models"]["target"]["scores"]
    assert {rule: s["canaries_scored"] for rule, s in scored.items()} == {
        "left_to_right": 3, "joint": 5, "pll_word_l2r": 3
    }  # fmt: skip
    assert all(s["in"]["n"] + s["out"]["n"] == s["canaries_scored"] for s in scored.values())
    assert "not finite" in told["models"]["control"]["reason"]
    assert told["models"]["absent"] is None


def test_last_digits_are_ranked_exactly(
    speller: LoadedModel, canaries: CanarySet, plan: dict, few: None
) -> None:
    group = phones(speller.tokenizer, count=2)
    labels = Labels("0" * 64, {canary.id: bool(at) for at, canary in enumerate(group.canaries)})
    (told,) = explored(planted(canaries, group), labels, {"target": speller}, plan)
    scores = told["models"]["target"]["scores"]
    tail = scores["left_to_right"]
    assert (tail["method"], tail["exact"]) == ("exact", 2)
    assert tail["ranked"] == "its last 4 digits, given the rest"
    assert tail["space_bits"] == pytest.approx(4 * np.log2(10))
    assert tail["ceiling"]["bits"] < tail["space_bits"]
    for rule, samples in (("joint", 120), ("pll_word_l2r", 110)):
        assert scores[rule]["ranked"] == "the whole secret"
        assert samples - 1 <= scores[rule]["samples"] <= samples
        assert scores[rule]["space_bits"] > 30
    assert "extraction" not in told["models"]["target"]


@pytest.mark.parametrize(
    ("family", "open_"), [pytest.param("phone", 10_000, marks=pytest.mark.full), ("card", 1000)]
)
def test_tails_are_those_of_whole_secrets(speller: LoadedModel, family: str, open_: int) -> None:
    group = phones(speller.tokenizer, family, 3)
    tails = tails_of(family, group.canaries, speller.tokenizer)
    assert tails is not None
    for canary, tail in zip(group.canaries, tails):
        before, secret = canary.text
        assert tail.before + tail.own == canary.tokens
        assert len(tail.candidates) == len(set(tail.candidates)) == open_
        assert tail.own in tail.candidates
        listed = set(tail.candidates)
        for number in range(0, 10_000, 97):
            other = f"{secret[:-4]}{number:04d}"
            ((head, own),) = split_texts([(before, other)], speller.tokenizer, family=family)
            digits = [int(d) for d in other if d.isdecimal()][::-1]
            doubled = [d if at % 2 == 0 else sum(divmod(2 * d, 10)) for at, d in enumerate(digits)]
            valid = family == "phone" or sum(doubled) % 10 == 0
            assert ((head + own)[len(tail.before) :] in listed) == valid


def test_tails_that_cannot_be_told_apart_are_left_to_samples(speller: LoadedModel) -> None:
    emails = phones(speller.tokenizer, "email", 2)
    assert tails_of("email", emails.canaries, speller.tokenizer) is None
    assert tails_of("phone", (), speller.tokenizer) is None
    # A tokenizer for which a number is one word: its pieces may reach over the edge of a tail.
    joined = spelling_with("-12", "##-0")
    joined.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    group = phones(joined, count=40)
    assert tails_of("phone", group.canaries, joined) is None
