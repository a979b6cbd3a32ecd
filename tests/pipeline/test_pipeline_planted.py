"""Canaries that are planted before scrubbing, and groups beside the gating one."""

import json
from dataclasses import replace

import pytest
from small_run import draw_keys, write_corpus, write_run_file

from audits.planting.families import check_tokenizer
from audits.planting.insertion import survival
from dpmlm.config import load_config
from dpmlm.corpus import Document, read_shards
from dpmlm.errors import UserError
from dpmlm.pipeline.attack import attack
from dpmlm.pipeline.canaries import canary_units, labelled_canaries, read_survival, refuse_unfit
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.models import planned
from dpmlm.pipeline.planted import planted_documents, planted_ids, refuse_taken
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_run, execute_until
from dpmlm.tokens import TokenStore, load_sealed_tokenizer, train_tokenizer

pytestmark = pytest.mark.xdist_group("planted")

POLICY = """
name: phones-alone
description: Phone numbers become placeholders, and nothing else does.
engine: {mode: fast, spacy: null, countries: [], propagate_names: false}
other: {operator: keep, threshold: 1.0, why: A test.}
rules:
  - {entity: PHONE_NUMBER, operator: placeholder, threshold: 0.4, why: A test.}
"""
GROUPS = [
    {"family": "phone", "count": 16, "copies": 4, "arm": "pipeline"},
    {"family": "email", "count": 16, "arm": "pipeline"},
    {"family": "rare_suffix", "count": 12, "copies": 4},
]
AUDIT = {
    "canaries": 20,
    "control": {"corpus": "public.jsonl"},
    "verbatim_spans": 5,
    "groups": GROUPS,
}


