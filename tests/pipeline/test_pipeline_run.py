"""One small run, looked at from every side."""

import base64
import gzip
import json
import shutil
from dataclasses import fields
from datetime import UTC, datetime

import numpy as np
import pytest
from leaks import find_leaks
from small_run import KNOWN_SENTENCE, draw_keys, write_corpus, write_run_file

from dpmlm.artifacts import SealedFolder, create_keys, load_identity, model_digest
from dpmlm.config import load_config
from dpmlm.errors import IntegrityError, UserError
from dpmlm.pipeline.attack import attack
from dpmlm.pipeline.export import open_report
from dpmlm.pipeline.run import execute_run, stages_of
from dpmlm.privacy import Ledger
from dpmlm.release import load_released, verify_bundle
from dpmlm.tokens import load_sealed_tokenizer

pytestmark = pytest.mark.xdist_group("finished")


def sentence_tokens(folder) -> list[int]:
    """Token ids of the known sentence under the run's own tokenizer."""
    identity = load_identity(folder / "keys/trainer.key")
    tokenizer = load_sealed_tokenizer(SealedFolder.open(folder / "work/tokens", [identity]))
    return tokenizer(KNOWN_SENTENCE, add_special_tokens=False)["input_ids"]


def test_a_run_leaves_a_verdict_a_bundle_and_its_figures(finished):
    folder, result = finished
    assert result.verdict == "PASS"
    assert (result.bundle / "report.html").is_file()
    assert result.evidence["schema"] == "dpmlm.evidence/1"
    assert "verbatim" not in result.evidence
    assert result.private["corpus"]["dropped"] == {"empty": 1}
    assert result.private["dedup"]["removed"] == {"near": 1}
    assert result.private["scrub"]["found"]["PHONE_NUMBER"] > 40
    assert set(result.private["seconds"]) == {
        stage.name for stage in stages_of(load_config(folder / "run.yaml"))
    }
    assert result.to_json()["private"] is None


def test_the_ledger_was_charged_for_every_step(finished):
    folder, result = finished
    summary = result.public["ledger"]
    assert summary["charged_steps"] == summary["committed_steps"] == 80
    Ledger.open(folder / "ledger.jsonl").verify()


def test_telemetry_is_what_the_sealed_events_say_less_what_is_private(finished):
    folder, _ = finished
    lines = [json.loads(line) for line in (folder / "telemetry.jsonl").read_text().splitlines()]
    identity = load_identity(folder / "keys/trainer.key")
    sealed = SealedFolder.open(folder / "work/training", [identity]).read_bytes("events.jsonl")
    events = [json.loads(line) for line in sealed.splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 81))
    assert all(event["private"]["loss"] > 0 for event in events if event["private"]["units"])
    assert lines == [{k: v for k, v in event.items() if k != "private"} for event in events]


def test_no_private_text_lies_in_clear_anywhere(finished):
    folder, _ = finished
    tokens = sentence_tokens(folder)
    assert len(tokens) > 8
    given = ("private.jsonl", "marked.jsonl")
    assert find_leaks(folder, KNOWN_SENTENCE, tokens, skip=given) == []
    # The same search does find the sentence where it is.
    assert find_leaks(folder, KNOWN_SENTENCE, tokens) == sorted(given)


@pytest.mark.parametrize("spelling", ["utf-8", "tokens", "gzip", "base64"])
def test_a_planted_leak_is_found_in_every_spelling(tmp_path, finished, spelling):
    tokens = sentence_tokens(finished[0])
    planted = {
        "utf-8": KNOWN_SENTENCE.encode(),
        "tokens": np.asarray(tokens, dtype=np.uint16).tobytes(),
        "gzip": b"head" + gzip.compress(b"x" * 10 + KNOWN_SENTENCE.encode()),
        "base64": base64.b64encode(b"ab" + KNOWN_SENTENCE.encode() + b"cd"),
    }[spelling]
    (tmp_path / "temporary").write_bytes(b"\x00" * 100 + planted)
    assert find_leaks(tmp_path, KNOWN_SENTENCE, tokens) == ["temporary"]


