"""`dpmlm gate`: the verdict, rule by rule."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.main import get_command

from dpmlm.cli.audit import AuditCommand
from dpmlm.cli.options import (
    AsJson,
    RunFile,
    Settings,
    print_json,
    print_written,
    read_run,
)
from dpmlm.errors import UserError

if TYPE_CHECKING:
    from dpmlm.release import Decision, ReleasePolicy


class GateCommand(AuditCommand):
    """`dpmlm gate RUN.yaml ...`, unless the first word is `waive`."""

    @cached_property
    def commands(self) -> dict[str, Any]:
        """The verb below, by name."""
        below = typer.Typer()
        below.callback()(lambda: None)  # one verb alone would be taken for the whole
        below.command("waive")(waive)
        group: Any = get_command(below)
        return dict(group.commands)


def register(app: typer.Typer) -> None:
    app.command("gate", cls=GateCommand)(gate)


def gate(
    run_file: RunFile,
    rule: Annotated[
        str | None, typer.Argument(metavar="RULE", help="With --explain: this rule alone.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Try another policy; the run's own stays as it is.")
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="What each rule found, requires, rests on, and what would pass it."
        ),
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> int:
    """Say the verdict on a run whose audits are done; exit status 1 unless it is PASS.

    Example: dpmlm gate run.yaml --policy partner
    Example: dpmlm gate run.yaml --explain dp.epsilon
    """
    if rule is not None and not explain:
        raise UserError(rule, "one rule is named only with --explain", f"add --explain {rule}")
    config = read_run(run_file, settings)
    from dpmlm.pipeline.outcome import judge
    from dpmlm.pipeline.wording import decision_text
    from dpmlm.release import load_policy

    judged = judge(config, policy)
    if explain:
        _explain(load_policy(policy or config.release.policy), judged, rule, as_json)
    elif as_json:
        print_json("dpmlm.decision/1", judged.to_json())
    else:
        typer.echo(decision_text(judged))
    return 0 if judged.verdict == "PASS" else 1


def _explain(policy: "ReleasePolicy", judged: "Decision", rule: str | None, as_json: bool) -> None:
    from dpmlm.release.explanation import SCHEMA, explain

    told = explain(policy, judged, rule)
    if as_json:
        head = {"verdict": judged.verdict, "policy": judged.policy}
        head["policy_digest"] = judged.policy_digest
        print_json(SCHEMA, {**head, "rules": [one.to_json() for one in told]})
        return
    typer.echo(f"{judged.verdict} under {judged.policy}")
    for one in told:
        typer.echo(one.text())


def waive(
    run_file: RunFile,
    rule: Annotated[str, typer.Option(help="Id of a rule that was measured and does not hold.")],
    reason: Annotated[str, typer.Option(help="Why, for everybody who gets the bundle.")],
    expires: Annotated[str, typer.Option(help="Last day (UTC), within a year.", metavar="DATE")],
    signing_key: Annotated[
        str, typer.Option("--signing-key", help="Private key of one of release.approvers.")
    ],
    out: Annotated[Path, typer.Option(help="File to write; then named in release.waivers.")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Sign a waiver: this model is released although this rule does not hold, until a date.

    Example: dpmlm gate waive run.yaml --rule audit.exposure --expires 2027-01-31
        --reason "Reviewed." --signing-key approver/approver.key --out exposure.waiver.json
    """
    config = read_run(run_file, settings)
    if out.exists():
        raise UserError(f"--out {out}", "a waiver is never written over", "name another file")
    from dpmlm.artifacts import atomic_write, canonical_json
    from dpmlm.pipeline.waiving import waive

    waiver = waive(config, rule=rule, reason=reason, expires=expires, signing_key=signing_key)
    with atomic_write(out) as file:
        file.write(canonical_json(dict(waiver.envelope)) + b"\n")
    print_written([out], as_json=as_json, note=f": {rule}, until {waiver.expires.isoformat()}")
