"""`Trainer`: private training of one's own model on one's own documents, from Python."""

import copy
import hmac
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal, cast

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from dpmlm.artifacts import (
    SealedFolder,
    load_identity,
    load_secret_key,
    load_signing_key,
    model_digest,
    save_model,
)
from dpmlm.canonical import canonical_json
from dpmlm.config import claim_fields
from dpmlm.config.masking import MaskingWeightsConfig
from dpmlm.config.training import BestConfig, ScaleConfig
from dpmlm.corpus import Document, Dropped, Unit, read_documents, unit_of
from dpmlm.errors import UserError
from dpmlm.masking import MaskingSpec, TokenTable
from dpmlm.pipeline.base import refuse_release
from dpmlm.pipeline.data import names_finder, public_digest
from dpmlm.pipeline.declared import refuse_shared
from dpmlm.pipeline.frequencies import weights_of
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.public_loss import public_loss
from dpmlm.pipeline.public_scales import scales_of
from dpmlm.pipeline.secrets import RunSecrets
from dpmlm.pipeline.status import telling_status
from dpmlm.pipeline.tombstones import tombstones_of
from dpmlm.pipeline.workspace import Workspace
from dpmlm.privacy import Ledger, PrivacyPlan, Statement, statement
from dpmlm.release.bundle import RELEASE_MARK
from dpmlm.telemetry import EventFile
from dpmlm.tokens import TokenStore, tokenizer_digest
from dpmlm.training import (
    Checkpoints,
    LedgerCharges,
    Ranks,
    Recipe,
    in_bytes,
    merged,
    refuse_inexact,
    train,
    units_of,
)


