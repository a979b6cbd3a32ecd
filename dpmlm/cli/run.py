"""`dpmlm run`: the whole pipeline."""

import typer

from dpmlm.cli.options import AsJson, Resume, RunFile, Settings, ShowPrivate, print_json, read_run


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    run_file: RunFile,
    settings: Settings = None,
    resume: Resume = True,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> int:
    """Take a corpus through every stage to a verdict; repeat it to resume.

    Example: dpmlm run examples/newsgroups/run.yaml --set privacy.epsilon=4
    """
    config = read_run(run_file, settings)
    from dpmlm.pipeline.run import execute_run

    result = execute_run(config, resume=resume)
    if as_json:
        print_json("dpmlm.run/1", result.to_json(private=show_private))
    else:
        typer.echo(result.summary(private=show_private))
    return 0 if result.verdict == "PASS" else 1
