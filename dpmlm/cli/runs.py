"""`dpmlm runs`: several runs on one corpus."""

from pathlib import Path
from typing import Annotated

import typer

from dpmlm.cli.options import (
    AsJson,
    IdentityFile,
    Settings,
    ShowPrivate,
    print_json,
    read_run,
)
from dpmlm.cli.sweeping import OpenTo, Out, Public, Seeds, Yes, sweep_and_print

RunFiles = Annotated[list[Path], typer.Argument(help="Run files.", metavar="RUN.yaml...")]
PersonFile = Annotated[
    str | None,
    typer.Option("--person-file", help="File with the person, or - for standard input."),
]
Person = Annotated[
    str | None,
    typer.Option(
        "--person",
        help="The person. Seen by others in process lists and shell history: use --person-file.",
    ),
]


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="Several runs on one corpus.", no_args_is_help=True)
    verbs.command("list")(list_)
    verbs.command("show")(show)
    verbs.command("compare")(compare)
    verbs.command("sweep")(sweep)
    verbs.command("select")(select)
    verbs.command("affected")(affected)
    verbs.command("forget")(forget)
    app.add_typer(verbs, name="runs")


def list_(
    root: Annotated[
        Path, typer.Argument(help="Folder to look in, with all below it.", metavar="[ROOT]")
    ] = Path("."),
    as_json: AsJson = False,
) -> None:
    """List every workspace below a folder; no key is needed.

    Example: dpmlm runs list work
    """
    from dpmlm.pipeline.runs.catalogue import list_runs

    found = list_runs(root)
    if as_json:
        print_json("dpmlm.runs/1", found.to_json())
    else:
        typer.echo(found.text())


def show(
    run: Annotated[Path, typer.Argument(help="A workspace or a run file.", metavar="RUN")],
    settings: Settings = None,
    identity: IdentityFile = None,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> None:
    """Show one run: stages, settings, plan, claim, rules and public audit figures.

    Example: dpmlm runs show run.yaml --show-private
    """
    from dpmlm.config import parse_overrides
    from dpmlm.pipeline.runs.catalogue import show_run

    overrides = parse_overrides(settings or [])
    shown = show_run(run, overrides, identity=identity, private=show_private)
    if as_json:
        print_json("dpmlm.run-shown/1", shown.to_json())
    else:
        typer.echo(shown.text())


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Workspaces or run files, at least two.", metavar="RUN...")
    ],
    settings: Settings = None,
    identity: IdentityFile = None,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> None:
    """Hold runs side by side: settings that differ, plans, claims, verdicts, audit figures.

    What is set is set in every run file.

    Example: dpmlm runs compare a.yaml b.yaml
    """
    from dpmlm.config import parse_overrides
    from dpmlm.pipeline.runs.comparison import compare_runs

    overrides = parse_overrides(settings or [])
    found = compare_runs(runs, overrides, identity=identity, private=show_private)
    if as_json:
        print_json("dpmlm.comparison/1", found.to_json())
    else:
        typer.echo(found.text())


def affected(
    run_files: RunFiles,
    person_file: PersonFile = None,
    person: Person = None,
    identity: IdentityFile = None,
    registry: Annotated[
        Path | None, typer.Option(help="Registry to look for their releases in.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Say which runs a person's text reached, and how far; the answer is private.

    Example: dpmlm runs affected run.yaml --person-file person.txt
    """
    configs = [read_run(path, settings) for path in run_files]
    from dpmlm.pipeline.runs.affected import affected as search
    from dpmlm.pipeline.runs.person import read_person

    found = search(configs, read_person(person_file, person), identity=identity, registry=registry)
    if as_json:
        print_json("dpmlm.affected/1", found.to_json())
    else:
        typer.echo(found.text())
    if found.failed:
        raise typer.Exit(2)


def forget(
    run_file: Annotated[Path, typer.Argument(help="A run file of the corpus.", metavar="RUN.yaml")],
    person_file: PersonFile = None,
    person: Person = None,
    reason: Annotated[
        str | None, typer.Option(help="A ticket number, one word; it stands in clear.")
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also where no row of the corpus file names them.")
    ] = False,
    list_them: Annotated[
        bool, typer.Option("--list", help="Say how many were forgotten, and when.")
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Keep a person's documents out of every later run on the corpus' ledger.

    Example: dpmlm runs forget run.yaml --person-file person.txt --reason request-17
    """
    config = read_run(run_file, settings)
    from dpmlm.pipeline import tombstones
    from dpmlm.pipeline.runs.person import read_person

    if list_them:
        if (person_file, person, reason) != (None, None, None):
            raise typer.BadParameter("--list takes neither a person nor a reason")
        found = tombstones.forgotten(config)
    else:
        named = read_person(person_file, person)
        found = tombstones.forget(config, named, reason or "", anyway=anyway)
    if as_json:
        print_json("dpmlm.forgotten/1", found.to_json())
    else:
        typer.echo(found.text())


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
    from dpmlm.pipeline.runs.tuning import select_run

    choice = select_run(configs, epsilon=epsilon, public=public)
    if as_json:
        print_json("dpmlm.choice/1", choice.to_json(private=show_private))
    else:
        typer.echo(choice.text(private=show_private))


def sweep(
    run_file: Annotated[Path, typer.Argument(help="The run file.", metavar="RUN.yaml")],
    out: Out,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Values to try, e.g. --set training.learning_rate=1e-3,3e-3; with one value, a "
            "field that all runs share. Repeatable: every combination is trained.",
        ),
    ] = None,
    seeds: Seeds = 1,
    public: Public = False,
    yes: Yes = False,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
    open_to: OpenTo = None,
) -> None:
    """Train a run under every combination of some settings; each run is charged.

    Example: dpmlm runs sweep run.yaml --set training.learning_rate=1e-3,3e-3 --out sweep
    """
    sweep_and_print(
        run_file, out, [], settings or [], seeds=seeds, public=public, exposing=False,
        yes=yes, as_json=as_json, show_private=show_private, open_to=open_to,
    )  # fmt: skip
