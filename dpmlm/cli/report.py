"""`dpmlm report`: open the auditor's report."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import AsJson, IdentityFile, RunFile, Settings, print_written, read_run


def register(app: typer.Typer) -> None:
    app.command("report")(report)


def report(
    run_file: RunFile,
    open_to: Annotated[
        Path, typer.Option("--open-to", help="HTML file to write in clear; holds private figures.")
    ],
    identity: IdentityFile = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Write the full report of a finished run in clear, for those who may read it.

    Example: dpmlm report run.yaml --open-to report.html --identity keys/auditor.key
    """
    config = read_run(run_file, settings)
    from dpmlm.pipeline.export import open_report

    written = open_report(config, open_to, identity=identity)
    print_written([written], as_json=as_json, note=" in clear: it holds private figures")