def begun(folder, **changes) -> Run:
    write_corpus(folder)
    (folder / "phones.yaml").write_text(POLICY)
    changes = {"scrub__policy": "phones.yaml", "privacy__accountant": "rdp", **changes}
    write_run_file(folder, audit=AUDIT, privacy__units=300, **changes)
    draw_keys(folder)
    return Run.load(load_config(folder / "run.yaml"), Progress(quiet=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run up to its canaries; documents are units, so deduplication names every text anew."""
    folder = tmp_path_factory.mktemp("planted")
    active = begun(folder, privacy__unit="document", dedup={"near": None})
    execute_until(active.config, "canaries")
    return active


def counts(run: Run, stage: str) -> dict:
    return run.folder(stage).manifest["counts"]


def test_what_scrubbing_removes_does_not_arrive_and_what_it_leaves_does(run):
    phone, email = read_survival(run)
    whole = labelled_canaries(run)
    included = [len(whole.opened.included(group.canaries)) for group in whole.groups]
    assert (phone["group"], email["group"]) == ("phone/4/pipeline", "email/1/pipeline")
    assert phone["label"] == email["label"] == "private"
    assert (phone["whole"], phone["part"], phone["none"]) == (0, 0, included[0])
    assert (email["whole"], email["part"], email["none"]) == (included[1], 0, 0)
    assert phone["documents"] == {
        "planted": 4 * included[0], "reached": 4 * included[0], "whole": 0, "part": 0
    }  # fmt: skip
    # A document that is taken away is no longer counted as one that arrived.
    store = TokenStore.open(run.folder("tokens"))
    ids = planted_ids(run, "tokens")
    reached = {ids[n]: store.tokens(i) for i in range(len(store)) if (n := store.id(i)) in ids}
    assert survival(whole.groups[:2], whole.opened, reached) == [phone, email]
    lost = whole.opened.included(whole.groups[1].canaries)[0]
    del reached[f"canary/{lost.id}/0"]
    _, fewer = survival(whole.groups[:2], whole.opened, reached)
    assert (fewer["whole"], fewer["none"]) == (included[1] - 1, 1)


def test_counts_of_the_corpus_leave_canaries_out_and_say_so(run):
    number = len(list(planted_documents(run)))
    assert number > 0
    corpus, scrub, dedup, tokens = (
        counts(run, stage) for stage in ("corpus", "scrub", "dedup", "tokens")
    )
    assert (corpus["documents"], corpus["units"]) == (81, 81)
    assert corpus["canaries"] == {"documents": number}
    assert scrub["documents"] == 81
    assert scrub["found"]["PHONE_NUMBER"] == 81
    whole = labelled_canaries(run)
    phones = whole.opened.included(whole.groups[0].canaries)
    assert scrub["canaries"]["found"]["PHONE_NUMBER"] == 4 * len(phones)
    # One person's numbers are gone, so some texts are the same; no canary is among them.
    assert dedup["documents"] + sum(dedup["removed"].values()) == 81
    assert dedup["canaries"] == {"documents": number, "removed": {}, "emptied": 0}
    assert tokens["canaries"] == {"documents_among_these": number}
    assert tokens["documents"] == dedup["documents"] + number


def test_every_planted_document_is_a_training_unit_of_its_own(run):
    store = TokenStore.open(run.folder("tokens"))
    ids = planted_ids(run, "tokens")
    names = {row["id"] for row in read_shards(run.folder("corpus")) if row["id"] in ids.values()}
    assert names == set(ids.values())
    assert not names & set(ids), "a set of texts names them anew"
    units = [store.unit(i) for i in range(len(store)) if store.id(i) in ids]
    assert len(set(units)) == len(units) == len(names)
    assert set(units) <= set(store.units("train"))
    assert all(len(store.documents_of(unit)) == 1 for unit in units)


def test_rows_are_inserted_for_the_exempt_arm_alone(run):
    whole = labelled_canaries(run)
    units = canary_units(whole)
    suffixes = whole.opened.included(whole.groups[2].canaries)
    assert len(units.names) == len(whole.included()) + 4 * len(suffixes)
    assert not any(name.startswith(("canary/g01-", "canary/g02-")) for name in units.names)
    names = list(units.names)
    for canary in suffixes:
        for copy in range(4):
            place = names.index(f"canary/{canary.id}/{copy}")
            (view,) = units.views(place, 0, 3)
            assert view.example.tokens.tolist() == list(canary.tokens)
            assert view.example.secret_span == canary.secret_span
    held_out = {name for name, coin in whole.opened.coins.items() if not coin}
    assert not held_out & {name.split("/")[1] for name in names}


def test_one_commitment_is_made_over_all_groups_for_the_runs_tokenizer(run):
    whole = labelled_canaries(run)
    public = counts(run, "canaries")
    assert public["commitment"] == whole.commitment
    assert [group["family"] for group in public["groups"]] == ["phone", "email", "rare_suffix"]
    check_tokenizer(whole, load_sealed_tokenizer(run.folder("tokens")))
    assert replace(whole.without_labels(), groups=whole.groups[1:]).commitment != whole.commitment


def test_a_document_that_could_be_taken_for_a_canary_is_refused():
    mine = Document(id="canary/g01-00000/0", text="a", person=None, source="x.jsonl", row=3)
    with pytest.raises(UserError, match=r"x\.jsonl, row 3"):
        refuse_taken(mine)
    refuse_taken(replace(mine, id="my canary/1"))


@pytest.fixture
def config(small):
    def changed(groups, **changes):
        write_run_file(small, audit={**AUDIT, "groups": groups}, **changes)
        return load_config(small / "run.yaml")

    return changed


def test_what_does_not_fit_is_refused_before_any_work(config):
    tokenizer = train_tokenizer(["the river and the stone"], vocab_size=600, unused=300)
    units = config(GROUPS, privacy__units=147)
    with pytest.raises(UserError, match=r"privacy\.units 147: .*up to 148 units"):
        refuse_unfit(units, 600)
    refuse_unfit(config(GROUPS, privacy__units=148), 600, tokenizer)
    exempt = [{"family": "card", "count": 5}]
    with pytest.raises(UserError, match="masked slots and a secret of group card/1/exempt needs"):
        refuse_unfit(config(exempt), 600, tokenizer)
    refuse_unfit(config(exempt, tokens__window=200), 600, tokenizer)
    words = [{"family": "random_words", "count": 5}]
    with pytest.raises(UserError, match="are missing"):
        refuse_unfit(config(words), 600, tokenizer)
    short = [{"family": "card", "count": 5, "arm": "pipeline"}]
    with pytest.raises(UserError, match="no room before it"):
        refuse_unfit(config(short, tokens__window=14, masking={"ratio": 0.6}), 600, tokenizer)


@pytest.mark.full
def test_a_run_with_a_group_in_the_pipeline_ends_in_evidence_that_can_be_repeated(tmp_path):
    active = begun(tmp_path)
    result = execute_run(active.config)
    assert result.verdict in ("FAIL", "INCONCLUSIVE", "PASS")
    whole = labelled_canaries(active)
    plan, _ = planned(active)
    assert plan.bindings["canary_commitment"] == whole.commitment
    assert result.evidence["declared"]["commitment"] == whole.commitment
    assert result.evidence["subjects"]["target"]["gating"]["canaries"] == 20
    again = attack(
        result.workspace / "training",
        canaries=result.workspace / "canaries",
        plan=result.bundle / "plan.json",
        out=tmp_path / "again.json",
        control=None,
        untrained=result.workspace / "audit" / "untrained",
        reference=None,
        identity=tmp_path / "keys/trainer.key",
        beta=0.05,
    )
    assert again.evidence["subjects"]["target"] == result.evidence["subjects"]["target"]
    secrets = [c.text[1] for group in whole.groups[:2] for c in group.canaries]
    written = json.dumps(result.to_json(private=True))
    assert not any(secret in written for secret in secrets)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(secret.encode() in path.read_bytes() for path in files for secret in secrets)
    # Repeated, it draws nothing anew.
    assert execute_run(active.config).verdict == result.verdict
    assert labelled_canaries(active) == whole
