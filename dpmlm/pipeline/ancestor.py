"""The release that a run continues (`model.continues`): checked and opened before anything else.

Its weights are an output on somebody's text, so that it is no public model: it has to verify, to
have passed its gate, and to promise the same unit of the same kind of corpus. What it promises is
bound to the plan (`privacy/ancestor.py`) and charged to the ledger with it.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpmlm.artifacts import Identity
from dpmlm.config import RunConfig
from dpmlm.errors import IntegrityError, UserError
from dpmlm.pipeline.accounts import open_ledger
from dpmlm.privacy.ancestor import Ancestor
from dpmlm.privacy.rules import SEQUENCES
from dpmlm.release import load_released
from dpmlm.release.continued import promised
from dpmlm.release.exports import RECORD
from dpmlm.release.facts import number
from dpmlm.release.inventory import MANIFEST
from dpmlm.release.registry.history import PASS
from dpmlm.release.registry.passing import Release, read_release
from dpmlm.release.waivers import refuse_expired
from dpmlm.tokens import load_tokenizer, tokenizer_digest


def read_continued(config: RunConfig) -> Release:
    """The bundle that the run file continues, verified and fit to be continued by it.

    Raises UserError for one that does not verify or did not pass, that promises nothing, or that
    is about another unit, another kind of corpus or other rows.
    """
    given, path = _given(config), Path(str(config.model.continues))
    _refuse_export(given, path)
    now = datetime.now(UTC)
    try:
        release = read_release(path, Path(str(config.model.trusted_keys)), now)
    except IntegrityError as error:
        raise UserError(
            given, f"it does not verify: {error.given}: {error.rule}", error.next_step
        ) from error
    if release.verdict != PASS:
        raise UserError(
            given,
            f"its verdict is {release.verdict}, and nothing is built on what did not pass its gate",
            f"read {path / 'report.html'} to see which rules did not pass",
        )
    refuse_expired(path, release.contents.decision.waivers, now)
    _refuse_other_promise(config, given, release)
    return release


def ancestor(release: Release) -> Ancestor:
    """What the run's plan binds of a release."""
    return promised(release.checked.manifest, release.contents)


def ancestor_bindings(config: RunConfig) -> dict[str, str | int | float | None]:
    """For the plan; empty where the run continues no release."""
    if config.model.continues is None:
        return {}
    return ancestor(read_continued(config)).bindings()


def open_continued(config: RunConfig, identity: Identity) -> tuple[Any, Any]:
    """Its model and its tokenizer, decrypted in memory with the run's own identity.

    Raises UserError where the run's identity is no recipient of it, and where another bundle lies
    there than the one that was checked.
    """
    given = _given(config)
    release = read_continued(config)
    if identity.key_id not in release.contents.recipients:
        raise UserError(
            f"{given} with key {identity.key_id}",
            "the run's own identity (keys.identity) is none of those who can open it",
            f"ask whoever keeps it: `dpmlm keys rotate {config.model.continues} --add` the .pub "
            "file of that key",
        )
    model, tokenizer = load_released(
        release.folder, identity=identity, trusted_keys=Path(str(config.model.trusted_keys))
    )
    longest = getattr(model.config, "max_position_embeddings", config.tokens.window)
    if config.tokens.window > longest:
        raise UserError(
            f"tokens.window {config.tokens.window}",
            f"the release that is continued has {longest} positions",
            "make the window smaller",
        )
    named = config.tokens.vocabulary
    if named is not None and tokenizer_digest(load_tokenizer(named)) != tokenizer_digest(tokenizer):
        raise UserError(
            f"tokens.vocabulary {named}",
            "it is not the vocabulary of the release that is continued: its embeddings would stand "
            "for other words",
            "leave tokens.vocabulary out",
        )
    return model, tokenizer


def continued_vocabulary(release: Release) -> str:
    """Digest of its tokenizer, as signed."""
    return str(release.checked.manifest["tokenizer_digest"])


def refuse_other_ancestor(config: RunConfig, bindings: Mapping[str, Any] | None) -> None:
    """Raises UserError where the plan's bindings name another release than the one there."""
    if config.model.continues is None or bindings is None:
        return
    if Ancestor.of(bindings) != ancestor(read_continued(config)):
        raise UserError(
            _given(config),
            "it is another release than the one that the run's plan was made with",
            "put that one back, or use another workspace (--set workspace=...)",
        )


def refuse_unfit_ledger(config: RunConfig) -> None:
    """Look at a release that was charged to the run's own ledger.

    Raises UserError where the line that it names as the ledger's head is not in it, as then nobody
    knows what else is missing, and where persons were forgotten or files put into quarantine since:
    its weights were trained on the corpus as it was with them.
    """
    release = read_continued(config)
    ledger, told = open_ledger(config.ledger), release.contents.ledger
    reserved = {e["run_id"]: e for e in ledger.entries if e["kind"] == "reserve"}
    own = reserved.get(release.run_id)
    if own is None or own["plan"]["digest"] != release.contents.plan.digest:
        return  # of another ledger: it is charged to this one
    if any(e["kind"] == "tombstones" and e["number"] > own["number"] for e in ledger.entries):
        raise UserError(
            f"{_given(config)} on ledger {config.ledger.path}",
            "persons were forgotten or files put into quarantine since it was trained, and what it "
            "learnt of them would go on",
            "train from a public model, or continue a release that was trained since",
        )
    head = told.get("head")
    heads = {(entry["number"], entry["hash"]) for entry in ledger.entries}
    if not isinstance(head, Mapping) or (head.get("number"), head.get("hash")) not in heads:
        raise UserError(
            f"{_given(config)} on ledger {config.ledger.path}",
            "its run is charged there, and the line that it names as the ledger's head is not: the "
            "ledger was cut or rewritten",
            "restore the ledger from a copy",
        )


def _given(config: RunConfig) -> str:
    return f"model.continues {config.model.continues}"


def _refuse_export(given: str, path: Path) -> None:
    if (path / RECORD).is_file() and not (path / MANIFEST).is_file():
        raise UserError(
            given,
            f"it is an export in clear ({RECORD} says so), and nothing vouches for what it holds",
            "name the bundle that it was exported from",
        )


def _refuse_other_promise(config: RunConfig, given: str, release: Release) -> None:
    plan, claim = release.contents.plan, release.contents.statement
    epsilon = number(claim.get("epsilon"))
    if not plan.private or epsilon is None or not math.isfinite(epsilon):
        raise UserError(
            f"{given} of epsilon {claim.get('epsilon')}",
            "it promises nothing, so that no promise about what is made of it could hold",
            "continue a release with a finite epsilon",
        )
    unit = config.privacy.unit
    ours = unit, SEQUENCES if unit == "sequence" else config.dedup.scope
    if (plan.unit, plan.scope) != ours:
        raise UserError(
            f"{given} about one {plan.unit} of the {plan.scope}",
            f"this run is about one {ours[0]} of the {ours[1]}, and epsilons of different units or "
            "corpora do not add up",
            "set privacy.unit and dedup as that run had them",
        )
    if claim["details"]["adjacency"] != f"add or remove one {unit}":
        raise UserError(
            f"{given} with adjacency {claim['details']['adjacency']!r:.60}",
            "this run is about adding or removing one unit",
            "continue a release with that adjacency",
        )
    window = plan.bindings.get("window")
    if unit == "sequence" and window != config.tokens.window:
        raise UserError(
            f"tokens.window {config.tokens.window}",
            f"the release protects sequences of {window} tokens, and others are other units",
            f"set tokens.window to {window}",
        )
