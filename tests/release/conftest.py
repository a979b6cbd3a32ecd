"""A small sound run for the release tests: plan, ledger summary, evidence, model, keys."""

import copy
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from settled import settled

from dpmlm.artifacts import load_identity, load_recipient, load_signing_key
from dpmlm.artifacts.keys import create_keys
from dpmlm.privacy.ledger import Ledger
from dpmlm.privacy.planning import make_plan
from dpmlm.privacy.statement import statement

NOW = datetime.now(UTC)


def _histogram(inside, outside, bins=36):
    """Counts a bit; what is given, padded with zeros."""
    pad = [0] * bins
    return {
        "edges": list(range(bins + 1)),
        "in": (inside + pad)[:bins],
        "out": (outside + pad)[:bins],
    }


def _subject(digest, *, correct, leaky, extracted, above, histogram):
    # Whatever follows from the counts is filled in by `settled`.
    return {
        "model_digest": digest,
        "gating": {
            "applicable": True,
            "canaries": 1000,
            "guesses": 200,
            "correct": correct,
        },
        "exposure": {
            "applicable": True,
            "n": 496,
            "mean_bits": 27.4 if leaky else 1.48,
            "mean_bits_optimistic": 27.4 if leaky else 1.48,
            "mean_bits_out": 1.44,
            "max_bits": 36.0 if leaky else 9.8,
            "space_bits": 36.0,
            "threshold_bits": 24.0,
            "histogram": histogram,
            "count_above": above,
        },
        "canary_extraction": {
            "n": 496,
            "extracted": extracted,
            "extracted_never_inserted": 0,
            "guesses_per_canary": 2,
            "baseline_rate": 2 * 2.0**-36,
        },
        "lower_bound": {},
    }


def _evidence(plan, model_digest):
    noise = [252, 124, 61, 30, 14, 8, 4, 2, 0, 1]
    chance = [249, 129, 60, 33, 16, 9, 5, 1, 2]
    leaked = [0] * 8 + [1, 2, 2, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 16, 17, 18, 20, 21, 22, 24]
    leaked += [25, 26, 28, 29, 31, 33, 35, 63]
    quiet, loud = _histogram(noise, chance), _histogram(leaked, chance)
    off = {"leaky": False, "extracted": 0, "above": 0, "histogram": quiet}
    return {
        "schema": "dpmlm.evidence/1",
        "claim": {
            "epsilon": plan.epsilon,
            "delta": plan.delta,
            "plan_digest": plan.digest,
            "canary_epsilon": plan.epsilon,
        },
        "declared": {
            "beta": 0.05,
            "correction": "Holm",
            "guesses": 200,
            "threshold_bits": 24.0,
            "commitment": "sha256:" + "c" * 64,
            "family": "rare_tokens",
            "copies": 1,
            "tokens_checked": True,
        },
        "subjects": {
            "target": _subject(model_digest, correct=108, **off),
            "control": _subject(
                "sha256:" + "2" * 64,
                correct=200,
                leaky=True,
                extracted=470,
                above=357,
                histogram=loud,
            ),
            "untrained": _subject("sha256:" + "3" * 64, correct=99, **off),
        },
        "verbatim": {
            "label": "private",
            "spans": {"train": 300, "twins": 300},
            "hits": {"train": 17, "twins": 16, "reference": 15},
            "near_hits": {"train": 2, "twins": 1, "reference": 1},
            "rate_interval": {
                "train": [0.033, 0.089],
                "twins": [0.031, 0.085],
                "reference": [0.028, 0.081],
            },
            "discordant": 3,
            "discordant_reversed": 1,
            "discordant_upper": 0.0256,
            "mcnemar_p_value": 0.3125,
            "fisher_p_value": 0.5,
            "decoding": "greedy, left to right",
        },
        "attacks": [
            {
                "attack": "attribute inference",
                "kind": "attribute inference",
                "status": "NOT RUN",
                "reason": "no labels were declared",
                "could_find": "an attribute of a person",
            },
            {
                "attack": "extraction of planted secrets",
                "kind": "regurgitation",
                "status": "RUN",
                "evidence": "subjects.target.canary_extraction",
                "could_find": "a secret said in full",
            },
        ],
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "seconds": 61.5,
    }


@pytest.fixture(scope="session")
def plan():
    return make_plan(
        epsilon=8,
        delta=1e-6,
        units=6500,
        unit="person",
        expected_batch_size=256,
        steps=20,
        max_grad_norm=1.0,
        accountant="pld",
        bindings={"canary_commitment": "sha256:" + "c" * 64},
    )


