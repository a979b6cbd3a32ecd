"""`dpmlm audit`: attack a model."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, IdentityFile, print_json


def register(app: typer.Typer) -> None:
    app.command("audit")(audit)


def audit(
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="Masked LM to attack.")],
    canaries: Annotated[Path, typer.Option(help="Canary file or sealed canary folder.")],
    out: Annotated[Path, typer.Option(help="Where the evidence goes.")],
    plan: Annotated[
        Path | None,
        typer.Option(help="plan.json with the claim to test; looked for beside the model."),
    ] = None,
    control: Annotated[Path | None, typer.Option(help="Model trained without privacy.")] = None,
    untrained: Annotated[Path | None, typer.Option(help="Model before training.")] = None,
    reference: Annotated[Path | None, typer.Option(help="A public masked LM.")] = None,
    identity: IdentityFile = None,
    beta: Annotated[float, typer.Option(help="False-alarm probability of all tests.")] = 0.05,
    as_json: AsJson = False,
) -> int:
    """Attack any Hugging Face masked LM that was trained with known canaries.

    Exit status 1 says that a test rejected the claim.

    Example: dpmlm audit model --canaries canaries.json --plan plan.json --out evidence.json

    A run's own audit is repeated from its sealed folders: MODEL_DIR work/training, --canaries
    work/canaries, --plan work/bundle/plan.json, --control work/control, --untrained
    work/audit/untrained and --identity keys/trainer.key.
    """
    from dpmlm.pipeline.attack import attack

    done = attack(
        model,
        canaries=canaries,
        plan=plan,
        out=out,
        control=control,
        untrained=untrained,
        reference=reference,
        identity=identity,
        beta=beta,
    )
    if as_json:
        print_json("dpmlm.evidence/1", done.evidence)
    else:
        typer.echo(done.text())
    return 1 if done.rejected else 0
