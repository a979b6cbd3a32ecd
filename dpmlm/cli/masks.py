"""`dpmlm masks`: which words to hide, how many, and what each choice costs."""

from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, RunFile, Settings, ShowPrivate
from dpmlm.cli.sweeping import OpenTo, Out, Public, Seeds, Yes, sweep_and_print


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="Which words to hide, and what it costs.", no_args_is_help=True)
    verbs.callback()(_group)
    verbs.command("compare")(compare)
    app.add_typer(verbs, name="masks")


def _group() -> None:
    """Which words to hide, and what it costs."""


def compare(
    run_file: RunFile,
    out: Out,
    ratios: Annotated[
        str | None,
        typer.Option(help="Shares of tokens to hide, e.g. 0.15,0.3 or a schedule 0.3:0.15."),
    ] = None,
    strategies: Annotated[
        str | None, typer.Option(help="Strategies of masking.strategy, or all.")
    ] = None,
    static: Annotated[
        str | None,
        typer.Option(help="Same masks at every visit: yes, no or both.", metavar="yes|no|both"),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of each training.", min=1)] = None,
    seeds: Seeds = 1,
    public: Public = False,
    yes: Yes = False,
    settings: Settings = None,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
    open_to: OpenTo = None,
) -> None:
    """Train the same small run under several maskings and say which differences are real.

    Example: dpmlm masks compare run.yaml --ratios 0.15,0.4 --steps 100 --seeds 3 --out masks
    """
    from dpmlm.pipeline.grid.masks import masking_axes

    axes = masking_axes(ratios, strategies, static)
    more = [f"training.steps={steps}"] if steps else []
    sweep_and_print(
        run_file, out, axes, [*(settings or []), *more], seeds=seeds, public=public, exposing=True,
        yes=yes, as_json=as_json, show_private=show_private, open_to=open_to,
    )  # fmt: skip
