"""Which runs a person's text reached: `dpmlm runs affected`.

Documents are followed by their ids from stage to stage. They are found by the pseudonym that the
corpus stage records, so that the pseudonym key of the run file is needed, and the key that opens
the workspace. Everything found is private; no name, no text and no id is among it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dpmlm.artifacts import Identity, SealedFolder, load_identity, load_secret_key
from dpmlm.config import RunConfig
from dpmlm.corpus import pseudonym_of
from dpmlm.errors import UserError
from dpmlm.pipeline.accounts import open_ledger
from dpmlm.pipeline.runs.entry import STAGES, read_bundle
from dpmlm.pipeline.runs.handed_out import Outside, handed_out
from dpmlm.pipeline.runs.trace import Search, Trace
from dpmlm.pipeline.secrets import RunSecrets, key_check
from dpmlm.pipeline.tombstones import NOT_REACHED, tombstones_of
from dpmlm.pipeline.workspace import BUNDLE, Workspace, deciding_settings
from dpmlm.privacy.ancestor import Ancestor
from dpmlm.release.registry.local import Registry

NOT_FOUND = (
    "text of theirs in documents of others, but for duplicates that deduplication removed or cut",
    "documents that name nobody: how many there are is said as `unnamed`",
    "other runs and copies: only the workspaces of these run files were looked into",
    "workspaces of `dpmlm.Trainer`, and the corpora that it was given",
    "what `dpmlm scrub` wrote, and plain models that `dpmlm release export` wrote",
    "what went to MLflow, models among it",
)
"""What this does not see, a line each."""


@dataclass(frozen=True)
class Reached:
    """One run: an answer, and what it rests on."""

    run: str
    workspace: str
    answer: str
    """affected, not affected or unknown."""
    why: list[str]
    """Sentences."""
    trace: Trace | None = None
    training: dict[str, Any] | None = None
    """`begun`, `finished`, `charged_steps` (null where no ledger says it), `checkpoints`."""
    bundle: dict[str, Any] | None = None
    """As `entry.read_bundle`."""
    releases: list[dict[str, Any]] = field(default_factory=list)
    """What log and registry know of releases of the run and others of its name; `handed_out`."""
    run_id: str | None = None
    """In the ledger; None before it has a plan."""
    continues: Ancestor | None = None
    """The release whose weights it starts from; None for none, and before it has a plan."""
    read: bool = True
    """Whether a corpus was read there, as far as the workspace at hand tells."""
    failed: bool = False
    """Whether it could not be looked into."""

    def short(self) -> dict[str, Any]:
        """The run, the sentences, and the releases."""
        return {
            "run": self.run,
            "workspace": self.workspace,
            "why": self.why,
            "releases": self.releases,
        }

    def to_json(self) -> dict[str, Any]:
        return {
            **self.short(),
            "private": self.trace.to_json() if self.trace else None,
            "training": self.training,
            "bundle": self.bundle,
        }


@dataclass(frozen=True)
class Answer:
    """Of all run files; private as a whole, since it tells of one person."""

    runs: Sequence[Reached]
    gold: Sequence[str] = ()
    """Gold files of the run files: marked documents, in clear."""

    @property
    def failed(self) -> bool:
        """Whether one of them could not be looked into."""
        return any(run.failed for run in self.runs)

    @property
    def not_found(self) -> list[str]:
        """What was not looked for, a line each."""
        return [*(f"gold file {path}: documents IN CLEAR" for path in self.gold), *NOT_FOUND]

    def to_json(self) -> dict[str, Any]:
        def of(answer: str) -> list[Reached]:
            return [run for run in self.runs if run.answer == answer]

        return {
            "label": "private",
            "affected": [run.to_json() for run in of("affected")],
            "not_affected": [run.short() for run in of("not affected")],
            "unknown": [run.short() for run in of("unknown")],
            "not_found": self.not_found,
            "not_reached_by_forgetting": list(NOT_REACHED),
        }

    def text(self) -> str:
        lines = []
        for run in self.runs:
            lines.append(f"{run.run} ({run.workspace}): {run.answer}")
            lines += [f"  {sentence}" for sentence in run.why]
            if run.answer == "affected" and run.trace:
                lines += [
                    f"  {stage:<8} {', '.join(names)}" for stage, names in run.trace.files.items()
                ]
        return "\n".join([*lines, "not looked for:", *(f"  - {line}" for line in self.not_found)])


def affected(
    configs: Sequence[RunConfig],
    person: str,
    *,
    identity: Path | None = None,
    registry: Path | None = None,
) -> Answer:
    """What each run holds of a person, named as `person.read_person` gives them.

    `identity` opens the workspaces instead of the key of the run file; in `registry` releases are
    looked for beside those of the run file's log. A run that cannot be looked into (a missing key,
    another pseudonym key than the workspace's, a workspace that is broken or another run's) is
    unknown, and the answer `failed`. Raises UserError for what is no registry.
    """
    if registry is not None:
        Registry(registry).versions()  # refused before any run is looked into
    runs = []
    for config in configs:
        try:
            found = _reached(config, person, identity)
            found = replace(found, continues=_continued(config, identity))
        except (UserError, OSError) as error:
            known = config.name, str(config.workspace), "unknown"
            found = Reached(*known, [f"it cannot be looked into: {error}"], failed=True)
        runs.append(_and_outside(found, handed_out(config, registry)))
    runs = _through_releases(runs)
    gold = {str(config.scrub.gold) for config in configs if config.scrub.gold is not None}
    return Answer(runs, sorted(gold))


def _through_releases(runs: Sequence[Reached]) -> list[Reached]:
    """With what came from releases that runs continue: text that an earlier training read is in the
    weights of a later one, whatever corpus that one has."""
    known: dict[str | None, Reached] = {one.run_id: one for one in runs if one.run_id}
    return [_through(run, known, ()) for run in runs]


def _through(run: Reached, known: Mapping[str | None, Reached], passed: tuple[str, ...]) -> Reached:
    former = run.continues
    if former is None or former.run_id in passed:
        return run
    told = f"it was trained further from release {former.release} of run {former.run_id}"
    found = known.get(former.run_id)
    if found is None:
        unknown = "unknown" if run.answer == "not affected" else run.answer
        said = f"{told}, whose run file was not named: their text may be in that one"
        return replace(run, answer=unknown, why=[*run.why, said])
    earlier = _through(found, known, (*passed, former.run_id))
    if earlier.answer == "not affected":
        return replace(run, why=[*run.why, f"{told}, which is not affected"])
    order = ("not affected", "unknown", "affected")
    answer = max(run.answer, earlier.answer, key=order.index)
    return replace(run, answer=answer, why=[*run.why, f"{told}, which is {earlier.answer}"])


def _and_outside(found: Reached, outside: Outside) -> Reached:
    """With what is known outside the workspace. Where the workspace was removed, that is all there
    is: a run that was charged or released read its corpus, and nobody can say whose text it was."""
    if not found.read and (outside.others(None) or outside.problems):
        gone = "there is no corpus to look into: its workspace was removed, or is elsewhere"
        found = replace(found, answer="unknown", why=[gone])
    why = [*found.why, *outside.sentences(found.run_id)]
    return replace(found, why=why, releases=outside.releases)


def _reached(config: RunConfig, person: str, identity: Path | None) -> Reached:
    opener = load_identity(identity or config.keys.identity)
    secrets = RunSecrets.derive(load_secret_key(config.keys.scrub), config.seed)
    workspace = Workspace(config.workspace)
    known = config.name, str(workspace.path)
    if not workspace.check(config.name, deciding_settings(config)):
        return Reached(
            *known, "not affected", ["nothing was read yet: there is no workspace"], read=False
        )
    if not SealedFolder.is_at(workspace.stage("corpus")):
        if any(SealedFolder.is_at(workspace.stage(stage)) for stage in STAGES):
            left = "the corpus stage is gone, and stages made from it are there"
            return Reached(*known, "unknown", [left], run_id=_run_id(workspace, opener))
        return Reached(
            *known, "not affected", ["nothing was read yet: no corpus stage"], read=False
        )
    if config.corpus.person is None:
        return Reached(*known, "unknown", ["the corpus names no persons (corpus.person is null)"])
    corpus = SealedFolder.open(workspace.stage("corpus"), [opener], role="corpus")
    if not corpus.has("persons"):
        return Reached(*known, "unknown", ["unknown: made before persons were recorded"])
    if corpus.read_json("persons")["persons"] != key_check(secrets.unit_key):
        raise UserError(
            f"keys.scrub {config.keys.scrub}",
            f"the persons of {workspace.path} were recorded under another pseudonym key",
            "give the key that the run was made with",
        )
    pseudonym = pseudonym_of(person, secrets.unit_key)
    trace = Search(config, workspace, opener).trace(corpus, pseudonym, secrets.unit_key)
    if not trace.documents and not trace.blank:
        answer, said = _not_there(config, secrets, corpus, pseudonym, trace)
        return Reached(*known, answer, said, trace, run_id=_run_id(workspace, opener))
    run_id = _run_id(workspace, opener)
    training = _training(config, workspace, run_id)
    bundle, problem = _bundle(workspace)
    why = [*_sentences(trace, training, bundle), *problem]
    return Reached(*known, "affected", why, trace, training, bundle, run_id=run_id)


def _bundle(workspace: Workspace) -> tuple[dict[str, Any] | None, list[str]]:
    """Its public facts, and what is wrong with it."""
    try:
        return read_bundle(workspace.stage(BUNDLE)), []
    except UserError as error:
        return None, [f"there is a bundle, and {error.given}: {error.rule}"]


def _not_there(
    config: RunConfig, secrets: RunSecrets, corpus: SealedFolder, pseudonym: str, trace: Trace
) -> tuple[str, list[str]]:
    more = [f"{trace.unnamed} documents name nobody, and may be theirs"] if trace.unnamed else []
    if corpus.manifest is None:
        return "unknown", ["the corpus is not read to its end", *more]
    if _kept_out(config, secrets, corpus.manifest, pseudonym):
        more.insert(0, "a tombstone of theirs was in force when it was read")
    return "not affected", ["no document of its corpus names them", *more]


def _kept_out(
    config: RunConfig, secrets: RunSecrets, manifest: dict[str, Any], pseudonym: str
) -> bool:
    """Whether the corpus was read with a tombstone of theirs, as far as a ledger is at hand."""
    lines = manifest["tombstones"]["lines"]
    if not lines or not config.ledger.path.is_file():
        return False
    return tombstones_of(open_ledger(config.ledger), secrets).hold(pseudonym, until=lines)


def _training(config: RunConfig, workspace: Workspace, run_id: str | None) -> dict[str, Any]:
    """How far the training came, as folders and ledger say it."""
    folder = workspace.stage("training")
    checkpoints = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
    return {
        "begun": folder.is_dir(),
        "finished": (folder / "manifest.sealed").is_file(),
        "charged_steps": _charged(config, run_id),
        "checkpoints": checkpoints,
    }


def _charged(config: RunConfig, run_id: str | None) -> int | None:
    """Steps charged in all attempts: each drew its sample; None where no ledger says it."""
    if run_id is None:
        return 0
    if not config.ledger.path.is_file():
        return None
    ledger = open_ledger(config.ledger)
    return ledger.charged_steps(run_id) if run_id in ledger.run_ids else 0


def _run_id(workspace: Workspace, identity: Identity) -> str | None:
    """Of the run in its ledger; None before it has a plan."""
    path = workspace.stage("plan")
    if not (path / "manifest.sealed").is_file():
        return None
    return str(SealedFolder.open(path, [identity]).read_json("run")["id"])


def _continued(config: RunConfig, identity: Path | None) -> Ancestor | None:
    """The release that the run's plan binds."""
    path = Workspace(config.workspace).stage("plan")
    if not (path / "manifest.sealed").is_file():
        return None
    folder = SealedFolder.open(path, [load_identity(identity or config.keys.identity)])
    return Ancestor.of(folder.read_json("plan")["bindings"]) if folder.has("plan") else None