def test_repeating_a_finished_run_changes_nothing_and_charges_nothing(finished):
    folder, result = finished
    before = (folder / "ledger.jsonl").read_bytes()
    stamps = {p: p.stat().st_mtime_ns for p in (folder / "work").rglob("*.sealed")}
    again = execute_run(load_config(folder / "run.yaml"))
    assert again.verdict == result.verdict
    assert (folder / "ledger.jsonl").read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in (folder / "work").rglob("*.sealed")} == stamps


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"training.steps": 7}, "training.steps = 80 (now 7)"),
        ({"privacy.epsilon": 4}, "privacy.epsilon"),
        ({"name": "other"}, "run 'small'"),
    ],
)
def test_a_workspace_of_another_run_is_refused_and_left_alone(finished, change, named):
    folder, _ = finished
    stamps = {p: p.stat().st_mtime_ns for p in (folder / "work").rglob("*")}
    with pytest.raises(UserError) as caught:
        execute_run(load_config(folder / "run.yaml", change))
    assert named in str(caught.value)
    assert {p: p.stat().st_mtime_ns for p in (folder / "work").rglob("*")} == stamps


def test_speed_may_change_between_attempts(finished):
    folder, result = finished
    config = load_config(folder / "run.yaml", {"training.physical_batch_size": 3})
    assert execute_run(config).verdict == result.verdict


