"""`dpmlm train`: the pipeline up to its training stage."""

import typer

from dpmlm.cli.options import AsJson, Resume, RunFile, Settings, ShowPrivate, print_json, read_run


def register(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    run_file: RunFile,
    settings: Settings = None,
    resume: Resume = True,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> int:
    """Run the pipeline up to the trained model, from the last checkpoint if there is one.

    Example: dpmlm train run.yaml --resume --set training.checkpoint_minutes=5
    """
    config = read_run(run_file, settings)
    from dpmlm.pipeline.run import execute_until

    result = execute_until(config, "training", resume=resume)
    if as_json:
        print_json("dpmlm.run/1", result.to_json(private=show_private))
    else:
        typer.echo(result.summary(private=show_private))
    return 0
