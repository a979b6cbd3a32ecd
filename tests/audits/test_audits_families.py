"""Families and groups: drawn fairly, split as planned, never taken for one another."""

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import audits
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet, plan_canaries
from audits.planting.canary import Canary, CanaryGroup
from audits.planting.families import (
    FAMILIES,
    SNIPPET_WORDS,
    GroupRequest,
    TokenPools,
    case_of,
    check_tokenizer,
    draw_texts,
    draw_tokens,
    refuse_alike,
    split_group,
    split_texts,
    vocabulary_digest,
    word_tokens,
)
from audits.planting.identifiers import IDENTIFIERS, luhn_digit
from audits.planting.labels import Labels
from audits.planting.secret_random import SecretRandom
from dpmlm.artifacts import IntegrityError, UserError, canonical_json

pytestmark = pytest.mark.xdist_group("families")

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789()-@. "
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def tokenizer_of(backend: Tokenizer) -> PreTrainedTokenizerFast:
    roles = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIALS))
    named = {f"{role}_token": token for role, token in roles.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **named)


def wordpieces(words: list[str], splitter=None) -> PreTrainedTokenizerFast:
    """Characters, and some whole words."""
    single = [c for c in CHARACTERS if c != " "]
    pieces = [*SPECIALS, *single, *(f"##{c}" for c in single), *words]
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    from tokenizers import normalizers

    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = splitter or pre_tokenizers.BertPreTokenizer()
    return tokenizer_of(backend)


WORDS = [a + b + c for a in LETTERS[:7] for b in LETTERS[:7] for c in "xyz"]


@pytest.fixture(scope="module")
def spelling() -> PreTrainedTokenizerFast:
    return wordpieces(WORDS)


def texts(family: str, count: int, **more) -> CanaryGroup:
    return draw_texts(GroupRequest(family, count, **more), 1, SecretRandom(b"texts"))


def said(tokenizer, tokens) -> str:
    """The characters of some pieces, without blanks."""
    return "".join(tokenizer.convert_ids_to_tokens(list(tokens))).replace("##", "")


def bare(text: str) -> str:
    return text.lower().replace(" ", "")


def luhn_holds(number: str) -> bool:
    """The check of ISO/IEC 7812 as it is told: double every second digit from the right, add."""
    total = 0
    for place, digit in enumerate(number[::-1]):
        total += sum(int(d) for d in str(int(digit) * 2)) if place % 2 else int(digit)
    return total % 10 == 0


def test_luhn_against_a_naive_check_and_the_published_example():
    assert luhn_digit("7992739871") == "3"
    rng = random.Random(1)
    for _ in range(200):
        body = "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 18)))
        passing = [digit for digit in "0123456789" if luhn_holds(body + digit)]
        assert passing == [luhn_digit(body)]


def test_identifiers_are_uniform_in_spaces_of_the_size_they_say():
    draw = SecretRandom(b"uniform")
    phones = [IDENTIFIERS["phone"].draw(draw) for _ in range(12_000)]
    areas = Counter(phone[1:4] for phone in phones)
    exchanges = Counter(phone[6:9] for phone in phones)
    assert not any(exchange.endswith("11") or exchange[0] in "01" for exchange in exchanges)
    assert len(areas) * (8 * 100 - 8) * 10**4 == IDENTIFIERS["phone"].space
    assert stats.chisquare(list(areas.values())).pvalue > 1e-4
    assert stats.chisquare(list(Counter(phone[-4] for phone in phones).values())).pvalue > 1e-4
    cards = [IDENTIFIERS["card"].draw(draw).replace(" ", "") for _ in range(3000)]
    assert all(len(card) == 16 and card[0] == "4" and luhn_holds(card) for card in cards)
    for place in range(1, 16):
        found = Counter(card[place] for card in cards)
        assert len(found) == 10
        assert stats.chisquare(list(found.values())).pvalue > 1e-5
    mails = [IDENTIFIERS["email"].draw(draw) for _ in range(3000)]
    names, domains = zip(*(mail.split("@") for mail in mails))
    assert set(domains) == {"example.com", "example.org", "example.net"}
    assert stats.chisquare(list(Counter(name[0] for name in names).values())).pvalue > 1e-4
    assert {(name[:7].isalpha(), name[7:].isdigit(), len(name)) for name in names} == {
        (True, True, 9)
    }
    assert IDENTIFIERS["email"].space == 26**7 * 100 * 3
    assert min(kind.space_bits for kind in IDENTIFIERS.values()) > 30


