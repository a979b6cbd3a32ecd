"""The loss on public text: what it is, and what it may not stand beside."""

import json
import math
import random
from types import SimpleNamespace

import pytest
import torch
from small_run import sentences

from dpmlm.config.training import BestConfig
from dpmlm.errors import UserError
from dpmlm.masking import MaskingSpec, TokenTable
from dpmlm.pipeline.preflight import _check_best
from dpmlm.pipeline.public_loss import public_loss
from dpmlm.tokens import train_tokenizer
from dpmlm.training import Recipe, new_model


@pytest.fixture(scope="module")
def tokenizer():
    rng = random.Random(2)
    return train_tokenizer((sentences(rng, 4) for _ in range(30)), vocab_size=200)


def a_recipe(tokenizer, **more) -> Recipe:
    return Recipe(
        table=TokenTable.of(tokenizer), masking=MaskingSpec("token", 0.3), window=16, stride=16,
        mask_seed=b"m" * 32, learning_rate=1e-3, warmup=0.1, weight_decay=0.0, **more,
    )  # fmt: skip


def config(best, **changes):
    fields = {"bands": 1, "epsilon": 8.0, "gradient_canaries": 0} | changes
    return SimpleNamespace(
        training=SimpleNamespace(best=best),
        privacy=SimpleNamespace(bands=fields["bands"], epsilon=fields["epsilon"]),
        audit=SimpleNamespace(gradient_canaries=fields["gradient_canaries"]),
    )


def written(folder, texts):
    path = folder / "public.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def never():
    return False


def test_it_is_the_mean_over_the_masked_tokens_whatever_the_batches(tmp_path, tokenizer):
    rng = random.Random(3)
    path = written(tmp_path, [sentences(rng, 1 + n % 3) for n in range(12)])
    asked = BestConfig(corpus=path, documents=100, every=7, patience=3, jump=2.0)
    model = new_model("tiny", tokenizer, 16, seed=1).eval()
    found = {
        rows: public_loss(asked, tokenizer, a_recipe(tokenizer, physical_batch_size=rows))
        for rows in (1, 64)
    }
    assert (found[1].every, found[1].patience, found[1].jump) == (7, 3, 2.0)
    losses = {rows: one.loss(model, never) for rows, one in found.items()}
    assert losses[1] == pytest.approx(losses[64], rel=1e-5)
    assert losses[1] == found[1].loss(model, never)  # the masks never change
    assert losses[1] == pytest.approx(math.log(len(tokenizer)), rel=0.1)  # of random weights
    with torch.no_grad():
        model.cls.predictions.bias[:] = 0
        model.cls.predictions.bias[tokenizer.convert_tokens_to_ids("the")] = 30.0
    assert found[64].loss(model, never) > 15
    answers = iter([False, True])
    assert found[1].loss(model, lambda: next(answers)) is None  # asked before each batch


def test_a_run_file_that_names_none_has_none(tokenizer):
    assert public_loss(None, tokenizer, a_recipe(tokenizer)) is None


def test_text_without_anything_to_mask_is_refused(tmp_path, tokenizer):
    path = written(tmp_path, ["\u200b\u200b", "\u200b"])
    asked = BestConfig(corpus=path)
    with pytest.raises(UserError, match="no token of it can be masked"):
        public_loss(asked, tokenizer, a_recipe(tokenizer))


@pytest.mark.parametrize("early", [{"patience": 2}, {"jump": 0.5}])
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bands": 4}, "privacy.bands"),
        ({"epsilon": math.inf}, "privacy.epsilon inf"),
        ({"gradient_canaries": 10}, "audit.gradient_canaries"),
    ],
)
def test_what_it_may_not_stand_beside(tmp_path, changes, named, early):
    best = BestConfig(corpus=tmp_path / "public.jsonl", **early)
    with pytest.raises(UserError, match=named):
        _check_best(config(best, **changes))
    _check_best(config(best))
    _check_best(config(None, **changes))
    if named == "audit.gradient_canaries":
        _check_best(config(BestConfig(corpus=tmp_path / "public.jsonl"), **changes))
