"""`Trainer`: private training of one's own model on one's own documents, from Python."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from dpmlm.artifacts import SealedFolder, load_identity, load_secret_key, save_model
from dpmlm.clipping import check_model
from dpmlm.corpus import Document, Unit, read_documents, unit_of
from dpmlm.errors import UserError
from dpmlm.masking import MaskingSpec, TokenTable
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.secrets import RunSecrets
from dpmlm.pipeline.workspace import Workspace
from dpmlm.privacy import Ledger, PrivacyPlan, Statement, statement
from dpmlm.tokens import TokenStore
from dpmlm.training import Checkpoints, CorpusUnits, LedgerCharges, Recipe, train


class Trainer:
    """Trains `model` in place under `plan`; everything it writes is sealed.

    Documents are trained on as they are: scrubbing, deduplication, audits and the gate belong to
    `dpmlm.run`.

    Args:
        model: a BERT, RoBERTa or DistilBERT masked language model.
        tokenizer: its tokenizer, a fast one.
        plan: from `dpmlm.make_plan`; fixed from the first step on.
        documents: dicts with a `text` field, and a `person` field if the plan's unit is person;
            any iterable or a Hugging Face `Dataset`.
        workspace: folder for tokens, checkpoints and the model; one training each.
        keys: folder that `dpmlm keys new` wrote.
        ledger: a registered ledger; None registers one in the workspace, with a cap of twice the
            plan's budget.
        window: tokens a row, special tokens included.
        stride: windows start at multiples of this many tokens; None takes the window.
        seed: everything but noise and sampling secrets.

    Raises:
        UserError: a missing key, a model that cannot be done exactly, documents without the
            fields, more units than the plan declares.
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
        masking: MaskingSpec | None = None,
        learning_rate: float = 1e-3,
        warmup: float = 0.1,
        weight_decay: float = 0.01,
        physical_batch_size: int = 64,
        checkpoint_minutes: float = 30.0,
        seed: int = 0,
    ) -> None:
        self.model, self.tokenizer, self.plan = model, tokenizer, plan
        self._workspace = Workspace(Path(workspace))
        self._identity = load_identity(Path(keys) / "trainer.key")
        secrets = RunSecrets.derive(load_secret_key(Path(keys) / "pseudonym.key"), seed)
        self._refuse_inexact()
        self._workspace.claim("trainer", {"plan": plan.digest, "seed": seed, "window": window})
        self._ledger = self._open_ledger(Path(ledger) if ledger else None)
        fields = {"text": text, "id": id, "person": person if plan.unit == "person" else None}
        self._units = CorpusUnits(
            self._tokens(documents, fields, secrets.unit_key), "train", secrets.mask_seed
        )
        if len(self._units.names) > plan.units:
            raise UserError(
                f"plan.units {plan.units}",
                "the documents hold more units than that",
                "declare a larger upper bound in make_plan",
            )
        self._recipe = Recipe(
            table=TokenTable.of(tokenizer),
            masking=masking or MaskingSpec(strategy="whole_word", ratio=0.15),
            window=window,
            stride=stride or window,
            mask_seed=secrets.mask_seed,
            learning_rate=learning_rate,
            warmup=warmup,
            weight_decay=weight_decay,
            physical_batch_size=physical_batch_size,
            checkpoint_minutes=checkpoint_minutes,
        )
        self._trained = False

    @property
    def run_id(self) -> str:
        """The ledger's name for this training."""
        return f"trainer-{self.plan.digest[-12:]}"

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
        with self._workspace.locked(), Progress().bar("training") as report:
            train(
                self.model,
                self._units,
                self.plan,
                self._recipe,
                charges=LedgerCharges(self._ledger, self.run_id, self.plan),
                checkpoints=Checkpoints(
                    folder, self._identity, [self._identity.recipient], self.plan.digest
                ),
                report=report,
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
        sealed = SealedFolder.create(path, [self._identity.recipient], role="model")
        save_model(sealed, self.model, self.tokenizer)
        sealed.finish({"plan": self.plan.digest})
        return path

    def _refuse_inexact(self) -> None:
        checked = check_model(self.model, vocab_size=len(self.tokenizer))
        if not checked.exact:
            raise UserError(
                f"model {type(self.model).__name__}",
                f"its per-example gradients cannot be had exactly: {checked.reason}",
                "use a BERT, RoBERTa or DistilBERT masked language model",
            )

    def _open_ledger(self, path: Path | None) -> Ledger:
        if path is not None:
            return Ledger.open(path)
        path = self._workspace.path / "ledger.jsonl"
        if not path.exists():
            plan = self.plan
            Ledger.register(path, epsilon=2 * plan.epsilon, delta=2 * plan.delta, corpus="trainer")
        return Ledger.open(path)

    def _tokens(
        self, documents: Iterable[Mapping[str, Any]], fields: Mapping[str, Any], key: bytes
    ) -> TokenStore:
        """Tokenised documents, sealed in the workspace; written once."""
        folder = SealedFolder.open_or_create(
            self._workspace.stage("tokens"),
            [self._identity],
            [self._identity.recipient],
            role="tokens",
        )
        if folder.manifest is None:
            rows = (
                {
                    "id": item.id,
                    "text": item.text,
                    "unit": unit_of(item, cast(Unit, self.plan.unit), key),
                    "split": "train",
                }
                for item in read_documents(documents, **fields)
                if isinstance(item, Document)
            )
            folder.finish(TokenStore.build(folder, rows, self.tokenizer))
        return TokenStore.open(folder)
