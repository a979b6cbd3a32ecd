"""A run from corpus to release, and what it leaves to read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpmlm.config import RunConfig, load_config
from dpmlm.errors import UserError
from dpmlm.pipeline.accounts import open_ledger
from dpmlm.pipeline.canaries import canaries_stage
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.data import data_stages
from dpmlm.pipeline.evaluation import EVALUATION
from dpmlm.pipeline.evidence import AUDIT
from dpmlm.pipeline.logged import enter_finished
from dpmlm.pipeline.models import CONTROL, PLAN, TRAINING, planned, take_part
from dpmlm.pipeline.outcome import RELEASE, read_outcome
from dpmlm.pipeline.planted import PLANTED, plants
from dpmlm.pipeline.preflight import preflight, to_be_drawn
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.recall import RECALL
from dpmlm.pipeline.stages import Stage, execute
from dpmlm.pipeline.status import status_file, tell_refused, telling_status
from dpmlm.pipeline.summary import private_figures, public_figures, table
from dpmlm.pipeline.watching import listened, tell_account, tell_result, watched
from dpmlm.pipeline.workspace import BUNDLE, deciding_settings
from dpmlm.training import Interrupted, Ranks

DONE = "done"
"""What the first of several ranks calls when no training follows."""


def stages_of(config: RunConfig) -> tuple[Stage, ...]:
    """The pipeline, in the order of docs/architecture.md; recall where documents were marked."""
    *data, tokens = data_stages(config)
    recall = () if config.scrub.gold is None else (RECALL,)
    planted = (PLANTED,) if plants(config) else ()
    after = (canaries_stage(config), PLAN, TRAINING, CONTROL, EVALUATION, AUDIT, RELEASE)
    return (*planted, *data, *recall, tokens, *after)


@dataclass(frozen=True)
class RunResult:
    """What a run came to. Figures under `private` are computed from the private text."""

    name: str
    verdict: str | None
    """PASS, FAIL or INCONCLUSIVE; None if the run was taken to an earlier stage only."""
    workspace: Path
    bundle: Path | None
    """The signed bundle; consumers can open its model on PASS alone."""
    report: Path | None
    """The consumers' report, an HTML page; `dpmlm report` opens the auditor's."""
    evidence: dict[str, Any] | None
    """What the audits found, without what is private."""
    public: dict[str, Any]
    private: dict[str, Any] = field(repr=False)

    def to_json(self, *, private: bool = False) -> dict[str, Any]:
        """One JSON object; private figures only if they are asked for."""
        paths = {"workspace": self.workspace, "bundle": self.bundle, "report": self.report}
        return {
            "schema": "dpmlm.run/1",
            "name": self.name,
            "verdict": self.verdict,
            **{key: str(value) if value else None for key, value in paths.items()},
            "public": self.public,
            "private": self.private if private else None,
        }

    def summary(self, *, private: bool = False) -> str:
        """A table for a person."""
        return table(self.to_json(private=private))


def run(path_or_config: str | Path | RunConfig, **overrides: Any) -> RunResult:
    """Take a run file through the whole pipeline; repeat it to resume.

    `overrides` are fields of the run file with `__` for the dots, such as
    `privacy__epsilon=4`.

    Raises:
        UserError: bad input, a missing key, a refused budget.
    """
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    if isinstance(path_or_config, RunConfig):
        if dotted:
            raise UserError(
                f"overrides {', '.join(dotted)} beside a RunConfig",
                "overrides apply to a run file",
                "pass the path, or change the config with model_copy",
            )
        return execute_run(path_or_config)
    return execute_run(load_config(path_or_config, dotted))


def execute_run(config: RunConfig, *, resume: bool = True) -> RunResult:
    """The whole pipeline; without `resume` a workspace in use is refused."""
    return _execute(config, stages_of(config), resume)


def execute_until(config: RunConfig, stage: str, *, resume: bool = True) -> RunResult:
    """The pipeline up to and with one stage; the control is left out where nothing needs it."""
    every = stages_of(config)
    stages = every[: [one.name for one in every].index(stage) + 1]
    kept = [one for one in stages if one is not CONTROL or stage == "audit"]
    return _execute(config, kept, resume)


def _execute(config: RunConfig, stages: Sequence[Stage], resume: bool) -> RunResult:
    """Under torchrun the first rank does this, and the others come to its trainings."""
    ranks = Ranks.current()
    with ranks.together():
        if ranks.first:
            try:
                result = _lead(config, stages, resume)
            except UserError as error:
                if ranks.size > 1:
                    tell_refused(config.workspace, config.name, error)
                raise
            ranks.same(DONE)
            return result
        _follow(Run.load(config, Progress(quiet=True)), ranks)
        raise SystemExit(0)


def _follow(active: Run, ranks: Ranks) -> None:
    """Take part in each training that the first rank calls to, until it is done."""
    called: str = ranks.same(None)
    while called != DONE:
        try:
            take_part(active, called)
        except Interrupted:
            return  # the first rank stops too, and its status counts
        called = ranks.same(None)


def _lead(config: RunConfig, stages: Sequence[Stage], resume: bool) -> RunResult:
    active = Run.load(config, Progress())
    with active.workspace.locked():
        settings = deciding_settings(config)
        if active.workspace.check(config.name, settings) and not resume:
            raise UserError(
                f"workspace {config.workspace} with --no-resume",
                "this run has begun there, and its budget may be reserved",
                "drop --no-resume, or name another folder (--set workspace=...)",
            )
        if RELEASE in stages and active.finished(RELEASE.name) is None:
            from dpmlm.pipeline.grid.measured import refuse_looked_at  # a grid runs runs

            refuse_looked_at(active)
        only_looked_at = _only_looked_at(active, stages)
        if not only_looked_at:
            status_file(config.workspace).unlink(missing_ok=True)  # it tells of an earlier attempt
        # A private vocabulary is charged before the plan: it is drawn only where that has room.
        draws = data_stages(config)[-1] in stages and to_be_drawn(active) is not None
        preflight(active, to_plan=PLAN in stages or draws)
        if only_looked_at:
            execute(active, stages)
            return _result(active, finished=False)
        active.workspace.claim(config.name, settings)
        with (
            telling_status(config.workspace, config.name) as ending,
            watched(active) as active,
        ):
            execute(active, stages)
            if RELEASE in stages:
                enter_finished(active)
            result = _result(active, finished=RELEASE in stages)
            ending.verdict = result.verdict
            _tell_end(active, result, released=RELEASE in stages)
        return result


def _only_looked_at(active: Run, stages: Sequence[Stage]) -> bool:
    """Whether a released run is taken to an earlier stage: how it ended was told, and stays."""
    there = [*stages, RELEASE]
    return RELEASE not in stages and all(active.finished(stage.name) for stage in there)


def _tell_end(active: Run, result: RunResult, *, released: bool) -> None:
    covered = covers_verdict = False
    if released:
        plan, run_id = planned(active)
        covered = plan.private
        covers_verdict = covered and read_outcome(active)["covers_verdict"]
        if listened(active.config):  # a training that was done before told nothing of it this time
            ledger = open_ledger(active.config.ledger)
            # Not the step whose weights were best: that follows from what a training learnt.
            step = ledger.kept_steps(run_id)
            tell_account(active.sinks, plan, ledger, run_id, step=step, beginning=False)
    tell_result(active.sinks, result, covered=covered, covers_verdict=covers_verdict)


def _result(active: Run, *, finished: bool) -> RunResult:
    outcome = read_outcome(active) if finished else None
    bundle = active.workspace.stage(BUNDLE) if finished else None
    return RunResult(
        name=active.config.name,
        verdict=outcome["verdict"] if outcome else None,
        workspace=active.workspace.path,
        bundle=bundle,
        report=bundle / "report.html" if bundle else None,
        evidence=outcome["evidence"] if outcome else None,
        public=public_figures(active),
        private=private_figures(active, [stage.name for stage in stages_of(active.config)]),
    )