class Trainer:
    """Trains `model` in place under `plan`; everything it writes is sealed.

    Under torchrun every rank makes the same Trainer and calls the same methods.

    Documents are trained on as they are: scrubbing, deduplication, audits and the gate belong to
    `dpmlm.run`.

    Args:
        model: a masked language model of transformers; docs/models.md lists the types.
        tokenizer: its tokenizer, a fast one.
        plan: from `dpmlm.make_plan`; fixed from the first step on.
        documents: dicts with a `text` field, and a `person` field if the plan's unit is person;
            any iterable or a Hugging Face `Dataset`. Rows without text are kept apart, sealed.
        workspace: folder for tokens, checkpoints and the model; one training each. It is taken up
            with the documents, the tokenizer, the initial weights and the settings that it was
            begun with.
        keys: folder that `dpmlm keys new` wrote.
        ledger: a registered ledger; None registers one in the workspace, with a cap of twice the
            plan's budget, and without a cap for a plan that promises nothing. Documents of persons
            who were forgotten there (`dpmlm runs forget`) are left out.
        window: tokens a row, special tokens included.
        precision: of the forward and backward pass; norms, sums and noise are float32 always.
        activation_checkpointing: run layers again in the backward pass: less memory, more than
            twice the time.
        memory_gib: for a physical batch; where given, as many rows are taken as fit.
        stride: windows start at multiples of this many tokens; None takes the window.
        windows_per_draw: rows a drawn unit contributes, clipped as one.
        schedule: of the learning rate after `warmup`: linear and cosine fall over all other steps,
            constant stays, wsd falls over the last share `decay` of the steps only.
        average: release the exponential moving average of each step's weights, of which a step
            keeps this share; None releases the last step's.
        best: keep the weights of the step with the least loss on public text, or end early by it,
            as `training.best` of a run file does; None keeps the last step's.
        scale: multiply gradients before they are clipped by what public text says of their size,
            as `training.scale` of a run file does.
        masking_weights: public text whose token counts say how readily each token is masked, as
            `masking.weights` of a run file does.
        telemetry: a file in clear for the figures of each step that are public or covered by the
            claim; written after each checkpoint.
        seed: everything but noise and sampling secrets.

    Raises:
        UserError: a missing key, a model that cannot be done exactly or is a release, documents
            without the fields or among what is declared public, more units than the plan declares,
            a workspace of another training.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        plan: PrivacyPlan,
        *,
        documents: Iterable[Mapping[str, Any]],
        workspace: str | Path,
        keys: str | Path,
        ledger: str | Path | None = None,
        text: str = "text",
        id: str | None = None,
        person: str = "person",
        window: int = 128,
        stride: int | None = None,
        windows_per_draw: int = 1,
        masking: MaskingSpec | None = None,
        learning_rate: float = 1e-3,
        warmup: float = 0.1,
        schedule: Literal["linear", "cosine", "constant", "wsd"] = "linear",
        decay: float = 0.2,
        average: float | None = None,
        best: BestConfig | None = None,
        scale: ScaleConfig | None = None,
        masking_weights: MaskingWeightsConfig | None = None,
        weight_decay: float = 0.01,
        precision: Literal["float32", "bfloat16"] = "float32",
        physical_batch_size: int = 64,
        activation_checkpointing: bool = False,
        memory_gib: float | None = None,
        checkpoint_minutes: float = 30.0,
        telemetry: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.tokenizer, self.plan = model, tokenizer, plan
        self._workspace = Workspace(Path(workspace))
        self._keys = Path(keys)
        self._identity = load_identity(self._keys / "trainer.key")
        secrets = RunSecrets.derive(load_secret_key(self._keys / "pseudonym.key"), seed)
        refuse_inexact(model, len(tokenizer))
        _refuse_released(model, tokenizer)
        if best is not None and not plan.private:
            raise UserError("best", "no noise covers the choice under such a plan", "leave it out")
        sections = {"best": best, "scale": scale, "masking_weights": masking_weights}
        self._public_text = {name: one for name, one in sections.items() if one is not None}
        who = person if plan.unit == "person" else None
        if ledger is not None:
            stones = tombstones_of(Ledger.open(ledger), secrets)
            documents = stones.without(documents, person)
        found = list(read_documents(documents, text=text, id=id, person=who))
        private = (row.text for row in found if isinstance(row, Document))
        if plan.private:  # before anything is decided by that text
            refuse_shared(self._public_text, private)
        self._recipe = Recipe(
            table=_table(tokenizer, masking_weights),
            masking=masking or MaskingSpec(strategy="whole_word", ratio=0.15),
            window=window,
            stride=stride or window,
            mask_seed=secrets.mask_seed,
            learning_rate=learning_rate,
            warmup=warmup,
            schedule=schedule,
            decay=decay,
            average=average,
            weight_decay=weight_decay,
            windows_per_draw=windows_per_draw,
            precision=precision,
            physical_batch_size=physical_batch_size,
            activation_checkpointing=activation_checkpointing,
            memory_limit=in_bytes(memory_gib),
            checkpoint_minutes=checkpoint_minutes,
        )
        self._public = public_loss(best, tokenizer, self._recipe)
        scales = scales_of(scale, tokenizer, self._recipe, model)
        self._recipe = replace(self._recipe, scales=scales)
        self._ranks = Ranks.current()
        with self._ranks.in_turn(), self._workspace.locked():
            self._workspace.claim("trainer", self._settings(seed))
            self._ledger = self._open_ledger(Path(ledger) if ledger else None)
            tokens = self._open_tokens()
            self._run_id = self._join(tokens, found, secrets.corpus_key)
            store = self._tokens(tokens, found, secrets.unit_key)
        self._units = units_of(store, "train", plan.unit, secrets.mask_seed, window)
        if len(self._units.names) > plan.units:
            raise UserError(
                f"plan.units {plan.units}",
                "the documents hold more units than that",
                "declare a larger upper bound in make_plan",
            )
        self._telemetry = [EventFile(Path(telemetry))] if telemetry else []
        self._trained = False

    @property
    def run_id(self) -> str:
        """The ledger's name for this training: drawn once for a workspace."""
        return self._run_id

    def train(self, *, resume: bool = True) -> "Trainer":
        """Train to the plan's last step, from the last checkpoint if there is one.

        With `resume=False` a checkpoint that is there is an error, as the plan's budget is
        reserved for one training.
        """
        folder = self._workspace.stage("checkpoints")
        if not resume and folder.exists():
            raise UserError(
                f"workspace {self._workspace.path}",
                "a training has begun there and its budget is reserved",
                "call train(resume=True), or use another workspace",
            )
        with self._leading(), self._telling(), Progress().bar("training") as report:
            train(
                self.model,
                self._units,
                self.plan,
                self._recipe,
                charges=LedgerCharges(self._ledger, self.run_id, self.plan),
                checkpoints=Checkpoints(
                    folder, self._identity, [self._identity.recipient], self.plan.digest, keep=2
                ),
                report=report,
                telemetry=self._telemetry,
                public=self._public,
            )
        self._trained = True
        return self

    @property
    def statement(self) -> Statement:
        """The claim about the trained model; printing it prints the sentence."""
        if not self._trained:
            raise UserError("Trainer.statement", "nothing is trained yet", "call train() first")
        return statement(
            self.plan,
            what="the trained weights",
            summary=self._ledger.summary(self.run_id),
        )

    def save(self, folder: str | Path | None = None) -> Path:
        """Seal model and tokenizer to the trainer's key; returns the folder."""
        if not self._trained:
            raise UserError("Trainer.save", "nothing is trained yet", "call train() first")
        path = Path(folder) if folder else self._workspace.stage("model")
        if self._ranks.first:
            sealed = SealedFolder.create(path, [self._identity.recipient], role="model")
            wrapped = hasattr(self.model, "merge_and_unload")  # by peft: factors beside layers
            whole = merged(copy.deepcopy(self.model)) if wrapped else self.model
            save_model(sealed, whole, self.tokenizer)
            sealed.finish({"plan": self.plan.digest})
        return self._ranks.same(path)

    def _leading(self) -> AbstractContextManager[None]:
        """Keeps other trainings out; of several ranks the first one does that for all."""
        return self._workspace.locked() if self._ranks.first else nullcontext()

    def _telling(self) -> AbstractContextManager[object]:
        """How the training ended, in a file beside the workspace, as a run tells it."""
        if not self._ranks.first:
            return nullcontext()
        return telling_status(self._workspace.path, "trainer")

    def _open_ledger(self, path: Path | None) -> Ledger:
        if path is not None:
            ledger, signing = Ledger.open(path), self._keys / "sign.key"
            return ledger.sign_with(load_signing_key(signing)) if ledger.key_id else ledger
        path = self._workspace.path / "ledger.jsonl"
        if not path.exists():
            plan = self.plan
            cap = 2 * plan.epsilon if plan.private else math.inf
            Ledger.register(path, epsilon=cap, delta=2 * plan.delta, corpus="trainer")
        return Ledger.open(path)

    def _settings(self, seed: int) -> dict[str, Any]:
        """What decides the weights and is nobody's secret."""
        recipe = self._recipe
        return {
            "plan": self.plan.digest,
            "seed": seed,
            "window": recipe.window,
            "stride": recipe.stride,
            "windows_per_draw": recipe.windows_per_draw,
            "masking": asdict(recipe.masking),
            "learning_rate": float(recipe.learning_rate),
            "warmup": float(recipe.warmup),
            "schedule": recipe.schedule,
            "decay": float(recipe.decay),
            "average": None if recipe.average is None else float(recipe.average),
            "weight_decay": float(recipe.weight_decay),
            "precision": recipe.precision,
            **{
                name: claim_fields(public) | {"source": public_digest(public.corpus)}
                for name, public in self._public_text.items()
            },
        }

    def _open_tokens(self) -> SealedFolder:
        return SealedFolder.open_or_create(
            self._workspace.stage("tokens"),
            [self._identity],
            [self._identity.recipient],
            role="tokens",
        )

    def _join(self, folder: SealedFolder, found: Sequence[Document | Dropped], key: bytes) -> str:
        """The run id of the workspace, after what it was begun with proved to be this."""
        given = {
            "documents": _keyed_digest(found, key),
            "tokenizer": tokenizer_digest(self.tokenizer),
            "model": model_digest(self.model),
        }
        if not folder.has("training"):
            folder.write_json("training", {"run": f"trainer-{token_hex(6)}", **given})
        kept = folder.read_json("training")
        for name, value in given.items():
            if kept.get(name) != value:
                raise UserError(
                    f"workspace {self._workspace.path}: other {name}",
                    "a training goes on with the documents, the tokenizer and the initial weights "
                    "that it began with",
                    "give those again, or use another workspace",
                )
        return cast(str, kept["run"])

    def _tokens(
        self, folder: SealedFolder, found: Sequence[Document | Dropped], key: bytes
    ) -> TokenStore:
        """Tokenised documents, sealed in the workspace; written once."""
        if folder.manifest is None:
            owner: Unit = "person" if self.plan.unit == "person" else "document"
            dropped = [item for item in found if isinstance(item, Dropped)]
            folder.write_json("dropped", [item.as_dict() for item in dropped])
            rows = (
                {
                    "id": item.id,
                    "text": item.text,
                    "unit": unit_of(item, owner, key),
                    "split": "train",
                }
                for item in found
                if isinstance(item, Document)
            )
            names = names_finder(self._recipe.masking.strategy, "default")
            facts = TokenStore.build(folder, rows, self.tokenizer, names=names)
            folder.finish({**facts, "dropped": Counter(item.reason for item in dropped)})
        return TokenStore.open(folder)


def _refuse_released(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """What came of somebody's private text has an epsilon of its own, which no claim of a Trainer
    would add."""
    if hasattr(model, RELEASE_MARK):
        raise UserError(
            f"model of release {getattr(model, RELEASE_MARK)}",
            "a Trainer's claim would leave out what the release promises",
            "train it further by a run file with model.continues",
        )
    for field, of in (("model", model), ("tokenizer", tokenizer)):
        if of.name_or_path:
            refuse_release(field, of.name_or_path)


def _table(tokenizer: PreTrainedTokenizerFast, weights: MaskingWeightsConfig | None) -> TokenTable:
    table = TokenTable.of(tokenizer)
    if weights is None:
        return table
    return replace(table, weights=weights_of(weights, tokenizer, table.vocab_size))


def _keyed_digest(found: Iterable[Document | Dropped], key: bytes) -> str:
    """Hex HMAC-SHA256 of the rows in their order: it notices others and confirms no guess."""
    whole = hmac.new(key, b"dpmlm/trainer/documents\0", "sha256")
    for item in found:
        row = item.document if isinstance(item, Dropped) else item
        whole.update(canonical_json([row.id, row.person, row.text]) + b"\n")
    return whole.hexdigest()
