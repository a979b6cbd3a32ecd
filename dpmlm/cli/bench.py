"""`dpmlm bench`: what a private step costs on this machine."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dpmlm.bench.request import COLUMNS, MODELS, MORE_COLUMNS, BenchRequest
from dpmlm.cli.options import AsJson, Precision, print_json
from dpmlm.errors import UserError


class Device(StrEnum):
    cpu = "cpu"
    cuda = "cuda"


def register(app: typer.Typer) -> None:
    app.command("bench")(bench)


def bench(
    models: Annotated[
        str, typer.Option(help=f"Comma-separated, of {', '.join(MODELS)}.")
    ] = ",".join(MODELS),
    windows: Annotated[str, typer.Option(help="Tokens a row, comma-separated.")] = "128,512",
    columns: Annotated[
        str, typer.Option(help=f"Comma-separated, of {', '.join(COLUMNS + MORE_COLUMNS)}.")
    ] = ",".join(COLUMNS),
    batch: Annotated[
        int | None, typer.Option(min=1, help="Rows a batch; the model's own where not given.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed turns after a warm-up.")] = 7,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of torch.")] = None,
    device: Annotated[Device, typer.Option(help="Where the steps run.")] = Device.cpu,
    precision: Annotated[
        Precision, typer.Option(help="Of matrix products; bfloat16 by autocast.")
    ] = Precision.float32,
    vocabulary: Annotated[
        int | None, typer.Option(min=16, help="Size of every vocabulary, for quick looks.")
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Measure peak memory too.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 if a figure to reach was missed.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Time the plain Hugging Face step, ours without and with privacy, and Opacus', side by side.

    All in one process on the same batch, taking turns; random weights and tokens. Everything with
    its defaults takes about half an hour on two cores.

    Example: dpmlm bench --models tiny,mini --windows 128 --repeats 5 --check
    """
    request = BenchRequest(
        models=_names(models),
        windows=_windows(windows),
        columns=_names(columns),
        batch=batch,
        repeats=repeats,
        threads=threads,
        device=device.value,
        precision=precision.value,
        vocabulary=vocabulary,
        memory=memory,
    )
    if out is not None and not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}", "its folder does not exist", "make the folder first")
    from dpmlm.bench.measurement import measure
    from dpmlm.bench.report import SCHEMA, table, to_json
    from dpmlm.bench.targets import judge

    measured = measure(request, lambda line: print(line, file=sys.stderr, flush=True))
    found = to_json(measured)
    if out is not None:
        _write(out, {"schema": SCHEMA, **found})
    if as_json:
        print_json(SCHEMA, found)
    else:
        typer.echo(table(measured))
    return _judged(judge(measured)) if check else 0


def _names(given: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


def _windows(given: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, _names(given)))
    except ValueError:
        raise UserError(
            f"--windows {given}", "it is a list of numbers", "for example --windows 128,512"
        ) from None


def _write(path: Path, report: dict[str, Any]) -> None:
    from dpmlm.artifacts import atomic_write

    with atomic_write(path) as file:
        file.write(json.dumps(report, indent=2, allow_nan=False).encode() + b"\n")


def _judged(outcomes: list[Any]) -> int:
    """Exit status; what was missed goes to standard error, as the result has been printed."""
    if not outcomes:
        raise UserError(
            "--check",
            "nothing that was measured has a figure to reach",
            "measure tiny, mini or small as they come, columns plain, own and private among them",
        )
    missed = [outcome.text() for outcome in outcomes if outcome.met is False]
    for line in missed:
        print(line, file=sys.stderr)
    return 1 if missed else 0
