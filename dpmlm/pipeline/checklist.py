"""`dpmlm plan --checklist`: what has to be in place before a budget is spent, each item tried."""

import copy
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.progress import Progress

PLANTED = {
    "e-mail": "m.okafor@example.org",
    "phone": "(212) 555-0147",
    "card": "4111 1111 1111 1111",
    "name": "Margaret Okafor",
}
"""By what they are; invented. Each has to be gone from a sentence that holds it."""
SENTENCES = (
    "Please write to {e-mail} before Monday.",
    "You can call me at {phone} in the evening.",
    "The bill was paid with credit card {card}.",
    "Yesterday {name} asked her doctor about the tablets.",
)
PUBLIC_TEXTS = 500
"""Most texts that are taken through the tokenizer and back."""


@dataclass(frozen=True)
class Item:
    """One line of the list."""

    name: str
    """What is to be in place."""
    ok: bool
    """Whether it is."""
    says: str
    """What was found, or what to do."""


@dataclass(frozen=True)
class Checklist:
    """All of them; nothing of the corpus is read."""

    items: tuple[Item, ...]

    @property
    def ok(self) -> bool:
        """Whether every item is in place."""
        return all(item.ok for item in self.items)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "items": [asdict(item) for item in self.items]}

    def text(self) -> str:
        lines = [f"{'ok ' if i.ok else 'NO '} {i.name:24}{i.says}" for i in self.items]
        missing = sum(not item.ok for item in self.items)
        return "\n".join([*lines, "", f"{missing} to mend" if missing else "all in place"])


def checklist(config: RunConfig) -> Checklist:
    """Try every item; seconds to a minute. A UserError on the way is that item's finding."""
    progress = Progress()
    items = []
    for name, check in CHECKS.items():
        progress.say(f"checking: {name}")
        try:
            items.append(Item(name, *check(config)))
        except UserError as error:
            items.append(Item(name, False, str(error)))
    return Checklist(tuple(items))


def _tokenizer(config: RunConfig) -> tuple[bool, str]:
    from dpmlm.tokens import load_tokenizer, tokenizer_digest

    tokens = config.tokens
    if tokens.private is not None:
        return True, "made in the run from private text and charged; sealed in the bundle"
    if tokens.train is not None:
        there = tokens.train.corpus.exists()
        says = f"made in the run from {tokens.train.corpus.name}; sealed in the bundle"
        return there, says if there else f"there is no {tokens.train.corpus}: mend tokens.train"
    if tokens.vocabulary is None:
        return True, f"that of the release {config.model.continues}, as it was signed"
    named = str(tokens.vocabulary)
    found = tokenizer_digest(load_tokenizer(named))
    if not Path(named).exists():
        return False, f"{named} is a hub name and may change: save it to a folder and name that"
    return True, found[:19]


def _text_round_trip(config: RunConfig) -> tuple[bool, str]:
    """decode(encode(text)) of the vocabulary's own entries, and of the control's public text."""
    from dpmlm.pipeline.data import named_vocabulary, public_tokenizer, sample_public
    from dpmlm.pipeline.roundtrip import DAMAGED, refuse_damaging, round_trip

    if config.tokens.private is not None:
        return True, "made in the run from private text, and tried there"
    if config.model.continues is not None:
        return True, "that of the release that is continued, tried before it was signed"
    tokenizer = public_tokenizer(config)
    own = refuse_damaging(tokenizer, f"the tokenizer of {named_vocabulary(config)}")
    control = config.audit.control
    if control is None or not control.corpus.exists():
        return True, f"of {own.texts} entries {own}"
    sample = sample_public(control.corpus, control.text, PUBLIC_TEXTS)
    found = round_trip(tokenizer, (document.text for document in sample))
    says = f"of {found.texts} public texts {found}"
    if found.lost_share > DAMAGED or found.unknown_share > config.tokens.unknown_tokens:
        return False, f"{says}: use a tokenizer that was made for such text"
    return True, says


def _validation(config: RunConfig) -> tuple[bool, str]:
    share = config.split.validation
    if not share:
        return False, "no unit is held out: set split.validation, for example 0.05"
    if not config.keys.scrub.is_file():
        return False, f"the split is keyed by {config.keys.scrub}, which is not there: dpmlm init"
    return True, f"{share:.3g} of the units by keyed hash: the same ones in every run"


def _round_trip(config: RunConfig) -> tuple[bool, str]:
    """A checkpoint of the run's own model after one update, sealed, read back and compared."""
    import torch

    from dpmlm.artifacts import new_identity
    from dpmlm.pipeline.doctor import entries_of, model_of
    from dpmlm.training.checkpoint import Checkpoints, Progress
    from dpmlm.training.optimizer import adamw

    model = model_of(config, config.tokens.window, entries_of("run file", config, None))
    blank = copy.deepcopy(model)
    optimizer, blank_optimizer = (adamw(m, 1e-3, 0.0) for m in (model, blank))
    for param in model.parameters():
        param.grad = torch.randn_like(param) if param.requires_grad else None
    optimizer.step()
    identity = new_identity()
    with tempfile.TemporaryDirectory() as folder:
        files = Checkpoints(Path(folder), identity, [identity.recipient], "checklist")
        files.save(model, optimizer, Progress(1, 1, []))
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        files.load(blank, blank_optimizer)
    same = all(torch.equal(a, b) for a, b in zip(model.parameters(), blank.parameters()))
    states = (o.state_dict()["state"] for o in (optimizer, blank_optimizer))
    same = same and _equal(*states)
    return same, f"{size / 1e6:.0f} MB sealed and read back" + ("" if same else ", and not equal")


def _equal(one: Any, other: Any) -> bool:
    import torch

    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def _identifiers(config: RunConfig) -> tuple[bool, str]:
    """Invented identifiers in plain sentences, through the run's own scrub policy."""
    from dpmlm.scrub import Scrubber, load_policy

    with Scrubber(load_policy(config.scrub.policy), pseudonym_key=secrets.token_bytes(32)) as scrub:
        texts = [scrub.scrub(s.format_map(PLANTED)).text for s in SENTENCES]
    left = [kind for kind, value in PLANTED.items() if any(value in text for text in texts)]
    if left:
        return False, f"policy {config.scrub.policy} leaves {', '.join(left)}: choose a wider one"
    return True, f"policy {config.scrub.policy} removes {', '.join(PLANTED)} from plain sentences"


def _baseline(config: RunConfig) -> tuple[bool, str]:
    control = config.audit.control
    if control is None or not control.corpus.exists():
        lacking = "none is named" if control is None else f"there is no {control.corpus}"
        return False, f"{lacking}: set audit.control.corpus to public text, or power is not shown"
    return True, f"a control without noise on {control.corpus.name}, and the loss before training"


CHECKS: dict[str, Callable[[RunConfig], tuple[bool, str]]] = {
    "tokenizer versioned": _tokenizer,
    "tokenizer round trip": _text_round_trip,
    "validation frozen": _validation,
    "checkpoint round trip": _round_trip,
    "identifiers found": _identifiers,
    "baseline recorded": _baseline,
}
"""By the name of the item, in the order of the list."""
