"""What `dpmlm masks compare` and `dpmlm runs sweep` share: ask for the price, run, print."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpmlm.cli.options import print_json
from dpmlm.errors import UserError

if TYPE_CHECKING:
    from dpmlm.pipeline.grid import Axis, Grid, Price

Out = Annotated[Path, typer.Option("--out", help="Folder for the runs; repeat it to resume.")]
Seeds = Annotated[
    int, typer.Option("--seeds", help="Trainings of each setting; from 2 on chance is known.")
]
Public = Annotated[
    bool,
    typer.Option("--public", help="The corpus is public: charge nothing, and show all figures."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Charge without asking.")]
OpenTo = Annotated[
    Path | None,
    typer.Option("--open-to", help="HTML file to write in clear, with the private figures."),
]


def sweep_and_print(
    run_file: Path,
    out: Path,
    axes: Sequence["Axis"],
    settings: Sequence[str],
    *,
    seeds: int,
    public: bool,
    exposing: bool,
    yes: bool,
    as_json: bool,
    show_private: bool,
    open_to: Path | None,
) -> None:
    """Run a grid once its price was agreed to, write its page and print it."""
    from dpmlm.pipeline.grid import Grid, axes_of, refuse_present, run_grid, write_page

    more, overrides = axes_of(settings)
    grid = Grid.of(
        run_file, out, [*axes, *more], seeds=seeds, overrides=overrides, public=public,
        exposing=exposing,
    )  # fmt: skip
    if open_to is not None:
        refuse_present(open_to)
    price = agree_to_price(grid, yes=yes)
    result = run_grid(grid)
    pages = [write_page(result, out / "compare.html")]
    if open_to is not None:
        pages.append(write_page(result, open_to, private=True))
    if as_json:
        found = result.to_json(private=show_private)
        print_json("dpmlm.grid/1", {**found, "price": price.to_json(), "page": str(pages[-1])})
        return
    typer.echo(result.text(private=show_private))
    for page in pages:
        typer.echo(f"wrote {page}")
    if not public:
        typer.echo(result.selecting(out))


def agree_to_price(grid: "Grid", *, yes: bool) -> "Price":
    """Tell what a grid costs and ask, unless it was agreed to or costs nothing."""
    from dpmlm.pipeline.grid import price_of

    price = price_of(grid)
    typer.echo(price.text(), err=True)
    if not yes and price.asks:
        _agree(len(price.plans))
    return price


def _agree(runs: int) -> None:
    if not sys.stdin.isatty():
        raise UserError(
            f"a grid of {runs} runs to charge",
            "it is agreed to before the first, and nobody is there to ask",
            "read the price above and add --yes",
        )
    if not typer.confirm(f"Charge {runs} runs?", err=True):
        raise UserError("no", "nothing was charged", "ask for fewer runs or a smaller epsilon")