def test_coins_of_a_group_are_fair_and_beginnings_differ():
    group = texts("phone", 3000, copies=4)
    planned = plan_canaries(
        count=0, token_ids=range(100, 400), prefix_ids=range(400, 600), groups=[group],
        secret=b"coins",
    )  # fmt: skip
    coins = np.array(planned.opened.of(group.canaries), dtype=float)
    assert stats.binomtest(int(coins.sum()), 3000).pvalue > 1e-4
    assert len({canary.text[0] for canary in group.canaries}) == 3000
    assert {canary.copies for canary in group.canaries} == {4}
    digits = np.array([int(canary.text[1][-1]) for canary in group.canaries], dtype=float)
    assert abs(np.corrcoef(coins, digits)[0, 1]) < 0.08


@pytest.fixture(scope="module")
def pools(spelling) -> TokenPools:
    spelled = word_tokens(spelling)
    ids = list(spelled)
    rng = random.Random(3)
    public = [" ".join(rng.choice(WORDS) for _ in range(40)) for _ in range(50)]
    return TokenPools(
        rare=ids[:70], common=ids[70:], words=ids, public=public, spelled=spelled, room=62
    )


@pytest.mark.parametrize("family", ["rare_tokens", "random_words", "rare_suffix"])
def test_token_families_have_exact_spaces_and_are_written_as_the_text_they_split_from(
    family, pools, spelling
):
    request = GroupRequest(family, 40, copies=16)
    group = draw_tokens(request, 3, pools, spelling, SecretRandom(b"tokens"))
    assert group.exact
    assert group.space_bits == 36
    assert (group.name, group.public()["copies"]) == (f"{family}/16/exempt", 16)
    allowed = set(pools.words if family == "random_words" else pools.rare)
    shown = " ".join(pools.public)
    for canary in group.canaries:
        assert allowed.issuperset(canary.secret)
        before, secret = canary.text
        ids = spelling(f"{before} {secret}", add_special_tokens=False)["input_ids"]
        assert tuple(ids) == canary.tokens
        if family == "rare_suffix":
            assert before.strip() in shown
            assert len(before.split()) == SNIPPET_WORDS
    assert len({canary.prefix for canary in group.canaries}) == 40
    assert len({canary.id for canary in group.canaries}) == 40


def test_a_word_is_a_token_that_its_own_text_becomes_again():
    # "Abx" is lower-cased before it is looked up, and "q7" is no word.
    found = word_tokens(wordpieces(["abx", "Abx", "q7", "bcy"]))
    assert sorted(found.values()) == ["abx", "bcy"]


def test_too_little_to_draw_from_is_refused_with_what_is_missing(pools, spelling):
    draw = SecretRandom(b"few")
    few = replace(pools, words=pools.words[:60], rare=pools.rare[:63])
    with pytest.raises(UserError, match="4 are missing"):
        draw_tokens(GroupRequest("random_words", 5), 1, few, spelling, draw)
    with pytest.raises(UserError, match="1 are missing"):
        draw_tokens(GroupRequest("rare_tokens", 5), 1, few, spelling, draw)
    with pytest.raises(UserError, match="it holds 250 beginnings"):
        draw_tokens(GroupRequest("rare_suffix", 251), 1, pools, spelling, draw)
    with pytest.raises(UserError, match="60,000"):
        draw_texts(GroupRequest("phone", 60_001), 1, draw)


@pytest.mark.parametrize("family", sorted(IDENTIFIERS))
def test_structured_secrets_are_split_where_they_begin(family, spelling):
    group = split_group(texts(family, 20), spelling, room=126)
    for canary in group.canaries:
        before, secret = canary.text
        assert said(spelling, canary.secret) == bare(secret)
        assert said(spelling, canary.prefix) == bare(before)
    short = split_group(texts(family, 20), spelling, room=30)
    for canary, whole in zip(short.canaries, group.canaries):
        assert canary.tokens == whole.tokens[-30:]
        assert canary.secret == whole.secret


