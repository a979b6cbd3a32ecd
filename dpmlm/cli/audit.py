"""`dpmlm audit`: attack a model; `dpmlm audit canaries`: what it takes beforehand."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from dpmlm.cli import canaries as canary_verbs
from dpmlm.cli.options import AsJson, IdentityFile, print_json
from dpmlm.errors import UserError


class AuditCommand(TyperCommand):
    """`dpmlm audit MODEL_DIR ...`, unless the first word is one of the verbs below it.

    A folder of such a name is audited as ./NAME.
    """

    @cached_property
    def commands(self) -> dict[str, Any]:
        """The verbs below, by name."""
        below = typer.Typer()
        below.callback()(lambda: None)  # one verb alone would be taken for the whole
        canary_verbs.register(below)
        below.command("recheck")(recheck)
        below.command("selftest")(selftest)
        group: Any = get_command(below)
        return dict(group.commands)

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """That of the verb which the first word names, else the audit's own."""
        if args and args[0] in self.commands:
            name, *below = args
            verb = self.commands[name]
            return verb.make_context(f"{info_name} {name}", below, parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)


def register(app: typer.Typer) -> None:
    app.command("audit", cls=AuditCommand)(audit)


def audit(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL_DIR", help="Masked LM to attack.")
    ] = None,
    canaries: Annotated[
        Path | None, typer.Option(help="Canary file or sealed canary folder.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Who was included; looked for beside the canaries.")
    ] = None,
    commitment: Annotated[
        Path | None, typer.Option(help="What was published of the canaries before training.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the evidence goes.")] = None,
    transcript: Annotated[
        Path | None,
        typer.Option(help="Where all scores go before labels are opened; beside --out."),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="plan.json with the claim to test; looked for beside the model."),
    ] = None,
    control: Annotated[Path | None, typer.Option(help="Model trained without privacy.")] = None,
    untrained: Annotated[Path | None, typer.Option(help="Model before training.")] = None,
    reference: Annotated[Path | None, typer.Option(help="A public masked LM.")] = None,
    identity: IdentityFile = None,
    beta: Annotated[float, typer.Option(help="False-alarm probability of all tests.")] = 0.05,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:N, or auto: CUDA where there is one.")
    ] = "auto",
    count: Annotated[
        int, typer.Option(min=2, max=10**6, help="Canaries to foresee, without MODEL_DIR.")
    ] = 1000,
    as_json: AsJson = False,
) -> int:
    """Attack any Hugging Face masked LM that was trained with known canaries.

    Says FAIL, INCONCLUSIVE (exit status 1 both) or PASS; without a control never PASS. With --plan
    alone it says before training what so many canaries could find.

    Example: dpmlm audit model --canaries canaries.json --plan plan.json --out evidence.json

    A run's own audit is repeated from its sealed folders: MODEL_DIR work/training, --canaries
    work/canaries, --plan work/bundle/plan.json, --control work/control, --untrained
    work/audit/untrained and --identity keys/trainer.key.

    dpmlm audit canaries plan, insert and reveal draw canaries for a trainer of your own; dpmlm
    audit recheck computes evidence again; dpmlm audit selftest trains models with planted faults
    and shows what catches them.
    """
    if plan is not None and (model, canaries, out) == (None, None, None):
        _refuse_idle(
            control=control,
            untrained=untrained,
            reference=reference,
            identity=identity,
            labels=labels,
            commitment=commitment,
            transcript=transcript,
        )
        return _foreseen(plan, count, beta, as_json)
    if model is None or canaries is None or out is None:
        given = {"MODEL_DIR": model, "--canaries": canaries, "--out": out}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise UserError(
            f"dpmlm audit without {missing}",
            "it attacks a model on known canaries and writes evidence",
            "see `dpmlm audit --help`",
        )
    from dpmlm.pipeline.attack import attack

    done = attack(
        model,
        canaries=canaries,
        labels=labels,
        commitment=commitment,
        plan=plan,
        out=out,
        transcript=transcript,
        control=control,
        untrained=untrained,
        reference=reference,
        identity=identity,
        beta=beta,
        device=device,
    )
    if as_json:
        print_json("dpmlm.evidence/1", {**done.evidence, "verdict": done.verdict.word})
    else:
        typer.echo(done.text())
    return 0 if done.verdict.word == "PASS" else 1


def _refuse_idle(**options: Path | None) -> None:
    """Raise UserError for what a look at a plan alone would not use."""
    given = ", ".join(f"--{name}" for name, value in options.items() if value is not None)
    if given:
        raise UserError(
            f"dpmlm audit --plan with {given} and no MODEL_DIR",
            "a plan alone is only foreseen: no model is looked at",
            "name MODEL_DIR, --canaries and --out to audit a model, or leave the others out",
        )


def _foreseen(plan: Path, count: int, beta: float, as_json: bool) -> int:
    from dpmlm.pipeline.attack import foresee

    found = foresee(plan, canaries=count, beta=beta)
    if as_json:
        print_json("dpmlm.power/1", found.to_json())
    else:
        typer.echo(found.text())
    return 0


def recheck(
    evidence: Annotated[Path, typer.Argument(metavar="EVIDENCE", help="What an audit wrote.")],
    plan: Annotated[Path, typer.Option(help="The plan.json that it tested.")],
    as_json: AsJson = False,
) -> int:
    """Compute figures and conclusions of evidence again from its counts and the plan.

    Exit status 1 says that something does not follow, or that the verdict is not PASS.

    Example: dpmlm audit recheck evidence.json --plan plan.json
    """
    from dpmlm.pipeline.attack import recheck as checked

    found = checked(evidence, plan)
    if as_json:
        print_json("dpmlm.recheck/1", found.to_json())
    else:
        typer.echo(found.text())
    return 0 if not found.findings and found.verdict.word == "PASS" else 1


def selftest(
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Trainings of each kind.")] = 2,
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", help="Only this fault; an unknown name lists them. Repeatable."),
    ] = None,
    epsilon: Annotated[float, typer.Option(help="What every plan claims.")] = 8.0,
    beta: Annotated[float, typer.Option(help="False-alarm probability of the audits.")] = 0.05,
    as_json: AsJson = False,
) -> int:
    """Train small models with planted faults, and a correct one, and show who catches which.

    Exit status 1 says that a fault which multiplies epsilon by 2 or more went unnoticed in some
    seed, that the correct training was accused oftener than by chance, or that the audits missed
    the control. Two seeds take three and a half minutes of a core. Nothing is written.

    Example: dpmlm audit selftest --seeds 1 --fault "no noise"
    """
    from dpmlm.pipeline.progress import Progress
    from dpmlm.pipeline.selftest import selftest as run_selftest

    with Progress().bar("selftest") as report:
        try:
            done = run_selftest(
                seeds=seeds, faults=fault or None, epsilon=epsilon, beta=beta, progress=report
            )
        except KeyboardInterrupt as stopped:
            stopped.args = ("interrupted; nothing is kept: the same command starts anew",)
            raise
    if as_json:
        print_json("dpmlm.selftest/1", done.to_json())
    else:
        typer.echo(done.text())
    return 0 if done.passed else 1