def _sentences(trace: Trace, training: dict[str, Any], bundle: dict[str, Any] | None) -> list[str]:
    """What was found, a sentence each, for a person."""
    said = [f"{trace.documents} documents of theirs, and {trace.blank} rows without text"]
    if trace.unnamed:
        said.append(f"{trace.unnamed} documents name nobody, and may be theirs too")
    if trace.removed:
        said.append(f"{trace.removed} removed as duplicates")
    if trace.kept_by_others:
        said.append(
            f"their text went on in {trace.kept_by_others} documents of others: the kept copy of a "
            "duplicate, or of a passage; a tombstone does not reach these"
        )
    if trace.stands_for_others:
        said.append(
            f"{trace.stands_for_others} removed documents of others say the same, and stay once "
            "theirs are gone"
        )
    if trace.emptied:
        said.append(f"{trace.emptied} of which nothing was left")
    if trace.unfinished:
        said.append(f"stage {trace.unfinished} is not finished: further on nothing is known")
        return said
    train = trace.tokens["train"], trace.copies["train"]
    held = trace.tokens["validation"], trace.copies["validation"]
    said.append(
        f"for training: {train[0]} documents, and {train[1]} of others that keep their text; "
        f"held out: {held[0]} and {held[1]}"
    )
    drawn = _of_training(any(train), any(held), training)
    return [*said, *drawn, *([] if bundle is None else _of_bundle(any(train), bundle))]