def test_a_tokenizer_that_cannot_tell_the_secret_is_refused(tokenizer):
    with pytest.raises(UserError, match="no token for a part"):
        split_group(texts("phone", 3), tokenizer, room=62)
    vocabulary = {piece: at for at, piece in enumerate([*SPECIALS, *CHARACTERS, "s (", "T", " ("])}
    across = tokenizer_of(
        Tokenizer(models.BPE(vocabulary, [(" ", "("), ("s", " (")], unk_token="[UNK]"))
    )
    assert across.convert_ids_to_tokens(across("is (2", add_special_tokens=False)["input_ids"])[
        1:
    ] == ["s (", "2"]
    with pytest.raises(UserError, match="spans the beginning"):
        split_texts([("the phone is", "(2")], across, family="phone")


@pytest.mark.parametrize("family", ["random_words", "phone", "card", "email"])
def test_alternatives_are_other_secrets_of_the_same_space(family, pools, spelling):
    request = GroupRequest(family, 4)
    draw = SecretRandom(b"draw")
    if family == "random_words":
        group = draw_tokens(request, 1, pools, spelling, draw)
    else:
        group = split_group(draw_texts(request, 1, draw), spelling, room=126)
    case = case_of(group, spelling, secret=b"others")
    canary = group.canaries[2]
    assert case.rows[2].tokens == canary.tokens
    assert case.rows[2].span == canary.secret_span
    rows = case.alternatives(2, 600)
    secrets = [row.tokens[slice(*row.span)] for row in rows]
    assert canary.secret not in secrets
    assert len(set(secrets)) == 600
    assert {row.tokens[: row.span[0]] for row in rows} == {canary.prefix}
    assert all(row.span[1] == len(row.tokens) for row in rows)
    if group.exact:
        places = [canary.alphabets[0].index(secret[0]) for secret in secrets]
        assert stats.chisquare(np.bincount(places, minlength=64)).pvalue > 1e-4
    else:
        length = len(said(spelling, canary.secret))
        assert {len(said(spelling, secret)) for secret in secrets} <= {length}


def test_alternatives_leave_the_secret_itself_out(monkeypatch, spelling):
    small = Canary("c", (1,), (2, 4), ((2, 3), (4, 5)), copies=1)
    rows = case_of(CanaryGroup("rare_tokens", "exempt", 1, (small,))).alternatives(0, 300)
    assert Counter(row.tokens[1:] for row in rows).keys() == {(2, 5), (3, 4), (3, 5)}
    group = split_group(texts("phone", 1), spelling, room=62)
    own = group.canaries[0].text[1]
    drawn = iter([own, own, "(212) 555-0101"])
    kind = replace(IDENTIFIERS["phone"], draw=lambda draw: next(drawn))
    monkeypatch.setitem(IDENTIFIERS, "phone", kind)
    (row,) = case_of(group, spelling).alternatives(0, 1)
    assert said(spelling, row.tokens[slice(*row.span)]) == bare("(212) 555-0101")


def whole_set(pools, spelling) -> CanarySet:
    draw = SecretRandom(b"groups")
    groups = (
        draw_tokens(GroupRequest("random_words", 5), 1, pools, spelling, draw),
        split_group(draw_texts(GroupRequest("phone", 5, 4), 2, draw), spelling, room=62),
        split_group(
            draw_texts(GroupRequest("phone", 5, 4, "pipeline"), 3, draw), spelling, room=62
        ),
    )
    return plan_canaries(
        count=10,
        token_ids=pools.rare,
        prefix_ids=pools.common,
        groups=groups,
        vocabulary=vocabulary_digest(spelling),
        secret=b"the whole",
    ).without_labels()


def test_one_commitment_binds_every_byte_of_every_group(pools, spelling):
    planned = whole_set(pools, spelling)
    written = canonical_json(planned.to_json())
    assert CanarySet.from_json(json.loads(written)) == planned
    assert [group["family"] for group in planned.public()["groups"]] == [
        "random_words", "phone", "phone",
    ]  # fmt: skip
    assert all(canary.text[1] not in str(planned.public()) for canary in planned.groups[1].canaries)
    rng = random.Random(7)
    for place in rng.sample(range(len(written)), 150):
        changed = bytearray(written)
        changed[place] = rng.choice([b for b in b"0123456789abc" if b != written[place]])
        with pytest.raises((UserError, ValueError)):
            CanarySet.from_json(json.loads(bytes(changed)))


