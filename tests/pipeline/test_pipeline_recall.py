"""A run with a gold file: measured, sealed, gated on, and measured again when the file changes."""

import hashlib
import json
import shutil
from datetime import UTC, datetime

import pytest
from leaks import find_leaks
from small_run import write_gold

from dpmlm.artifacts import SealedFolder, create_keys, load_identity
from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline import recall, stages
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.export import open_report
from dpmlm.pipeline.outcome import judge
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_run
from dpmlm.release import load_policy, verify_bundle
from dpmlm.scrub import Scrubber, measure_recall
from dpmlm.scrub import load_policy as load_scrub_policy
from dpmlm.scrub.gold import read_gold

pytestmark = pytest.mark.xdist_group("finished")
POLICY = """policy: recall/v1
summary: For nobody.
require:
  - {id: blind, title: t, why: w, metric: scrub.recall.annotation, equals: blind,
     on_fail: inconclusive}
  - {id: here, title: t, why: w, metric: scrub.recall.elsewhere, max: 0, on_fail: inconclusive}
  - {id: direct, title: t, why: w, metric: scrub.recall.direct, min_rate: 0.7}
"""


@pytest.fixture
def copy(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    (folder / "recall.yaml").write_text(POLICY)
    return folder


def config_of(folder, **change):
    dotted = {name.replace("__", "."): value for name, value in change.items()}
    return load_config(folder / "run.yaml", dotted)


def sealed(folder, stage="recall"):
    return SealedFolder.open(folder / "work" / stage, [load_identity(folder / "keys/trainer.key")])


def rows_of(folder):
    return [json.loads(line) for line in (folder / "private.jsonl").read_text().splitlines()]


def statuses(folder, **change):
    decision = judge(config_of(folder, **change), str(folder / "recall.yaml"))
    return decision.verdict, {rule.id: rule.status for rule in decision.rules}


def trained(work):
    """Files of everything but measurement and release."""
    left_out = ("release", "bundle", "recall")
    return {
        path: path.stat().st_mtime_ns
        for path in work.rglob("*")
        if path.is_file() and path.relative_to(work).parts[0] not in left_out
    }


def test_the_figures_are_those_of_the_policy_on_the_file(copy):
    figures = sealed(copy).read_json("recall")
    rows = read_gold(copy / "marked.jsonl")
    found = {"DIRECT": 0, "QUASI": 0}
    with Scrubber(load_scrub_policy("default"), pseudonym_key=bytes(32)) as scrubber:
        for row in rows:
            gone = set()
            for decision in scrubber.scrub(row["text"]).decisions:
                gone |= set(range(decision.start, decision.end))
            for span in row["spans"]:
                found[span["identifier"]] += set(range(span["start"], span["end"])) <= gone
        again = measure_recall(scrubber, rows)
    assert figures["documents"] == len(rows) == 12
    assert (figures["direct"]["found"], figures["direct"]["of"]) == (found["DIRECT"], 12)
    assert (figures["quasi"]["found"], figures["quasi"]["of"]) == (found["QUASI"], 12)
    assert found["DIRECT"] > found["QUASI"]
    assert figures["all"] == again.recall.to_json()
    assert set(figures["by_type"]) == {"PHONE", "PLACE"}
    assert figures["policy_digest"] == load_scrub_policy("default").digest
    assert (figures["annotation"], figures["elsewhere"]) == ("blind", 0)


def test_a_policy_on_recall_decides_and_the_statement_says_what_its_verdict_rests_on(copy):
    before = trained(copy / "work")
    told = {"textfile": str(copy / "run.prom")}
    asked = {"release__policy": str(copy / "recall.yaml"), "telemetry__prometheus": told}
    result = execute_run(config_of(copy, **asked))
    assert result.verdict == "PASS"
    page = (copy / "run.prom").read_text()
    assert "dpmlm_ended" in page
    assert "dpmlm_verdict{" not in page  # it rests on private figures
    assert trained(copy / "work") == before
    statement = json.loads((result.bundle / "statement.json").read_text())
    said = "the verdict, as rules of its policy look at private figures (blind, here, direct)"
    assert said in statement["not_covered"]
    assert said in statement["sentence"]
    decision = json.loads((result.bundle / "decision.json").read_text())
    assert [rule["observed"] for rule in decision["rules"]] == [None] * 3
    checked = verify_bundle(result.bundle, copy / "keys/trusted", now=datetime.now(UTC))
    assert checked.ok, checked.findings
    assert sum("private figures" in note for note in checked.notes) == 3


def test_nothing_of_recall_is_in_a_bundle(copy):
    released = "".join(
        path.read_text() for path in (copy / "work/bundle").iterdir() if path.is_file()
    )
    assert "annotation" not in released
    assert json.dumps(sealed(copy).read_json("recall")["all"]["low"])[:8] not in released


def test_a_changed_file_is_measured_again_and_decided_again_and_nothing_is_trained(copy):
    before, first = trained(copy / "work"), sealed(copy).read_json("recall")
    ledger = (copy / "ledger.jsonl").read_bytes()
    write_gold(copy, rows_of(copy)[:4])
    with pytest.raises(UserError, match="changed since it was measured"):
        judge(config_of(copy), str(copy / "recall.yaml"))
    execute_run(config_of(copy))
    second = sealed(copy).read_json("recall")
    assert (first["documents"], second["documents"]) == (12, 4)
    assert sealed(copy, "release").read_json("facts")["scrub"]["recall"] == second
    assert statuses(copy) == (
        "INCONCLUSIVE",
        {"blind": "pass", "here": "pass", "direct": "inconclusive"},
    )
    assert trained(copy / "work") == before
    assert (copy / "ledger.jsonl").read_bytes() == ledger
    stamp = (copy / "work/recall/recall.sealed").stat().st_mtime_ns
    execute_run(config_of(copy))
    assert (copy / "work/recall/recall.sealed").stat().st_mtime_ns == stamp


def test_a_file_that_was_deleted_leaves_its_figures(copy):
    """It is private text in clear: whoever has measured it is to be free to delete it."""
    stamp = (copy / "work/recall/recall.sealed").stat().st_mtime_ns
    (copy / "marked.jsonl").unlink()
    assert statuses(copy)[0] == "PASS"
    assert execute_run(config_of(copy)).private["recall"]["documents"] == 12
    assert (copy / "work/recall/recall.sealed").stat().st_mtime_ns == stamp
    shutil.rmtree(copy / "work/recall")
    with pytest.raises(UserError, match="no such file"):
        execute_run(config_of(copy))


def test_what_is_not_found_fails(copy):
    rows = [json.loads(line) for line in (copy / "marked.jsonl").read_text().splitlines()]
    for row in rows:
        row["spans"] = [span | {"identifier": "DIRECT"} for span in row["spans"]]
    (copy / "marked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy = (copy / "recall.yaml").read_text().replace("0.7", "0.95")
    (copy / "recall.yaml").write_text(policy)
    execute_run(config_of(copy))
    assert statuses(copy) == ("FAIL", {"blind": "pass", "here": "pass", "direct": "fail"})


def test_a_run_without_gold_has_no_figures_and_no_pass(copy):
    result = execute_run(config_of(copy, scrub__gold=None))
    assert "recall" not in result.private
    facts = sealed(copy, "release").read_json("facts")
    reason = "the run file names no scrub.gold"
    assert facts["scrub"]["recall"] == {"applicable": False, "reason": reason}
    verdict, rules = statuses(copy, scrub__gold=None)
    assert verdict == "INCONCLUSIVE"
    assert set(rules.values()) == {"inconclusive"}
    open_report(config_of(copy, scrub__gold=None), copy / "page.html", identity=None)
    assert f"Nobody has measured it: {reason}" in (copy / "page.html").read_text()


def test_prefilled_spans_and_other_texts_are_said_and_do_not_pass(copy):
    rows = rows_of(copy)[:30]
    rows[7]["text"] = "Somebody else wrote this near the sea. Call (212) 555-0199 for more."
    write_gold(copy, rows, prefilled=True)
    execute_run(config_of(copy))
    verdict, rules = statuses(copy)
    assert verdict == "INCONCLUSIVE"
    assert rules == {"blind": "inconclusive", "here": "inconclusive", "direct": "pass"}
    open_report(config_of(copy), copy / "page.html", identity=None)
    page = (copy / "page.html").read_text()
    assert "were shown what the software had found" in page
    assert "1 of the documents is not from this corpus" in page
    assert "People read 30 documents" in page


def test_figures_of_other_code_than_scrubbed_the_text_are_none(copy, monkeypatch):
    monkeypatch.setattr(stages, "code_digest", lambda: "sha256:" + "f" * 64)
    write_gold(copy, rows_of(copy)[:30])
    execute_run(config_of(copy))
    decision = judge(config_of(copy), str(copy / "recall.yaml"))
    assert decision.verdict == "INCONCLUSIVE"
    assert "other code than the text was scrubbed with" in decision.rules[-1].explanation


def test_nothing_of_the_file_lies_in_clear_anywhere(copy):
    place = "the lighthouse keeper's niece from Dunmere Quay"
    rows = rows_of(copy)[:3]
    write_gold(copy, rows)
    marked = [json.loads(line) for line in (copy / "marked.jsonl").read_text().splitlines()]
    marked[0]["text"] += f" Ask {place}."
    marked[0]["spans"].append({"text": place, "type": "KEEPERS_NIECE", "identifier": "QUASI"})
    (copy / "marked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marked))
    execute_run(config_of(copy))
    assert sealed(copy).read_json("recall")["elsewhere"] == 1
    tokens = [60000, 60001, 60002, 60003]  # of no text here: words are what is looked for
    for private in (place, marked[1]["text"][:60]):
        skip = ("private.jsonl", "marked.jsonl")
        assert find_leaks(copy, private, tokens, skip=skip) == []
        assert "marked.jsonl" in find_leaks(copy, private, tokens)
    assert find_leaks(copy, "KEEPERS_NIECE", tokens, skip=("marked.jsonl",)) == []


def test_gold_in_the_workspace_is_refused(copy):
    shutil.copyfile(copy / "marked.jsonl", copy / "work/marked.jsonl")
    with pytest.raises(UserError, match="nothing in clear"):
        execute_run(config_of(copy, scrub__gold=str(copy / "work/marked.jsonl")))


def test_a_bad_row_is_refused_before_it_is_measured(copy):
    with (copy / "marked.jsonl").open("a") as file:
        file.write(json.dumps({"text": "a secret note", "spans": None}) + "\n")
    before = {path: path.stat().st_mtime_ns for path in (copy / "work").rglob("*")}
    with pytest.raises(UserError, match="line 13") as refused:
        execute_run(config_of(copy))
    assert "secret" not in str(refused.value)
    assert {path: path.stat().st_mtime_ns for path in (copy / "work").rglob("*")} == before


def test_the_digest_of_the_file_is_keyed(copy):
    """Whoever sees it and guesses the file cannot confirm the guess without the run's secret."""
    create_keys(copy / "others")
    digests = []
    for keys in ("keys", "others"):
        config = config_of(copy, keys__scrub=str(copy / keys / "pseudonym.key"))
        digests.append(recall.RECALL.settings(Run.load(config, Progress(quiet=True)))["gold"])
    assert digests[0] != digests[1]
    assert hashlib.sha256((copy / "marked.jsonl").read_bytes()).hexdigest() not in digests


def test_the_shipped_policy_finds_a_small_gold_file_too_small(copy):
    decision = judge(config_of(copy), "internal-recall")
    rules = {rule.id: rule for rule in decision.rules}
    assert rules["scrub.recall.documents"].status == "inconclusive"
    assert "with fewer than 72" in rules["scrub.recall.direct"].explanation
    assert load_policy("internal-recall").digest == decision.policy_digest
