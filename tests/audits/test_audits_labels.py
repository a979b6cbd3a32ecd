"""Labels: joined by id, bound with the secrets by one commitment, opened after all scores."""

import copy
import hashlib
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from audits.__main__ import main
from audits.evidence import audit
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet, plan_canaries
from audits.planting.families import vocabulary_digest
from audits.planting.labels import Labels
from audits.verdict import verdict_of
from dpmlm.artifacts import IntegrityError, UserError, digest


@pytest.fixture(scope="module")
def few(untrained: LoadedModel) -> CanarySet:
    """So few that scoring takes no time."""
    return plan_canaries(
        count=20,
        token_ids=range(5, 400),
        prefix_ids=range(400, 700),
        vocabulary=vocabulary_digest(untrained.tokenizer),
        secret=b"few",
    )


def relabelled(labels: Labels, **coins: bool | None) -> Labels:
    changed = {**labels.coins, **coins}
    return replace(labels, coins={name: coin for name, coin in changed.items() if coin is not None})


def test_labels_are_joined_by_id(few: CanarySet) -> None:
    secrets, labels = few.without_labels(), few.opened
    shuffled = replace(labels, coins=dict(reversed(labels.coins.items())))
    assert secrets.with_labels(shuffled).included() == few.included()
    with pytest.raises(UserError, match="without their labels"):
        secrets.included()
    for other, message in (
        (relabelled(labels, c00003=None), "lack 1 of the canaries and have 0"),
        (relabelled(labels, c99999=True), "lack 0 of the canaries and have 1"),
        (relabelled(labels, c00003=not labels.coins["c00003"]), "a label was changed"),
        (replace(labels, nonce="0" * 64), "a label was changed"),
        (replace(labels, coins={f"x{name}": True for name in labels.coins}), "lack 20"),
    ):
        with pytest.raises(IntegrityError, match=message):
            secrets.with_labels(other)


def test_one_hash_binds_both_files_each_under_a_nonce_of_its_own(few: CanarySet) -> None:
    def sha(value) -> str:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    written = few.to_json()
    content = {k: v for k, v in written.items() if k not in ("labels_digest", "commitment")}
    labels = few.opened.to_json()
    assert content["nonce"] != labels["nonce"]
    both = {"schema": "dpmlm.canaries/3", "secrets": sha(content), "labels": sha(labels)}
    assert few.commitment == written["commitment"] == sha(both)
    again = few.opened
    for labels in (
        replace(again, nonce="1" * 64),
        relabelled(again, c00000=not again.coins["c00000"]),
    ):
        other = replace(few.without_labels(), labels_digest=labels.digest)
        assert other.commitment != few.commitment


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "dpmlm.canaries/3"},
        {"nonce": 5},
        {"nonce": "short"},
        {"included": None},
        {"included": {"c00000": 1}},
        {"included": [True]},
    ],
)
def test_what_is_no_labels_is_refused(few: CanarySet, change: dict) -> None:
    assert Labels.from_json(few.opened.to_json()) == few.opened
    with pytest.raises(UserError, match="no labels"):
        Labels.from_json(few.opened.to_json() | change)
    with pytest.raises(UserError, match="no labels"):
        Labels.from_json([])


def test_every_score_is_kept_before_a_label_is_opened(
    untrained: LoadedModel, leaky: LoadedModel, canaries: CanarySet, plan: dict, monkeypatch
) -> None:
    rows = canaries.canaries[:50]
    labels = Labels("0" * 64, dict(zip((one.id for one in rows), canaries.opened.of(rows))))
    bare = replace(canaries.without_labels(), canaries=rows, labels_digest=labels.digest)
    some = bare.with_labels(labels)
    closed, kept = [True], []
    for name in ("of", "included"):
        real = getattr(Labels, name)

        def watched(self, rows, real=real):
            assert not closed, "a coin was looked at before the scores were kept"
            return real(self, rows)

        monkeypatch.setattr(Labels, name, watched)

    def opened(transcript) -> Labels:
        kept.append(copy.deepcopy(transcript))
        closed.clear()
        return labels

    secrets = some.without_labels()
    found = audit(leaky, plan=plan, canaries=secrets, untrained=untrained, labels=opened)
    (transcript,) = kept
    assert found["transcripts"] == {"digest": digest(transcript), "kept": True}
    assert transcript["commitment"] == some.commitment
    ids = {canary.id for canary in rows}
    subjects = transcript["subjects"]
    assert subjects["control"] is None
    assert set(subjects["target"]["canaries"]) == set(subjects["untrained"]["canaries"]) == ids
    # What is judged is what was kept: guesses and hits are counted again from the transcript.
    rows, coins = subjects["target"]["canaries"], labels.coins
    target, order = found["subjects"]["target"], sorted(rows, key=lambda i: rows[i]["membership"])
    side = target["gating"]["guesses"] // 2
    right = sum(coins[i] for i in order[-side:]) + sum(not coins[i] for i in order[:side])
    assert right == target["gating"]["correct"]
    hits = sum(row["hit"] for name, row in rows.items() if coins[name])
    assert hits == target["canary_extraction"]["extracted"] > 15
    inside = [rows[name]["joint"] for name, coin in coins.items() if coin]
    outside = [rows[name]["joint"] for name, coin in coins.items() if not coin]
    assert min(inside) > sum(outside) / len(outside)
    assert "included" not in json.dumps(transcript)