def recommitted(planned: CanarySet, groups) -> dict:
    """A set that opens its commitment, however it is built."""
    return replace(planned, groups=tuple(groups)).to_json()


def test_groups_are_kept_apart(pools, spelling):
    planned = whole_set(pools, spelling)
    words, phones, before = planned.groups
    mixed = replace(phones, canaries=(*phones.canaries[1:], replace(phones.canaries[0], copies=1)))
    again = tuple(replace(canary, id=f"again-{canary.id}") for canary in phones.canaries)
    for groups in (
        [words, phones, replace(phones, canaries=again)],
        [words, replace(phones, canaries=before.canaries), before],
        [mixed],
        [replace(words, family="phone")],
        [replace(phones, family="random_words")],
    ):
        with pytest.raises(UserError, match="malformed canary set"):
            CanarySet.from_json(recommitted(planned, groups))
    assert CanarySet.from_json(recommitted(planned, [before, words])).groups == (before, words)
    refuse_alike([GroupRequest("phone", 5), GroupRequest("phone", 5, 4)])
    with pytest.raises(UserError, match="two groups phone/4/exempt"):
        refuse_alike([GroupRequest("phone", 5, 4), GroupRequest("phone", 6, 4)])


def test_gating_tests_look_at_the_gating_group_alone(untrained: LoadedModel, canaries: CanarySet):
    pool = TokenPools(rare=range(5, 400), common=range(400, 700), words=range(5, 400))
    draw = SecretRandom(b"beside")
    tokenizer = untrained.tokenizer
    beside = draw_tokens(GroupRequest("rare_tokens", 3, 4), 1, pool, tokenizer, draw)
    few = canaries.canaries[:40]
    coins = {one.id: coin for one, coin in zip(few, canaries.opened.of(few))}
    coins |= {one.id: True for one in beside.canaries}

    def planned(*groups):
        labels = Labels(
            "0" * 64, {c.id: coins[c.id] for c in (*few, *(c for g in groups for c in g.canaries))}
        )
        bare = replace(
            canaries.without_labels(), canaries=few, groups=groups, labels_digest=labels.digest
        )
        return bare.with_labels(labels)

    silent = {
        "epsilon": "inf", "delta": 1e-6, "noise_multiplier": 0, "sample_rate": 0.1, "steps": 5
    }  # fmt: skip
    seen: list[tuple[int, int]] = []
    alone, both = (
        audits.audit(
            untrained, plan=silent, canaries=given, progress=lambda *rows: seen.append(rows)
        )
        for given in (planned(), planned(beside))
    )
    # Two passes of 40 canaries, and each canary of the group under three scores.
    assert seen[-1] == (89, 89)
    assert alone["subjects"]["target"]["exposure"]["n"] > 0
    assert both["subjects"] == alone["subjects"]
    assert both["declared"]["commitment"] != alone["declared"]["commitment"]


def test_a_tokenizer_that_splits_otherwise_is_refused(pools, spelling):
    planned = whole_set(pools, spelling)
    check_tokenizer(planned, spelling)
    check_tokenizer(replace(planned, vocabulary=None), spelling)
    with pytest.raises(IntegrityError, match="another vocabulary"):
        check_tokenizer(planned, wordpieces(WORDS[::-1]))
    # The same vocabulary, but digits are words of their own: other tokens for the same phones.
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    with pytest.raises(IntegrityError, match="splits canaries of family phone otherwise"):
        check_tokenizer(planned, wordpieces(WORDS, splitter))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (("iban", 5), "families are"),
        (("phone", 0), "at least 1"),
        (("phone", 5, 0), "at least 1"),
        (("phone", 5, 1, "both"), "exempt or pipeline"),
        (("rare_tokens", 5, 1, "pipeline"), "before there is a tokenizer"),
    ],
)
def test_groups_that_cannot_be_are_refused(request_, message):
    with pytest.raises(UserError, match=message):
        GroupRequest(*request_)
    assert "iban" not in FAMILIES
