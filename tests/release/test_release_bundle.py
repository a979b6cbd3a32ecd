"""Bundles: written whole or not at all, and opened by consumers on PASS only."""

import copy
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import torch
from signing_again import edit_json, sign_anew
from tokenizers import normalizers
from variants import rest_in_full

from audits.verdict import power_of_tests
from dpmlm.artifacts import SealedFolder, save_model
from dpmlm.errors import IntegrityError, UserError
from dpmlm.release import decide, load_policy, load_released, mlbom, verify_bundle
from dpmlm.release.bundle import PRIVATE_MARK
from dpmlm.release.inventory import MANIFEST


def test_a_bundle_verifies_and_opens(bundle, check, keys, released_model):
    found = check(bundle)
    assert (found.ok, found.findings, found.verdict) == (True, (), "PASS")
    assert found.signers == (keys.signing.key_id,)
    model, tokenizer = load_released(bundle, identity=keys.consumer, trusted_keys=keys.trusted)
    ids = tokenizer("patient took [MASK]", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model(**ids).logits, released_model[0](**ids).logits)


def test_nothing_private_and_no_plain_weights_in_a_bundle(bundle, facts):
    text = "".join(
        path.read_text() for path in bundle.iterdir() if path.is_file() and path.name != MANIFEST
    )
    assert "verbatim" not in text
    assert "mcnemar" not in text
    sealed = b"".join(path.read_bytes() for path in (bundle / "model").iterdir())
    assert b"aspirin" not in sealed
    assert b"vocab_size" not in sealed


def test_no_plaintext_of_the_model_is_ever_written(write, facts, tmp_path, monkeypatch):
    seen = []
    real = os.open

    def spy(path, *rest, **more):
        seen.append(str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", spy)
    write(tmp_path / "bundle", facts)
    written = [path for path in seen if "/model/" in path]
    assert written
    assert all(".sealed" in path or "recipients.json" in path for path in written)


def test_consumers_cannot_open_what_has_not_passed(failed, check, keys):
    found = check(failed)
    assert (found.ok, found.verdict) == (True, "FAIL")
    with pytest.raises(UserError, match="only a model that passed"):
        load_released(failed, identity=keys.consumer, trusted_keys=keys.trusted)
    with pytest.raises(UserError):  # not by going round the bundle either
        SealedFolder.open(failed / "model", [keys.consumer])
    load_released(failed, identity=keys.folder / "auditor.key", trusted_keys=keys.trusted)


def test_an_inconclusive_run_is_no_pass(tmp_path, write, facts, check, keys):
    audit = facts["audit"]
    audit["subjects"]["control"] = dict(audit["subjects"]["untrained"])
    audit["power"] = power_of_tests(audit["subjects"])
    assert audit["power"]["status"] == "not shown"
    folder = write(tmp_path / "unclear", facts)
    assert check(folder).verdict == "INCONCLUSIVE"
    with pytest.raises(UserError):
        SealedFolder.open(folder / "model", [keys.consumer])


def test_a_run_without_audits_is_written_as_inconclusive(tmp_path, write, facts, check):
    facts["audit"] = {}
    assert check(write(tmp_path / "bare", facts)).verdict == "INCONCLUSIVE"


def test_writing_refuses_what_is_private(tmp_path, write, facts):
    with pytest.raises(ValueError, match="verbatim"):
        write(tmp_path / "bundle", facts, evidence_public=facts["audit"])
    with pytest.raises(ValueError, match="report"):
        write(tmp_path / "bundle", facts, report_html=f"<html {PRIVATE_MARK}>")
    assert list(tmp_path.iterdir()) == []


def test_writing_refuses_a_decision_that_does_not_follow(tmp_path, write, facts, now):
    decision = decide(load_policy("internal"), facts, now=now)
    facts["audit"]["subjects"]["target"]["gating"]["rejected"] = True
    with pytest.raises(UserError):
        write(tmp_path / "bundle", facts, decision=replace(decision, verdict="PASS"))
    assert list(tmp_path.iterdir()) == []


def test_writing_refuses_evidence_about_another_model(tmp_path, write, facts):
    facts["audit"]["subjects"]["target"]["model_digest"] = "sha256:" + "0" * 64
    with pytest.raises(UserError, match="another model"):
        write(tmp_path / "bundle", facts)


def test_writing_never_replaces_a_bundle(tmp_path, write, facts, bundle, check):
    with pytest.raises(UserError, match="already exists"):
        write(bundle, facts)
    assert check(bundle).ok


def test_a_full_disk_leaves_nothing_behind(tmp_path, write, facts, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dpmlm.release.bundle._sign", full)
    with pytest.raises(UserError, match="No space left"):
        write(tmp_path / "bundle", facts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", rest_in_full(["model", "tokenizer"], ["model"]))
def test_a_signer_who_seals_something_else_is_found_by_whoever_opens(
    bundle, keys, released_model, other
):
    """Manifest and inventory are honest about the bytes, and the digests are those of the audit."""
    model, tokenizer = copy.deepcopy(released_model[0]), copy.deepcopy(released_model[1])
    if other == "model":
        with torch.no_grad():
            next(model.parameters()).add_(1.0)
    else:
        tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.add_tokens(["another"])
    shutil.rmtree(bundle / "model")
    sealed = SealedFolder.create(
        bundle / "model", [*keys.keep, keys.consumer_pub], role="released-model"
    )
    save_model(sealed, model, tokenizer)
    sealed.finish({})
    edit_json(bundle / mlbom.NAME, lambda bill: bill["metadata"]["component"].update(components=[
        mlbom._file(f"model/{path.name}", path) for path in (bundle / "model").glob("*.sealed")
    ]))  # fmt: skip
    sign_anew(bundle, keys.signing)
    assert verify_bundle(bundle, keys.trusted, now=datetime.now(UTC)).ok
    with pytest.raises(IntegrityError, match=f"{other} of digest"):
        load_released(bundle, identity=keys.consumer, trusted_keys=keys.trusted)
