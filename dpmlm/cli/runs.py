"""`dpmlm runs`: several runs on one corpus."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, ShowPrivate, print_json, read_run


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="Several runs on one corpus.", no_args_is_help=True)
    verbs.command("select")(select)
    app.add_typer(verbs, name="runs")


def select(
    run_files: Annotated[
        list[Path], typer.Argument(help="Run files of trained runs.", metavar="RUN.yaml...")
    ],
    epsilon: Annotated[
        float | None, typer.Option(help="Compare on held-out text with noise, and charge this.")
    ] = None,
    public: Annotated[
        str | None, typer.Option(help="Take the run of this name, for reasons that are public.")
    ] = None,
    uncharged: Annotated[
        bool,
        typer.Option(
            "--uncharged", help="Compare exactly, uncharged: the corpus passes no gate after."
        ),
    ] = False,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> None:
    """Choose among trained runs of one corpus and record in the ledger what the choice looked at.

    Example: dpmlm runs select a.yaml b.yaml --epsilon 0.5
    """
    given = [epsilon is not None, public is not None, uncharged]
    if sum(given) != 1:
        raise typer.BadParameter("give exactly one of --epsilon, --public and --uncharged")
    configs = [read_run(path, None) for path in run_files]
    from dpmlm.pipeline.tuning import select_run

    choice = select_run(configs, epsilon=epsilon, public=public)
    if as_json:
        print_json("dpmlm.choice/1", choice.to_json(private=show_private))
    else:
        typer.echo(choice.text(private=show_private))