def test_canaries_without_labels_are_refused_before_all_work(few: CanarySet, plan: dict) -> None:
    with pytest.raises(UserError, match="without their labels"):
        audit(None, plan=plan, canaries=few.without_labels())


def test_evidence_says_whether_anything_bound_the_canaries_before(
    untrained: LoadedModel, few: CanarySet, plan: dict
) -> None:
    bound = plan | {"bindings": {"canary_commitment": few.commitment}}
    for terms, public, registered in (
        (plan, None, False), (plan, few.commitment, True), (bound, None, True)
    ):  # fmt: skip
        found = audit(untrained, plan=terms, canaries=few, commitment=public)
        assert found["declared"]["pre_registered"] is registered
    secrets = few.without_labels()
    kept = audit(untrained, plan=bound, canaries=secrets, labels=lambda transcript: few.opened)
    assert kept["subjects"] == found["subjects"]
    assert kept["transcripts"] == {"digest": found["transcripts"]["digest"], "kept": True}
    assert found["transcripts"]["kept"] is False
    with pytest.raises(IntegrityError, match="what was published is sha256:0"):
        audit(untrained, plan=bound, canaries=few, commitment="sha256:" + "0" * 64)


def test_tokens_that_nobody_can_check_are_inconclusive(
    untrained: LoadedModel, few: CanarySet, plan: dict
) -> None:
    named = audit(untrained, plan=plan, canaries=few)
    assert named["declared"]["vocabulary"] == few.vocabulary
    assert "power" in verdict_of(named).reason
    nameless = replace(few, vocabulary=None)
    found = audit(untrained, plan=plan, canaries=nameless)
    assert (found["declared"]["vocabulary"], found["declared"]["tokens_checked"]) == (None, False)
    assert verdict_of(found).word == "INCONCLUSIVE"
    assert "name no vocabulary" in verdict_of(found).reason
    rows = tuple(
        replace(
            canary,
            text=tuple(
                " ".join(f"w{token}" for token in part) for part in (canary.prefix, canary.secret)
            ),
        )
        for canary in nameless.canaries
    )
    spelled = audit(untrained, plan=plan, canaries=replace(nameless, canaries=rows))
    assert spelled["declared"]["tokens_checked"]


@pytest.fixture
def folder(untrained: LoadedModel, few: CanarySet, tmp_path: Path, monkeypatch) -> Path:
    """A model with canaries, labels and commitment beside it; the current folder."""
    untrained.model.save_pretrained(tmp_path / "model")
    untrained.tokenizer.save_pretrained(tmp_path / "model")
    for name, value in (
        ("c.json", few), ("c.labels.json", few.opened)
    ):  # fmt: skip
        (tmp_path / name).write_text(json.dumps(value.to_json()))
    (tmp_path / "public.json").write_text(json.dumps(few.public()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


TYPED = ("model", "--canaries", "c.json", "--out", "told.json")


def test_the_command_keeps_the_scores_and_finds_the_labels(folder: Path, capsys) -> None:
    assert main(TYPED) == 1
    told = capsys.readouterr().out
    assert "not pre-registered" in told
    assert "told.scores.json" in told
    assert stat.S_IMODE(os.stat("told.scores.json").st_mode) == 0o600
    scores = json.loads((folder / "told.scores.json").read_text())
    evidence = json.loads((folder / "told.json").read_text())
    assert evidence["transcripts"] == {"digest": digest(scores), "kept": True}
    assert main((*TYPED[:-1], "b.json", "--commitment", "public.json", "--transcript", "b")) == 1
    assert "not pre-registered" not in capsys.readouterr().out
    assert (folder / "b").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--labels", "none.json"), "--labels none.json"),
        (("--commitment", "c.json"), "holds secrets or labels"),
        (("--commitment", "c.labels.json"), "holds secrets or labels"),
        (("--commitment", "other.json"), "pass the canaries that were drawn for this run"),
        (("--transcript", "told.json"), "two files"),
        (("--transcript", "c.json"), "there already"),
    ],
)
def test_the_command_refuses_what_binds_nothing(folder: Path, capsys, more, named) -> None:
    public = json.loads((folder / "public.json").read_text())
    (folder / "other.json").write_text(json.dumps(public | {"commitment": "sha256:" + "0" * 64}))
    assert main((*TYPED, *more)) == 2
    assert named in capsys.readouterr().err
    assert not list(folder.glob("told*"))


@pytest.mark.parametrize("named", ["a label was changed", "no labels"])
def test_labels_of_others_are_refused_after_the_scores_are_kept(
    folder: Path, few: CanarySet, capsys, named: str
) -> None:
    labels = relabelled(few.opened, c00001=not few.opened.coins["c00001"]).to_json()
    (folder / "c.labels.json").write_text(json.dumps([] if named == "no labels" else labels))
    assert main(TYPED) == 2
    assert named in capsys.readouterr().err
    assert (folder / "told.scores.json").exists()
    assert not (folder / "told.json").exists()
