"""`dpmlm gate`: the verdict, rule by rule."""

from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, RunFile, Settings, print_json, read_run


def register(app: typer.Typer) -> None:
    app.command("gate")(gate)


def gate(
    run_file: RunFile,
    policy: Annotated[
        str | None, typer.Option(help="Try another policy; the run's own stays as it is.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> int:
    """Explain the verdict on a run whose audits are done; exit status 1 unless it is PASS.

    Example: dpmlm gate run.yaml --policy strict
    """
    config = read_run(run_file, settings)
    from dpmlm.pipeline.outcome import judge
    from dpmlm.pipeline.wording import decision_text

    judged = judge(config, policy)
    if as_json:
        print_json("dpmlm.decision/1", judged.to_json())
    else:
        typer.echo(decision_text(judged))
    return 0 if judged.verdict == "PASS" else 1