def _of_training(trained: bool, held_out: bool, training: dict[str, Any]) -> list[str]:
    steps, kept = training["charged_steps"], training["checkpoints"]
    if not training["begun"]:
        return ["no training has begun"]
    if not trained:
        more = ": it was held out, and figures were measured on it" if held_out else ""
        return [f"no training step could draw their text{more}"]
    count = "an unknown number of" if steps is None else str(steps)
    said = [
        f"training reached: their text may have been drawn in each of {count} steps that were "
        "charged; the sample is secret and not kept, so nobody can say in which"
    ]
    if kept:
        said.append(f"checkpoints hold what these steps made of it: {', '.join(kept)}")
    return said


def _of_bundle(trained: bool, bundle: dict[str, Any]) -> list[str]:
    how = "trained on it" if trained else "not trained on it"
    who = (
        f"its consumers ({bundle['consumers']}) can open it"
        if bundle["consumers"]
        else ("no consumer can open it")
    )
    return [
        f"a bundle with verdict {bundle['verdict']}, {how}; {who}; release {bundle['release']}, "
        f"model {bundle['model_digest']}",
        f"its claim bounds what it can tell of one {bundle['unit']}: epsilon {bundle['epsilon']}, "
        f"delta {bundle['delta']}{_several(bundle['unit'])}",
    ]


def _several(unit: str) -> str:
    return "" if unit == "person" else "; of several of one person together it promises less"
