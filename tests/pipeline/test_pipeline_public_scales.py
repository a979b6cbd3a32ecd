"""`training.scale`: what it measures, what it is bound to, and what it refuses."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_run import sentences

from dpmlm.config import load_config
from dpmlm.config.training import ScaleConfig
from dpmlm.errors import UserError
from dpmlm.masking import MaskingSpec, TokenTable
from dpmlm.pipeline.declared import declared_public
from dpmlm.pipeline.models import _settings, plan_of
from dpmlm.pipeline.preflight import check_declared
from dpmlm.pipeline.public_scales import scales_of
from dpmlm.tokens import train_tokenizer
from dpmlm.training import Recipe, new_model

RUN = """
name: scaled
workspace: work
seed: 1
keys: {identity: keys/trainer.key, signing: keys/sign.key, scrub: keys/pseudonym.key}
ledger: {path: ledger.jsonl, cap: {epsilon: 16, delta: 1e-4}}
corpus: {path: private.jsonl}
tokens: {vocabulary: vocab, window: 16}
model: {size: tiny}
privacy: {unit: document, epsilon: 8, delta: 1e-5, units: 1000, max_grad_norm: 1.0}
training: {steps: 4, expected_batch_size: 8}
release: {policy: internal, recipients: [keys/consumer.pub]}
"""


@pytest.fixture(scope="module")
def tokenizer():
    rng = random.Random(2)
    return train_tokenizer((sentences(rng, 4) for _ in range(30)), vocab_size=200)


def written(path: Path, texts) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def texts(seed, count=40):
    rng = random.Random(seed)
    return [sentences(rng, 1 + n % 3) for n in range(count)]


def a_recipe(tokenizer) -> Recipe:
    return Recipe(
        table=TokenTable.of(tokenizer), masking=MaskingSpec("token", 0.3), window=16, stride=16,
        mask_seed=b"m" * 32, learning_rate=1e-3, warmup=0.1, weight_decay=0.0,
    )  # fmt: skip


def test_every_trainable_parameter_gets_one_and_the_power_says_how_far_apart(tmp_path, tokenizer):
    path = written(tmp_path / "public.jsonl", texts(3))
    model, recipe = new_model("tiny", tokenizer, 16, seed=1), a_recipe(tokenizer)
    spread = []
    for power in (0.1, 0.5):
        asked = ScaleConfig(corpus=path, documents=32, power=power)
        found = scales_of(asked, tokenizer, recipe, model)
        assert found.keys() == {name for name, _ in model.named_parameters()}
        whole = torch.cat([scale.full().flatten() for scale in found.values()]).log()
        spread.append(float(whole.std()))
    assert spread[1] > 4 * spread[0] > 0
    assert scales_of(None, tokenizer, recipe, model) is None


def test_text_without_anything_to_mask_is_refused(tmp_path, tokenizer):
    asked = ScaleConfig(corpus=written(tmp_path / "public.jsonl", ["\u200b"] * 20))
    model = new_model("tiny", tokenizer, 16, seed=1)
    with pytest.raises(UserError, match=r"training\.scale\.corpus .*\n?.*no token of it"):
        scales_of(asked, tokenizer, a_recipe(tokenizer), model)


def config(folder: Path, *changes: str):
    path = folder / "run.yaml"
    path.write_text(RUN)
    pairs = (change.split("=", 1) for change in changes)
    return load_config(
        path,
        {key: str(folder / value) if "corpus" in key else float(value) for key, value in pairs},
    )


def test_the_plan_is_bound_to_the_public_text(tmp_path):
    written(tmp_path / "private.jsonl", texts(4))
    public = written(tmp_path / "public.jsonl", texts(5))
    plain, scaled = (
        plan_of(config(tmp_path, *more)) for more in ([], ["training.scale.corpus=public.jsonl"])
    )
    other = plan_of(
        config(tmp_path, "training.scale.corpus=public.jsonl", "training.scale.power=0.5")
    )
    written(public, texts(6))
    changed = plan_of(config(tmp_path, "training.scale.corpus=public.jsonl"))
    assert len({plan.digest for plan in (plain, scaled, other, changed)}) == 4
    assert len({plan.noise_multiplier for plan in (plain, scaled, other, changed)}) == 1


@pytest.mark.parametrize("section", ["scale", "best"])
def test_a_text_that_is_not_there_is_named_by_its_field(tmp_path, section):
    asked = config(tmp_path, f"training.{section}.corpus=nothing.jsonl")
    with pytest.raises(UserError, match=rf"training\.{section}\.corpus .*nothing\.jsonl"):
        check_declared(declared_public(asked))


@pytest.mark.parametrize("section", ["scale", "best"])
def test_text_that_changes_after_the_plan_makes_another_training(tmp_path, section):
    """By its settings a stage is known: of another text it is another one, and a charged one is
    refused."""
    public = written(tmp_path / "public.jsonl", texts(5))
    run = SimpleNamespace(config=config(tmp_path, f"training.{section}.corpus=public.jsonl"))
    before = _settings(run)
    assert _settings(run) == before
    written(public, texts(6))
    assert _settings(run) != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.scale.power=0", "power"),
        ("training.scale.power=0.7", "power"),
        ("training.scale.documents=3", "documents"),
        ("training.scale.powr=0.2", "power"),
    ],
)
def test_values_out_of_range_are_one_message(tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        config(tmp_path, "training.scale.corpus=public.jsonl", change)
