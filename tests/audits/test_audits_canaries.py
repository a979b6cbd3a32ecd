"""Canaries: drawn fairly, bound by their commitment, sealed and read back."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from audits.planting.canaries import CanarySet, plan_canaries
from audits.planting.labels import Labels
from dpmlm.artifacts import IntegrityError, SealedFolder, UserError, new_identity


def _plan(count: int = 50, **changes) -> CanarySet:
    settings = {"token_ids": range(100, 400), "prefix_ids": range(400, 600), "secret": b"x"}
    return plan_canaries(count=count, **(settings | changes))


def test_secret_lies_in_its_alphabets_and_prefixes_differ() -> None:
    planned = _plan(200)
    assert planned.space_bits == 36
    assert len({canary.prefix for canary in planned.canaries}) == 200
    for canary in planned.canaries:
        start, end = canary.secret_span
        assert canary.tokens[start:end] == canary.secret
        assert len(canary.alphabets) == 6
        for token, alphabet in zip(canary.secret, canary.alphabets):
            assert token in alphabet
            assert len(set(alphabet)) == 64
            assert alphabet == tuple(sorted(alphabet))
            assert min(alphabet) >= 100
            assert max(alphabet) < 400


def test_prefixes_differ_where_chance_repeats_them() -> None:
    crowded = _plan(22, prefix_ids=range(400, 410), prefix_length=2)
    assert len({canary.prefix for canary in crowded.canaries}) == 22


def test_coins_are_fair_and_secrets_uniform() -> None:
    planned = _plan(2000)
    included = len(planned.included())
    assert stats.binomtest(included, 2000).pvalue > 1e-4
    places = [
        alphabet.index(token)
        for canary in planned.canaries
        for token, alphabet in zip(canary.secret, canary.alphabets)
    ]
    assert stats.chisquare(np.bincount(places, minlength=64)).pvalue > 1e-4
    coins = np.array(planned.opened.of(planned.canaries), dtype=float)
    firsts = np.array(places[::6], dtype=float)
    assert abs(np.corrcoef(coins, firsts)[0, 1]) < 0.1


def test_operating_system_supplies_the_secret_by_default() -> None:
    first, second = _plan(secret=None), _plan(secret=None)
    assert first.commitment != second.commitment
    assert _plan() == _plan()


def test_round_trip_in_json_and_in_a_sealed_folder(tmp_path: Path) -> None:
    planned = _plan(copies=4)
    assert CanarySet.from_json(planned.to_json()) == planned.without_labels()
    identity = new_identity()
    folder = SealedFolder.create(tmp_path / "canaries", [identity.recipient], role="canaries")
    planned.write(folder)
    folder.finish({})
    again = SealedFolder.open(tmp_path / "canaries", [identity])
    assert CanarySet.read(again) == planned.without_labels()
    assert CanarySet.read(again).with_labels(Labels.read(again)) == planned
    coin = planned.opened.nonce.encode()
    secret = ",".join(str(token) for token in planned.canaries[0].secret).encode()
    assert secret in str(planned.to_json()).replace(" ", "").encode()
    for path in (tmp_path / "canaries").rglob("*"):
        assert path.is_dir() or not any(one in path.read_bytes() for one in (secret, coin))


@pytest.mark.parametrize(
    "name", ["labels", "secret", "prefix", "copies", "nonce", "order", "family"]
)
def test_changed_content_fails_its_commitment(name: str) -> None:
    value = copy.deepcopy(_plan().to_json())
    rows = value["canaries"]
    if name == "labels":
        value["labels_digest"] = "sha256:" + "0" * 64
    elif name == "secret":
        rows[3]["secret"][0] = next(
            token for token in rows[3]["alphabets"][0] if token != rows[3]["secret"][0]
        )
    elif name == "prefix":
        rows[3]["prefix"].reverse()
    elif name == "copies":
        for row in rows:
            row["copies"] = 2
    elif name == "nonce":
        value["nonce"] = "0" * 64
    elif name == "family":
        value["family"] = "other"
    else:
        rows[0], rows[1] = rows[1], rows[0]
    with pytest.raises(IntegrityError, match="changed"):
        CanarySet.from_json(value)


def test_malformed_files_are_refused() -> None:
    with pytest.raises(UserError, match="schema"):
        CanarySet.from_json({"schema": "other"})
    value = _plan().to_json()
    del value["canaries"][0]["secret"]
    with pytest.raises(UserError, match="missing or malformed"):
        CanarySet.from_json(value)
    planned = _plan()
    foreign = dataclasses.replace(planned.canaries[0], secret=(1,) * 6)
    coined = _plan().to_json()
    coined["canaries"][0]["included"] = True
    with pytest.raises(UserError, match="missing or malformed"):
        CanarySet.from_json(coined)
    broken = dataclasses.replace(planned, canaries=(foreign, *planned.canaries[1:]))
    with pytest.raises(UserError, match="malformed canary set"):
        CanarySet.from_json(broken.to_json())


def test_public_part_shows_no_secret_and_no_coin() -> None:
    planned = _plan()
    public = planned.public()
    assert public["commitment"] == planned.commitment
    assert set(public) == {
        "schema",
        "family",
        "commitment",
        "canaries",
        "copies",
        "length",
        "space_bits",
        "inclusion_probability",
        "groups",
        "vocabulary",
    }
    assert planned.nonce not in str(public)
    assert planned.labels_digest not in str(public)


def test_commitment_hides_behind_the_nonce() -> None:
    planned = _plan()
    other = dataclasses.replace(planned, nonce="1" * 64)
    assert other.commitment != planned.commitment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 4}, "2\\^30"),
        ({"token_ids": range(100, 150)}, "candidate tokens"),
        ({"prefix_ids": range(400, 403)}, "prefixes must differ"),
        ({"copies": 0}, "at least 1"),
        ({"count": -1}, "at least 0"),
    ],
)
def test_requests_that_cannot_give_an_audit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _plan(**changes)


def test_a_space_too_small_to_show_anything_is_refused_when_read() -> None:
    whole = _plan()
    small = tuple(
        dataclasses.replace(
            canary,
            alphabets=tuple(tuple(sorted({token, (token + 1) % 100})) for token in canary.secret),
        )
        for canary in whole.canaries
    )
    written = dataclasses.replace(whole, canaries=small).to_json()
    with pytest.raises(UserError, match=r"a space of 2\^30 or more"):
        CanarySet.from_json(written)
