"""Options that several verbs share, and how results are printed."""

import json
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dpmlm.config import RunConfig

RunFile = Annotated[Path, typer.Argument(help="The run file.", metavar="RUN.yaml")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a field, e.g. --set privacy.epsilon=4. Repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
ShowPrivate = Annotated[
    bool,
    typer.Option("--show-private", help="Also print figures computed from the private text."),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        help="Take up what an earlier attempt left; --no-resume refuses a workspace in use.",
    ),
]
SigningKeyFile = Annotated[
    Path | None,
    typer.Option("--signing-key", help="Private key file that signs the ledger's lines."),
]
IdentityFile = Annotated[
    Path | None, typer.Option("--identity", help="Private key file that may open it.")
]


class Precision(StrEnum):
    """Type of matrix products in forward and backward passes."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def read_run(path: Path, settings: list[str] | None) -> "RunConfig":
    """The run file with its overrides."""
    from dpmlm.config import load_config, parse_overrides

    return load_config(path, parse_overrides(settings or []))


def print_json(schema: str, value: Mapping[str, Any]) -> None:
    """One object on one line, its schema named first; docs/cli.md lists the fields of each."""
    typer.echo(json.dumps(finite({"schema": schema, **value})))


def finite(value: Any) -> Any:
    """JSON has no infinity: it is spelled "inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def print_written(paths: Sequence[Path], *, as_json: bool, note: str = "") -> None:
    """Files that a verb wrote, a line each, or as `dpmlm.written/1`."""
    if as_json:
        print_json("dpmlm.written/1", {"written": [str(path) for path in paths]})
        return
    for path in paths:
        typer.echo(f"wrote {path}{note}")
