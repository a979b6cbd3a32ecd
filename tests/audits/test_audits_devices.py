"""Where models are scored: names of devices, and that no tensor is made anywhere else."""

import copy

import numpy as np
import pytest
import torch

from audits.__main__ import main
from audits.exposures.prefix_tree import left_to_right_exposure
from audits.models import LoadedModel, device_of, load
from audits.planting.canaries import Canary, CanarySet
from audits.scores.decoding import beam, confidence_first, gibbs, span_logprobs
from audits.scores.filling import candidate_scores, sample_rows
from audits.scores.masked_loss import masked_losses
from audits.scores.scoring import greedy, greedy_in_alphabets, joint_logprobs
from audits.scores.sequence import RULES, SpanScorer
from dpmlm.artifacts import UserError

ROWS, PLACES = [tuple(range(10, 20)), (30, 31, 32, 33, 34)], [(3, 6), (1, 4)]
TREE = Canary("c00000", (401, 402), (5, 7), ((5, 6), (7, 8)), True, 1)

SCORES = {
    "joint in alphabets": lambda model, some: joint_logprobs(model, some),
    "greedy": lambda model, some: greedy(model, ROWS, PLACES),
    "greedy in alphabets": lambda model, some: greedy_in_alphabets(model, some),
    "masked losses": lambda model, some: masked_losses([model], ROWS, masks=2, seed=0),
    "beam": lambda model, some: beam(model, ROWS, PLACES),
    "confidence first": lambda model, some: confidence_first(model, ROWS, PLACES),
    "gibbs": lambda model, some: gibbs(model, ROWS, PLACES, seed=0, keys=[0, 1]),
    "sampling": lambda model, some: span_logprobs(model, ROWS, PLACES),
    "made-up rows": lambda model, some: sample_rows(model, rows=2, tokens=4, seed=0),
    "candidates": lambda model, some: candidate_scores(model, ROWS, PLACES, [[(9,)], [(8, 7)]])[1],
    "tree": lambda model, some: vars(left_to_right_exposure(model, TREE).exposure).values(),
} | {
    rule: lambda model, some, rule=rule: np.concatenate(SpanScorer(model).score(ROWS, PLACES, rule))
    for rule in RULES
}


@pytest.mark.parametrize("name", SCORES)
def test_every_tensor_is_made_on_the_models_device(
    name: str, leaky: LoadedModel, canaries: CanarySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = canaries.canaries[:3]
    expected = list(SCORES[name](leaky, some))
    # A tensor that names no device is now made where nothing can be read back, and NumPy's are
    # always the processor's.
    monkeypatch.setattr(torch, "from_numpy", None)
    with torch.device("meta"):
        assert torch.zeros(1).device.type == "meta"
        found = list(SCORES[name](leaky, some))
    assert np.array_equal(np.array(found), np.array(expected))


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gpu", "cpu:0", "cuda:", "cuda0", ""):
        with pytest.raises(UserError, match="cpu, cuda, cuda:N or auto"):
            device_of(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == device_of("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UserError, match="sees no CUDA device"):
            device_of(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("auto") == torch.device("cuda")
    assert device_of("cuda:1") == torch.device("cuda:1")
    for name in ("cuda:2", "cuda:x", "cuda:-1"):
        with pytest.raises(UserError, match="sees 2 CUDA devices"):
            device_of(name)


def test_a_model_goes_where_it_is_asked_to_go(untrained: LoadedModel) -> None:
    model = copy.deepcopy(untrained.model)
    assert LoadedModel.of(model, untrained.tokenizer, device="cpu").device.type == "cpu"
    with pytest.raises(UserError, match="a device is"):
        LoadedModel.of(model, untrained.tokenizer, device="tpu")


def test_a_cuda_device_that_is_not_there_is_refused(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        load(tmp_path, device="cuda")
    asked = [str(tmp_path), "--canaries", str(tmp_path), "--out", str(tmp_path / "e.json")]
    assert main([*asked, "--device", "cuda:1"]) == 2
    assert "--device cuda:1: torch sees no CUDA device" in capsys.readouterr().err
