"""`Trainer`: what it takes up again, what it refuses, and what it keeps of dropped rows."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import WORDS
from torch import nn

from dpmlm import PrivacyPlan, Trainer, make_plan
from dpmlm.artifacts import SealedFolder, create_keys, load_identity, load_model, load_secret_key
from dpmlm.config.masking import MaskingWeightsConfig
from dpmlm.config.training import BestConfig, ScaleConfig
from dpmlm.errors import UserError
from dpmlm.masking import MaskingSpec
from dpmlm.pipeline import trainer as trainer_module
from dpmlm.pipeline.secrets import RunSecrets
from dpmlm.pipeline.tombstones import tombstones_of
from dpmlm.privacy import Ledger
from dpmlm.release.bundle import RELEASE_MARK
from dpmlm.release.exports import RECORD
from dpmlm.tokens import train_tokenizer
from dpmlm.training import new_model

ROWS = [
    {"text": f"The {word} near the market was {word} again.", "person": f"p{number % 9}"}
    for number, word in enumerate(WORDS)
]
TOKENIZER = train_tokenizer([" ".join(WORDS)], vocab_size=300)
MODEL = new_model("tiny", TOKENIZER, 32, seed=0)


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return make_plan(
        epsilon=8, delta=1e-3, units=20, unit="person", expected_batch_size=4, steps=2,
        max_grad_norm=1.0, accountant="rdp",
    )  # fmt: skip


@pytest.fixture
def begin(tmp_path: Path, plan: PrivacyPlan):
    """Trainers in one folder, each from the same initial weights; keywords change one thing."""
    create_keys(tmp_path / "keys")

    def trainer(**changes: Any) -> Trainer:
        given = {
            "documents": ROWS,
            "workspace": tmp_path / "work",
            "window": 32,
            "stride": 32,
            **changes,
        }
        tokenizer = given.pop("tokenizer", TOKENIZER)
        model = given.pop("model", MODEL)
        return Trainer(copy.deepcopy(model), tokenizer, plan, keys=tmp_path / "keys", **given)

    return trainer


def tokens_of(folder: Path) -> SealedFolder:
    return SealedFolder.open(folder / "work/tokens", [load_identity(folder / "keys/trainer.key")])


def test_a_workspace_is_taken_up_as_the_same_run(tmp_path: Path, begin) -> None:
    first = begin().train()
    again = begin(documents=iter(ROWS)).train(resume=True)
    assert again.run_id == first.run_id
    assert str(again.statement) == str(first.statement)
    assert Ledger.open(tmp_path / "work/ledger.jsonl").run_ids == [first.run_id]


def test_how_a_training_ended_is_told_beside_its_workspace(tmp_path: Path, begin) -> None:
    begin().train()
    assert (tmp_path / "work.status.json").stat().st_mode & 0o777 == 0o600
    told = json.loads((tmp_path / "work.status.json").read_text())
    assert (told["run"], told["state"], told["status"], told["step"]) == ("trainer", "done", 0, 2)
    with pytest.raises(UserError, match="a training has begun there"):
        begin().train(resume=False)
    again = begin()
    again._ledger = None  # a bug, on the way
    with pytest.raises(AttributeError):
        again.train()
    told = json.loads((tmp_path / "work.status.json").read_text())
    assert (told["state"], told["status"]) == ("failed", 70)


def test_public_text_weights_masks_and_chooses_the_step(tmp_path: Path, begin) -> None:
    public = tmp_path / "public.jsonl"
    lines = [{"text": f"the {word} and the {word} of the market"} for word in WORDS]
    public.write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = {
        "best": BestConfig(corpus=public, every=1),
        "masking_weights": MaskingWeightsConfig(corpus=public),
    }
    trainer = begin(telemetry=tmp_path / "told.jsonl", **given)
    weights = trainer._recipe.table.weights
    ids = TOKENIZER.get_vocab()
    assert weights[ids["##e"]] < weights[ids["%"]]
    trainer.train()
    events = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    losses = [event["dp"]["public_loss"] for event in events]
    assert len(losses) == 2
    summary = Ledger.open(tmp_path / "work/ledger.jsonl").summary(trainer.run_id)
    assert summary["committed_steps"] == 1 + losses.index(min(losses))
    with pytest.raises(UserError, match=r"other settings|another run"):
        begin(best=given["best"])
    public.write_text(json.dumps({"text": "another public text"}) + "\n")
    with pytest.raises(UserError, match=r"other settings|another run"):
        begin(**given)


def test_gradients_are_scaled_by_public_text(tmp_path: Path, begin) -> None:
    public = tmp_path / "public.jsonl"
    lines = [{"text": f"the {word} and the {word} of the market"} for word in WORDS]
    public.write_text("".join(json.dumps(line) + "\n" for line in lines))
    scale = ScaleConfig(corpus=public, documents=16)
    trainer = begin(scale=scale)
    scales = trainer._recipe.scales
    assert scales is not None
    assert scales.keys() == {name for name, _ in MODEL.named_parameters()}
    trainer.train()
    assert str(trainer.statement) == str(begin(scale=scale).train(resume=True).statement)
    for other in (None, ScaleConfig(corpus=public, documents=17)):
        with pytest.raises(UserError, match=r"other settings|another run"):
            begin(scale=other)


def test_without_noise_public_text_chooses_nothing(tmp_path: Path, begin, monkeypatch) -> None:
    free = make_plan(
        epsilon=math.inf, delta=1e-3, units=20, unit="person", expected_batch_size=4, steps=2,
        max_grad_norm=1.0,
    )  # fmt: skip
    with pytest.raises(UserError, match="no noise covers the choice"):
        Trainer(
            copy.deepcopy(MODEL), TOKENIZER, free, documents=ROWS, workspace=tmp_path / "w",
            keys=tmp_path / "keys", best=BestConfig(corpus=tmp_path / "public.jsonl"),
        )  # fmt: skip


def test_two_workspaces_on_one_ledger_are_two_runs(tmp_path: Path, begin) -> None:
    ledger = tmp_path / "ledger.jsonl"
    Ledger.register(ledger, epsilon=30, delta=1e-2, corpus="notes")
    runs = [begin(workspace=tmp_path / name, ledger=ledger).train() for name in ("a", "b")]
    assert Ledger.open(ledger).run_ids == [run.run_id for run in runs]
    assert runs[0].run_id != runs[1].run_id


OTHER_DOCUMENTS = {
    "a text": [{**ROWS[0], "text": "Another."}, *ROWS[1:]],
    "a person": [{**ROWS[0], "person": "p8"}, *ROWS[1:]],
    "one fewer": ROWS[1:],
    "their order": ROWS[::-1],
}


@pytest.mark.parametrize("case", OTHER_DOCUMENTS)
def test_other_documents_are_refused(tmp_path: Path, begin, case: str) -> None:
    begin(documents=iter(ROWS))
    before = tokens_of(tmp_path).digest
    with pytest.raises(UserError, match="other documents"):
        begin(documents=OTHER_DOCUMENTS[case])
    assert tokens_of(tmp_path).digest == before


def test_edited_texts_under_the_same_ids_are_refused(begin) -> None:
    rows = [{**row, "key": number} for number, row in enumerate(ROWS)]
    begin(documents=rows, id="key")
    with pytest.raises(UserError, match="other documents"):
        begin(documents=[{**rows[0], "text": "Another."}, *rows[1:]], id="key")


def test_a_release_is_no_start(tmp_path: Path, begin) -> None:
    """Opened from its bundle, or exported from one: its epsilon would be missing from the claim."""
    opened = copy.deepcopy(MODEL)
    setattr(opened, RELEASE_MARK, "sha256:0123")
    with pytest.raises(UserError, match=r"release sha256:0123: .*; .*model\.continues"):
        begin(model=opened)
    MODEL.save_pretrained(tmp_path / "exported")
    (tmp_path / "exported" / RECORD).write_text("{}")
    exported = type(MODEL).from_pretrained(tmp_path / "exported")
    with pytest.raises(UserError, match=r"model .*exported: it is a release"):
        begin(model=exported)
    assert not (tmp_path / "work").exists()


def test_factors_beside_the_layers_are_saved_in_them(begin, tmp_path: Path) -> None:
    """A model in peft's clothes is saved as an ordinary one, and can go on being trained on."""
    peft = pytest.importorskip("peft", reason="peft is an extra")
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    wrapped = peft.get_peft_model(copy.deepcopy(MODEL), config)
    trainer = begin(model=wrapped).train()
    sealed = SealedFolder.open(trainer.save(), [load_identity(tmp_path / "keys/trainer.key")])
    model, _ = load_model(sealed)
    ids = torch.tensor([[5, 6, 7, 8]])
    nn.Module.eval(trainer.model)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, trainer.model(ids).logits)
    assert hasattr(trainer.model, "merge_and_unload")