@pytest.fixture(scope="session")
def ledger_summary(plan, tmp_path_factory):
    ledger = Ledger.register(
        tmp_path_factory.mktemp("ledger") / "ledger.jsonl", epsilon=16, delta=1e-5, corpus="notes"
    )
    ledger.reserve("run", plan)
    attempt = ledger.begin_attempt("run")
    for step in range(plan.steps):
        ledger.charge("run", attempt, step)
    ledger.commit("run", plan.steps, attempt)
    return ledger.summary("run")


@pytest.fixture(scope="session")
def claim(plan, ledger_summary):
    return statement(plan, what="the weights of the model", summary=ledger_summary)


@pytest.fixture(scope="session")
def released_model():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "patient", "took", "aspirin"]
    backend = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    config = BertConfig(
        vocab_size=8,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    return BertForMaskedLM(config).eval(), tokenizer


@pytest.fixture(scope="session")
def model_digest(released_model):
    from dpmlm.artifacts import model_digest

    return model_digest(released_model[0])


@pytest.fixture(scope="session")
def settled_evidence(plan, model_digest):
    return settled(_evidence(plan, model_digest), plan.to_json())


@pytest.fixture
def evidence(settled_evidence):
    return copy.deepcopy(settled_evidence)


def _share(hits, trials):
    return {"hits": hits, "trials": trials, "interval": [0.0, 1.0] if trials else None}


def _game(**by_type):
    """A game's table: of each type (hits of the model, hits of the other, trials)."""
    return {
        "by_type": {
            kind: {"target": _share(own, n), "reference": _share(other, n)}
            for kind, (own, other, n) in by_type.items()
        },
        "all": {"target": _share(7, 40), "reference": _share(6, 40)},
    }


@pytest.fixture
def whole_evidence(evidence):
    """Evidence in which every attack that there is was run, those on private text too."""
    from audits.coverage import attacks

    cases = ("verbatim", "membership", "identifiers", "gradients")
    listed = attacks(canaries=True, control=True, groups=["words"], cases=cases)
    games = {
        "label": "private", "applicable": True, "sentences": {"train": 40, "held_out": 38},
        "extractable": {"applicable": True, "said": _game(PERSON=(1, 0, 9))},
        "reconstructable": {"applicable": True, "top_10": _game(PERSON=(2, 1, 9))},
        "inferable": {"applicable": True, **_game(PERSON=(3, 4, 9), DATE_TIME=(5, 5, 31))},
    }  # fmt: skip
    refused = {"label": "private", "applicable": False, "reason": "nothing was tagged"}
    test = {"p_value": 0.31, "rejected": False}
    return evidence | {
        "attacks": listed,
        "identifiers": {"label": "private", "original": games, "training": refused},
        "membership": {
            "label": "private", "applicable": True,
            "records": {"members": 60, "non_members": 61, "population": 50},
            "units": {"members": 30, "non_members": 31, "population": 25},
            "record_level": {"leaks": []}, "person_level": {"leaks": []},
        },
        "gradients": {
            "label": "private", "applicable": True, "steps": 20, "canaries": 1000,
            "included": 517, "guesses": 200, "correct": 133, "beta": 0.05,
            "gating": test | {"needed_strict": 190, "smallest_multiple_detected": 1.31},
            "noise": test | {"expected": 0.9, "measured": 0.9011},
            "drawn": test | {"expected": 0.0394, "measured": 0.0391},
            "lower_bound": {
                "one_run": 0.437, "one_run_ceiling": 4.168, "fdp_one_run": 0.771,
                "fdp_one_run_ceiling": 6.92, "exceeds_claim": False,
            },
            "rejected_by": [],
        },
        "groups": [],
    }  # fmt: skip


@pytest.fixture
def facts(plan, ledger_summary, evidence):
    return {
        "plan": plan.to_json(),
        "ledger": copy.deepcopy(ledger_summary),
        "audit": evidence,
        "training": {
            "steps": plan.steps,
            "model_digest": evidence["subjects"]["target"]["model_digest"],
            "scrub_policy": "default",
            "near_duplicates": 0.8,
            "repeated_passages": "kept",
        },
    }


@pytest.fixture(scope="session")
def keys(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("keys") / "keys"
    create_keys(folder)
    return SimpleNamespace(
        folder=folder,
        trusted=folder / "trusted",
        signing=load_signing_key(folder / "sign.key"),
        consumer=load_identity(folder / "consumer.key"),
        trainer=load_identity(folder / "trainer.key"),
        consumer_pub=load_recipient(folder / "consumer.pub"),
        keep=[load_recipient(folder / f"{who}.pub") for who in ("trainer", "auditor")],
    )


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW


@pytest.fixture
def write(plan, ledger_summary, claim, released_model, keys):
    """A function that decides on facts and writes the bundle to a folder."""
    from dpmlm.release import BuildInputs, decide, load_policy, public_evidence, write_bundle
    from dpmlm.release.provenance import STAGES

    inputs = BuildInputs(
        settings="sha256:" + "5" * 64,
        code="sha256:" + "6" * 64,
        stages={stage: f"sha256:{number:064x}" for number, stage in enumerate(STAGES)},
    )

    def write_to(folder: Path, facts, *, policy="internal", **changed):
        rules = load_policy(policy) if isinstance(policy, str) else policy
        given = {
            "model": released_model[0],
            "tokenizer": released_model[1],
            "statement": claim,
            "plan": plan,
            "evidence_public": public_evidence(facts.get("audit", {})),
            "decision": decide(rules, facts, now=NOW),
            "ledger_summary": facts["ledger"],
            "policy": rules,
            "recipients_consumer": [keys.consumer_pub],
            "recipients_keep": keys.keep,
            "signing_key": keys.signing,
            "report_html": "<!doctype html><title>report</title>",
            "model_card": "# model card\n",
            "inputs": inputs,
            "opener": keys.trainer,
            "training": facts.get("training"),
        }
        return write_bundle(folder, **{**given, **changed})

    return write_to


@pytest.fixture
def report_data(plan, ledger_summary, claim, facts):
    """A whole report on the facts as they are when it is called."""
    import math

    from dpmlm.release import PrivateFigures, ReportData, decide, load_policy

    def build(**changed):
        steps = range(1, plan.steps + 1)
        given = {
            "name": "clinic notes 2026",
            "created": NOW.isoformat(),
            "statement": claim.to_json(),
            "plan": plan.to_json(),
            "decision": decide(load_policy("internal"), facts, now=NOW),
            "evidence": facts.get("audit"),
            "ledger": facts["ledger"],
            "epsilon_curve": [(step, 7.98 * math.sqrt(step / plan.steps)) for step in steps],
            "delta_curve": {
                "PLD": [(10.0**power, 2.0 - power) for power in range(-11, -3)],
                "RDP": [(10.0**power, 3.4 - power) for power in range(-11, -3)],
            },
            "training": facts["training"] | {"learning_rate": 1e-3},
            "digests": {"training artifact": "sha256:" + "a" * 64}
            | {
                stage: "sha256:" + f"{number}" * 64
                for number, stage in enumerate(
                    ("corpus", "scrub", "dedup", "tokens", "canaries", "training", "audit")
                )
            },
            "versions": {"dpmlm-framework": "0.1.0", "torch": "2.13.0"},
            "private": PrivateFigures(
                loss_curve=[(step, 5 + 4 * math.exp(-step / 6)) for step in steps],
                norm_curve=[(step, 3 + step / 10) for step in steps],
                clipped_curve=[(step, 1 - step / 50) for step in steps],
                documents={"read": 9120, "after deduplication": 8717, "units": 8250},
                scrubbed={"PERSON": 4123, "DATE_TIME": 2210, "PHONE_NUMBER": 611, "US_SSN": 14},
                duplicates={"exact": 301, "near": 97},
                dropped={"empty": 5},
                evaluation={
                    "before training": {"loss": 9.01, "perplexity": 8184.5, "top1": 0.0004},
                    "after training": {"loss": 5.21, "perplexity": 183.1, "top1": 0.171},
                },
                seconds={"scrub": 41.2, "training": 188.7, "audits": 61.5},
            ),
        }
        return ReportData(**{**given, **changed})

    return build


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Where bundles are made once, for tests to copy."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def bundle(tmp_path, made, write, facts):
    """A bundle that passed."""
    if not (made / "bundle").exists():
        write(made / "bundle", facts)
    return shutil.copytree(made / "bundle", tmp_path / "bundle")


@pytest.fixture
def check(keys, now):
    """A function that verifies a bundle's folder at a time."""
    from dpmlm.release import verify_bundle

    return lambda folder, at=now: verify_bundle(folder, keys.trusted, now=at)


@pytest.fixture
def failed(tmp_path, made, write, facts):
    """A bundle whose model gave canaries away."""
    if not (made / "failed").exists():
        facts["audit"]["subjects"]["target"]["canary_extraction"]["extracted"] = 3
        settled(facts["audit"], facts["plan"])
        write(made / "failed", facts)
    return shutil.copytree(made / "failed", tmp_path / "failed")
