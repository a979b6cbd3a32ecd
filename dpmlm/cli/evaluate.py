"""`dpmlm evaluate`: the pipeline up to its evaluation stage."""

import typer

from dpmlm.cli.options import AsJson, RunFile, Settings, ShowPrivate, print_json, read_run


def register(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate)


def evaluate(
    run_file: RunFile,
    settings: Settings = None,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> int:
    """Measure the model on held-out text: loss, perplexity, top-1 and top-5, before and after.

    The figures are private, so they are printed with --show-private alone.

    Example: dpmlm evaluate run.yaml --show-private
    """
    config = read_run(run_file, settings)
    from dpmlm.pipeline.run import execute_until

    result = execute_until(config, "evaluation")
    if as_json:
        print_json("dpmlm.run/1", result.to_json(private=show_private))
    else:
        typer.echo(result.summary(private=show_private))
        if not show_private:
            typer.echo("measured; --show-private prints the figures")
    return 0