@pytest.mark.parametrize("field", ["best", "scale", "masking_weights"])
def test_its_own_documents_are_no_public_text(
    tmp_path: Path, begin, monkeypatch, field: str
) -> None:
    for decides in ("scales_of", "public_loss", "_table"):
        monkeypatch.setattr(trainer_module, decides, lambda *_: pytest.fail("it decided"))
    section = {"best": BestConfig, "scale": ScaleConfig, "masking_weights": MaskingWeightsConfig}
    place = tmp_path / "public.jsonl"
    place.write_text("".join(json.dumps({"text": row["text"].upper()}) + "\n" for row in ROWS))
    with pytest.raises(UserError, match=rf"{field}\.corpus public\.jsonl: it holds documents"):
        begin(**{field: section[field](corpus=place)})
    assert not (tmp_path / "work").exists()


def test_another_tokenizer_is_refused(begin) -> None:
    begin()
    with pytest.raises(UserError, match="other tokenizer"):
        begin(tokenizer=train_tokenizer([" ".join(WORDS[:12])], vocab_size=300))


def test_other_initial_weights_are_refused(begin) -> None:
    begin()
    with pytest.raises(UserError, match="other model"):
        begin(model=new_model("tiny", TOKENIZER, 32, seed=1))


OTHER_SETTINGS = {
    "seed": 1,
    "window": 16,
    "stride": 8,
    "masking": MaskingSpec(ratio=0.3),
    "learning_rate": 1e-2,
    "warmup": 0.0,
    "weight_decay": 0.0,
}


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_another_setting_is_refused(begin, name: str) -> None:
    begin()
    with pytest.raises(UserError, match=rf"with {name}.* = .*\(now "):
        begin(**{name: OTHER_SETTINGS[name]})