def test_a_changed_corpus_is_noticed(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    with (folder / "private.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "text": "one more", "author": "x"}) + "\n")
    with pytest.raises(UserError, match="stage corpus"):
        execute_run(load_config(folder / "run.yaml"))


def test_one_changed_byte_in_any_artifact_stops_the_run_that_reads_it(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    (folder / "work/release/manifest.sealed").unlink()
    path = folder / "work/training/weights.sealed"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"weights\.sealed"):
        execute_run(load_config(folder / "run.yaml"))


def test_the_bundle_verifies_and_opens_to_its_consumers_and_keepers(finished, tmp_path):
    folder, result = finished
    trusted = folder / "keys/trusted"
    checked = verify_bundle(result.bundle, trusted, now=datetime.now(UTC))
    assert checked.ok, checked.findings
    for name in ("consumer", "auditor", "trainer"):
        model, tokenizer = load_released(
            result.bundle, identity=folder / f"keys/{name}.key", trusted_keys=trusted
        )
        assert model.config.vocab_size == len(tokenizer)
    stranger = tmp_path / "stranger"
    create_keys(stranger)
    with pytest.raises(UserError):
        load_released(result.bundle, identity=stranger / "consumer.key", trusted_keys=trusted)


PRIVATE = (
    "Mentions taken out of the text",
    "Training loss over steps",
    "Median gradient norm over steps",
    "Share of clipped units over steps",
)
"""Titles of drawings for the auditor."""


def test_the_report_opens_to_trainer_and_auditor_and_to_nobody_else(finished, tmp_path):
    folder, result = finished
    config = load_config(folder / "run.yaml")
    for number, key in enumerate((None, folder / "keys/auditor.key")):
        page = open_report(config, tmp_path / f"{number}.html", identity=key).read_text()
        assert result.verdict in page
        for private in PRIVATE:
            assert private in page
    public = (result.bundle / "report.html").read_text()
    for private in PRIVATE:
        assert private not in public
    assert "not in this run" not in public  # every pointer of the guidance leads somewhere
    with pytest.raises(UserError):
        open_report(config, tmp_path / "3.html", identity=folder / "keys/consumer.key")
    assert not (tmp_path / "3.html").exists()
    with pytest.raises(UserError, match="there already"):
        open_report(config, tmp_path / "0.html", identity=None)


@pytest.fixture(scope="module")
def unproven(tmp_path_factory):
    """A run of six steps, which teach nobody anything, and what its trainings were called with:
    folder, result, calls, numbers of units."""
    from dpmlm.pipeline import models

    folder = tmp_path_factory.mktemp("unproven")
    write_corpus(folder)
    write_run_file(folder)
    draw_keys(folder)
    calls, counts = [], []
    real = models.train

    def watched(model, units, plan, recipe, **rest):
        canaries = [name for name in units.names if name.startswith("canary/")]
        places = [list(units.names).index(name) for name in canaries]
        examples = [units.views(place, 0, 1)[0].example for place in places]
        secrets = [(example.tokens.tolist(), example.secret_span) for example in examples]
        calls.append((model_digest(model), recipe, plan, canaries, secrets))
        counts.append(len(units.names))
        return real(model, units, plan, recipe, **rest)

    # More public text than the plan has units: the control's batches must not grow with it.
    public = (folder / "public.jsonl").read_text().splitlines()
    more = [
        json.dumps({"text": f"{json.loads(line)['text']} {i}"}) for i in (1, 2) for line in public
    ]
    (folder / "public.jsonl").write_text("\n".join(more))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "train", watched)
        result = execute_run(load_config(folder / "run.yaml"))
    return folder, result, calls, counts


@pytest.mark.full
def test_the_control_differs_from_the_run_by_noise_and_clipping_alone(unproven):
    _, _, calls, counts = unproven
    (model, recipe, plan, names, secrets), control = calls
    assert control[0] == model
    assert control[1] is not recipe
    assert [
        getattr(control[1], field.name) for field in fields(recipe) if field.name != "table"
    ] == [getattr(recipe, field.name) for field in fields(recipe) if field.name != "table"]
    assert all(
        np.array_equal(getattr(control[1].table, field.name), getattr(recipe.table, field.name))
        for field in fields(recipe.table)
    )
    assert control[3:] == (names, secrets)
    assert names
    assert counts[1] == plan.units == 100
    theirs, ours = control[2].to_json(), plan.to_json()
    differing = {key for key in ours if ours[key] != theirs[key]}
    assert differing == {"epsilon", "noise_multiplier", "max_grad_norm", "noise_source", "digest"}
    assert (control[2].noise_multiplier, control[2].max_grad_norm) == (0.0, float("inf"))


def test_bad_input_is_refused_before_anything_is_written(small):
    cases = {
        "missing corpus": {"corpus.path": "none.jsonl"},
        "missing control": {"audit.control.corpus": "none.jsonl"},
        "delta": {"privacy.delta": 0.5},
        "unknown policy": {"release.policy": "nope"},
        "unknown scrub policy": {"scrub.policy": "nope"},
        "missing identity": {"keys.identity": "keys/none.key"},
        "an auditor's public key as identity": {"keys.identity": str(small / "keys/auditor.pub")},
        "budget": {"privacy.epsilon": 40},
        "another cap": {"ledger.cap.epsilon": 99},
        "no ledger": {"ledger.path": "none.jsonl"},
    }
    ledger = (small / "ledger.jsonl").read_bytes()
    for name, change in cases.items():
        with pytest.raises(UserError):
            execute_run(load_config(small / "run.yaml", change))
        assert not (small / "work").exists(), name
        assert (small / "ledger.jsonl").read_bytes() == ledger, name


def test_more_units_than_declared_are_refused_before_the_reservation(small):
    write_run_file(small, privacy__units=20)
    ledger = (small / "ledger.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"privacy\.units 20"):
        execute_run(load_config(small / "run.yaml"))
    assert (small / "ledger.jsonl").read_bytes() == ledger


def test_a_folder_of_other_things_is_no_workspace(small):
    (small / "work").mkdir()
    (small / "work/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        execute_run(load_config(small / "run.yaml"))
    assert [p.name for p in (small / "work").iterdir()] == ["thesis.txt"]


@pytest.mark.full
def test_a_run_that_does_not_pass_gives_its_consumers_no_key(unproven):
    # The control is not caught, so nothing was shown.
    small, result, _, _ = unproven
    assert result.verdict in ("FAIL", "INCONCLUSIVE")
    trusted = small / "keys/trusted"
    with pytest.raises(UserError, match="only a model that passed"):
        load_released(result.bundle, identity=small / "keys/consumer.key", trusted_keys=trusted)
    with pytest.raises(UserError):
        SealedFolder.open(result.bundle / "model", [load_identity(small / "keys/consumer.key")])
    load_released(result.bundle, identity=small / "keys/auditor.key", trusted_keys=trusted)


def test_without_resume_a_workspace_in_use_is_refused(finished):
    folder, _ = finished
    with pytest.raises(UserError, match="--no-resume"):
        execute_run(load_config(folder / "run.yaml"), resume=False)


def test_the_audit_can_be_repeated_from_the_sealed_folders(finished):
    folder, result = finished
    again = attack(
        result.workspace / "training",
        canaries=result.workspace / "canaries",
        plan=result.bundle / "plan.json",
        out=folder / "again.json",
        control=result.workspace / "control",
        untrained=result.workspace / "audit" / "untrained",
        reference=None,
        identity=folder / "keys/trainer.key",
        beta=0.05,
    )
    for part in ("claim", "declared", "subjects", "power"):
        assert again.evidence[part] == result.evidence[part]
    assert again.evidence["power"]["status"] == "shown"
