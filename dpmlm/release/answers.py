"""What a model answers to fixed public probes: kept sealed beside its weights in a bundle.

A digest of weights and tokenizer says that the same numbers are there. Whether they make the same
model is another question: a field of the configuration, a tied weight or another version of a
library can change what it says. So a bundle is opened and asked before it takes its name, and again
wherever it is opened. The answers are those of the released model to public text, which is why they
lie where the model lies: whoever cannot open it learns nothing of them.
"""

import platform
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SealedFolder
from dpmlm.errors import IntegrityError

ANSWERS = "answers"
"""Sealed file of a released model."""
SCHEMA = "dpmlm.answers/1"
PROBES = (
    "The {mask} near the river was quiet again.",
    "She asked the {mask} whether it would rain on Monday.",
    "{mask} of the 24 patients were seen twice; one wasn't.",
    "Le caf\u00e9 de la gare \u00e9tait {mask}, NA\u00cfVE 3.14 \u6771\u4eac.",
)
"""Public text, with the place of the mask token."""
SAME = 1e-6
"""Two answers are one, up to the last bits of float32, as a share of the largest logit: what a
processor makes of the same numbers elsewhere in memory."""
NOTED = 1e-4
"""From here on a consumer is warned."""
REFUSED = 1e-2
"""From here on the model is refused: its first guesses may be others."""
_LONGEST = 24
_ENTRIES = 8
_STRIDE = 7919  # a prime: the row of entries that no text has to spell


@dataclass(frozen=True, eq=False)
class Answers:
    """Token ids of each probe, and the logits at each of its places."""

    ids: list[list[int]]
    logits: list[Any]
    """float32 [T, V] each."""

    def to_json(self) -> dict[str, Any]:
        """What is kept: at each place some logits from all over the vocabulary, and what all of
        them add up to (log-sum-exp)."""
        return {
            "schema": SCHEMA,
            "ids": self.ids,
            "figures": [_figures(logits).tolist() for logits in self.logits],
            "versions": {name: version(name) for name in ("torch", "transformers")},
            "machine": platform.machine(),
        }


def ask(model: Any, tokenizer: Any) -> Answers:
    """Without dropout, one probe at a time."""
    import torch

    rows = _rows(model, tokenizer)
    training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        with torch.no_grad():
            asked = [torch.tensor([row], device=device) for row in rows]
            logits = [
                model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0].float().cpu()
                for row in asked
            ]
    finally:
        model.train(training)
    return Answers(rows, logits)


def difference(one: Answers, other: Answers) -> float:
    """The largest difference of two logits, as a share of the largest logit; infinite where the
    probes are other tokens, or something is no number."""
    if one.ids != other.ids:
        return float("inf")
    return max(map(_apart, one.logits, other.logits))


def check_answers(path: Path, sealed: SealedFolder, model: Any, tokenizer: Any) -> None:
    """Ask an opened model again, and hold it to what was kept; bundles of before kept nothing.

    Warns from `NOTED` on. Raises IntegrityError from `REFUSED` on, and for probes that become
    other tokens.
    """
    if not sealed.has(ANSWERS):
        return
    import torch

    kept = sealed.read_json(ANSWERS)
    found = ask(model, tokenizer)
    then = ", ".join(f"{name} {number}" for name, number in kept["versions"].items())
    if kept["ids"] != found.ids:
        raise _otherwise(path, "its tokenizer makes other tokens of public probes", then)
    figures = [torch.tensor(one) for one in kept["figures"]]
    apart = max(map(_apart, figures, map(_figures, found.logits)))
    if not apart < REFUSED:
        said = f"its answers to public probes are {apart:.2g} of the largest logit off"
        raise _otherwise(path, said, then)
    if apart >= NOTED:
        warnings.warn(
            f"bundle {path}: its answers to public probes are {apart:.2g} of the largest logit off "
            f"those of the machine that released it ({then})",
            stacklevel=3,
        )


def keep_answers(sealed: SealedFolder, answers: Answers) -> None:
    """Beside the weights."""
    sealed.write_json(ANSWERS, answers.to_json())


def refuse_unlike(path: Path, trained: Answers, model: Any, tokenizer: Any) -> None:
    """Raise IntegrityError where a model that was opened again answers otherwise than `trained`."""
    apart = difference(trained, ask(model, tokenizer))
    if not apart <= SAME:
        raise IntegrityError(
            f"bundle {path}, the model in it",
            "opened as its consumers will, it answers public probes otherwise than the model that "
            f"was trained ({apart:.2g} of the largest logit off)",
            "nothing was published; look for what the model's configuration does not hold, "
            "and run the release again",
        )


def _rows(model: Any, tokenizer: Any) -> list[list[int]]:
    limit = min(_LONGEST, int(getattr(model.config, "max_position_embeddings", _LONGEST)) - 2)
    size = int(model.config.vocab_size)
    texts = [probe.format(mask=tokenizer.mask_token) for probe in PROBES]
    rows = [[int(i) for i in tokenizer(text)["input_ids"][:limit]] for text in texts]
    return [*rows, [_STRIDE * n % size for n in range(1, limit + 1)]]


def _figures(logits: Any) -> Any:
    import torch

    entries = torch.linspace(0, logits.shape[1] - 1, _ENTRIES).long()
    return torch.cat([logits[:, entries], logits.logsumexp(1, keepdim=True)], 1)


def _apart(one: Any, other: Any) -> float:
    if one.shape != other.shape:
        return float("inf")
    apart = float((one - other).abs().max() / one.abs().max().clamp_min(1e-6))
    return apart if apart == apart else float("inf")


def _otherwise(path: Path, said: str, then: str) -> IntegrityError:
    return IntegrityError(
        f"bundle {path}, the model in it",
        f"{said}; it was released under {then}",
        "open it with those versions, or ask who released it",
    )