def test_spelling_and_speed_are_no_other_setting(begin) -> None:
    assert begin().run_id == begin(stride=None, physical_batch_size=8).run_id


def test_rows_of_a_person_who_was_forgotten_on_the_ledger_are_left_out(tmp_path, begin) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger.register(path, epsilon=30, delta=1e-2, corpus="notes")
    begin(ledger=path)
    secrets = RunSecrets.derive(load_secret_key(tmp_path / "keys/pseudonym.key"), 0)
    stones = tombstones_of(ledger, secrets)
    stones.add("p3", "request 17")
    ledger.note_tombstones(stones.record["lines"], stones.record["head"])
    with pytest.raises(UserError, match="other documents"):
        begin(ledger=path)
    begin(ledger=path, workspace=tmp_path / "again")
    left = SealedFolder.open(
        tmp_path / "again/tokens", [load_identity(tmp_path / "keys/trainer.key")]
    ).manifest["documents"]
    assert left == sum(row["person"] != "p3" for row in ROWS) < len(ROWS)


def test_dropped_rows_are_kept_sealed_and_counted(tmp_path: Path, begin) -> None:
    begin(documents=[*ROWS, {"text": " ", "person": "Eve"}, {"text": None, "person": None}])
    folder = tokens_of(tmp_path)
    kept = folder.read_json("dropped")
    assert [(each["person"], each["row"], each["reason"]) for each in kept] == [
        ("Eve", len(ROWS) + 1, "empty"),
        (None, len(ROWS) + 2, "empty"),
    ]
    assert folder.manifest["dropped"] == {"empty": 2}
    assert folder.manifest["documents"] == len(ROWS)
