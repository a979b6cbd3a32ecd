"""How much of what had to be found was found: a run's scrub policy held against its gold file.

The gold file is private text, and so is every figure computed from it: the stage's folder holds
rates and counts, sealed, and none of its words.
"""

import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SealedFolder
from dpmlm.corpus import read_shards
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.stages import Stage
from dpmlm.scrub import RecallReport, Scrubber, load_policy, measure_recall
from dpmlm.scrub.gold import annotation_of, read_gold
from dpmlm.scrub.recall import Rate
from dpmlm.scrub.scrubber import cores

FIELD = "scrub.gold"
"""The field of the run file that names the gold file."""


def _recall(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    policy = load_policy(run.config.scrub.policy)
    rows, mark = read_gold(_gold(run), field=FIELD), _mark(run)
    with Scrubber(policy, pseudonym_key=run.secrets.pseudonym_key) as scrubber:
        processes = run.config.scrub.processes or cores()
        measured = measure_recall(scrubber, rows, processes=processes, progress=report)
    elsewhere = {row["text"] for row in rows}
    for document in read_shards(run.folder("corpus")):
        elsewhere.discard(document["text"])
    figures = {
        **figures_of(measured, rows),
        "policy_digest": policy.digest,
        "elsewhere": len(elsewhere),
    }
    folder.write_json("mark", mark)
    folder.write_json("recall", figures)
    return {}


def figures_of(measured: RecallReport, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the gate can look at; a share of nothing is null, and so is never passed on."""
    kinds = measured.by_identifier
    return {
        "policy": measured.policy,
        "documents": measured.documents,
        "annotation": annotation_of(rows),
        "all": _share(measured.recall),
        "direct": _share(kinds.get("DIRECT")),
        "quasi": _share(kinds.get("QUASI")),
        "by_type": {name: _share(rate) for name, rate in sorted(measured.by_type.items())},
        "precision": measured.to_json()["precision"] if measured.precision.total else None,
    }


def _share(rate: Rate | None) -> dict[str, Any] | None:
    return rate.to_json() if rate is not None and rate.total else None


def recall_evidence(run: Run) -> dict[str, Any]:
    """The figures of the stage, or why there are none that say anything about this run.

    Raises UserError for a gold file that is not the one that was measured.
    """
    if run.config.scrub.gold is None:
        return _without(f"the run file names no {FIELD}")
    folder, scrubbed = run.folder(RECALL.name), run.folder("scrub")
    measured, made = folder.manifest or {}, scrubbed.manifest or {}
    if measured["key"] != RECALL.origin(run).key:
        raise UserError(
            f"{FIELD} {run.config.scrub.gold}",
            "it has changed since it was measured",
            "`dpmlm run` measures it again",
        )
    if {measured["code"]} != set(made["codes"]):
        return _without("it was measured with other code than the text was scrubbed with")
    figures: dict[str, Any] = folder.read_json("recall")
    return figures


def _without(reason: str) -> dict[str, Any]:
    return {"applicable": False, "reason": reason}


def check_gold(run: Run) -> None:
    """Refuse a gold file that cannot be measured, or that lies in clear in the workspace."""
    if run.config.scrub.gold is None:
        return
    gold = _gold(run)
    if run.workspace.path.resolve() in gold.resolve().parents:
        raise UserError(
            f"{FIELD} {gold}", "a workspace holds nothing in clear", "put the file elsewhere"
        )
    if gold.exists() or run.finished(RECALL.name) is None:
        read_gold(gold, field=FIELD)


def _gold(run: Run) -> Path:
    gold = run.config.scrub.gold
    assert gold is not None, "the stage is left out where no gold is named"
    return gold


def _mark(run: Run) -> str:
    """Digest of the gold file; of one that was deleted after its measurement, as it was then.

    Keyed, so that nobody can confirm a guess at the file from it.
    """
    gold, done = _gold(run), run.finished(RECALL.name)
    if done is not None and not gold.exists():
        return str(done.read_json("mark"))
    if not gold.is_file():
        raise UserError(f"gold file {gold}", "there is no such file", f"check {FIELD}")
    content = b"dpmlm/gold\0" + gold.read_bytes()
    return hmac.digest(run.secrets.corpus_key, content, "sha256").hex()


def _settings(run: Run) -> dict[str, Any]:
    return {"policy": load_policy(run.config.scrub.policy).digest, "gold": _mark(run)}


RECALL = Stage("recall", ("corpus", "scrub"), _settings, _recall, renewable=True)
"""Left out of runs that name no gold; measured again when the gold file changes."""
