"""Canaries of the pipeline arm: documents that go the way of all others.

They are drawn before the corpus is read and stand behind it, each a unit of its own and always in
training, so that scrubbing and deduplication may change or remove them. Secrets and coins come
from the operating system. No gating test looks at them, and counts of the corpus leave them out.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from audits.planting.canary import CanaryGroup
from audits.planting.families import GroupRequest, draw_texts
from audits.planting.insertion import documents, survival
from audits.planting.labels import Labels
from audits.planting.secret_random import SecretRandom
from dpmlm.artifacts import SealedFolder
from dpmlm.config import RunConfig, claim_fields
from dpmlm.corpus import Document, unit_of
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run, data_order
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.stages import Stage
from dpmlm.tokens import TokenStore

NAMES = "canary/"
"""What the ids of planted documents begin with."""
_GROUPS = "groups"


def requests_of(config: RunConfig) -> tuple[GroupRequest, ...]:
    """The exploratory groups that the run file asks for, in its order."""
    return tuple(
        GroupRequest(group.family, group.count, group.copies, group.arm)
        for group in config.audit.groups
    )


def plants(config: RunConfig) -> bool:
    """Whether documents are planted in the corpus."""
    return any(group.arm == "pipeline" for group in config.audit.groups)


def _planted(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    draw = SecretRandom(os.urandom(32))
    nonce = draw.getrandbits(256).to_bytes(32, "big").hex()
    groups = {
        str(number): draw_texts(request, number, draw)
        for number, request in enumerate(requests_of(run.config), start=1)
        if request.arm == "pipeline"
    }
    told = {number: group.to_json() for number, group in groups.items()}
    folder.write_json(_GROUPS, {"nonce": nonce, "groups": told})
    ids = [canary.id for group in groups.values() for canary in group.canaries]
    Labels.draw(ids, draw).write(folder)
    return {"counts": {"groups": len(groups)}}


def planted_groups(run: Run) -> dict[int, CanaryGroup]:
    """The groups of the pipeline arm by their number, as texts that no tokenizer has split."""
    if not plants(run.config):
        return {}
    found = run.folder("planted").read_json(_GROUPS)["groups"]
    return {int(number): CanaryGroup.from_json(value) for number, value in found.items()}


def planted_labels(run: Run) -> Labels | None:
    """The coins of the pipeline arm; None where nothing is planted."""
    return Labels.read(run.folder("planted")) if plants(run.config) else None


def planted_documents(run: Run) -> Iterator[dict[str, Any]]:
    """Stage documents of the included canaries, one a copy; none where nothing is planted."""
    groups, labels = planted_groups(run), planted_labels(run)
    if labels is None:
        return
    nonce = run.folder("planted").read_json(_GROUPS)["nonce"]
    for name, _, text in documents(tuple(groups.values()), labels, nonce):
        document = Document(id=name, text=text, person=None, source="", row=0)
        unit = unit_of(document, run.config.privacy.owner, run.secrets.unit_key)
        yield {
            "id": name,
            "text": text,
            "unit": unit,
            "split": "train",
            "source": document.source,
            "row": document.row,
        }


def refuse_taken(document: Document) -> None:
    """Raise UserError for an id that a planted document could have; call where some are planted."""
    if document.id.startswith(NAMES):
        raise UserError(
            f"an id that begins with {NAMES!r}, in {document.source}, row {document.row}",
            "documents of the canary groups with arm pipeline have such ids",
            "rename it, or leave these groups out",
        )


def planted_ids(run: Run, stage: str) -> dict[str, str]:
    """Id of each planted document as `stage` reads it, and the name it was planted under.

    Deduplication names texts anew where the corpus becomes a set of texts.
    """
    names = [document["id"] for document in planted_documents(run)]
    if not names:
        return {}
    order = data_order(run.config)
    if order.index("dedup") >= order.index(stage):
        return dict(zip(names, names, strict=True))
    renamed = run.folder("dedup").read_json("renamed")
    return {renamed.get(name, name): name for name in names}


def people_of(run: Run, store: TokenStore, split: str) -> list[str]:
    """Units of a split but those of planted documents, which are nobody's text."""
    units, planted = store.units(split), planted_ids(run, "tokens")
    if not planted:
        return list(units)
    return [
        unit
        for unit in units
        if not all(store.id(number) in planted for number in store.documents_of(unit))
    ]


def survivors(run: Run, groups: Iterable[CanaryGroup], labels: Labels) -> list[dict[str, Any]]:
    """How many planted canaries reached the training tokens whole, in part, or not; private.

    `groups` have the tokens of the run's tokenizer. See `audits.planting.insertion.survival`.
    """
    store = TokenStore.open(run.folder("tokens"))
    ids = planted_ids(run, "tokens")
    reached = {
        ids[name]: store.tokens(place).tolist()
        for place in range(len(store))
        if (name := store.id(place)) in ids
    }
    planted = [group for group in groups if group.arm == "pipeline"]
    return survival(planted, labels, reached)


def _settings(run: Run) -> dict[str, Any]:
    return {"groups": [claim_fields(g) for g in run.config.audit.groups if g.arm == "pipeline"]}


PLANTED = Stage("planted", (), _settings, _planted)
