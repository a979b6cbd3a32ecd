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
from dpmlm.cli.sweeping import (
    OpenTo,
    Out,
    Public,
    Seeds,
    Yes,
    agree_to_price,
    sweep_and_print,
)

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
    verbs.command("shards")(shards)
    verbs.command("ablate")(ablate)
    verbs.command("sweep")(sweep)
    verbs.command("select")(select)
    verbs.command("affected")(affected)
    verbs.command("origin")(origin)
    verbs.command("forget")(forget)
    verbs.command("quarantine")(quarantine)
    verbs.command("postmortem")(postmortem)
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
    from dpmlm.pipeline.runs.shown import show_run

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


def shards(
    run_file: Annotated[Path, typer.Argument(help="A trained run.", metavar="RUN.yaml")],
    against: Annotated[
        Path | None,
        typer.Option(help="A better run, a bundle or a model folder; else the untrained model."),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(help="Part each file into ranges of so many rows.")
    ] = None,
    settings: Settings = None,
    identity: IdentityFile = None,
    trusted_keys: Annotated[
        Path | None, typer.Option(help="Folder of .pub files of signers, for a bundle.")
    ] = None,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> None:
    """Rank the files of a run's corpus by how unlike the others they are; all of it is private.

    Example: dpmlm runs shards new.yaml --against old.yaml --show-private
    """
    config = read_run(run_file, settings)
    from dpmlm.pipeline.runs.shards import rank_parts

    found = rank_parts(config, against, rows=rows, identity=identity, trusted_keys=trusted_keys)
    if as_json:
        print_json("dpmlm.shards/1", found.to_json(private=show_private))
    else:
        typer.echo(found.text(private=show_private))


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


def origin(
    run_file: Annotated[Path, typer.Argument(help="The run file.", metavar="RUN.yaml")],
    text_file: Annotated[
        str | None,
        typer.Option("--text-file", help="File with a text to look for, or - for standard input."),
    ] = None,
    identity: IdentityFile = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Say which source and row a text came from, or hold all sources to what was read; private.

    Status 1 where a source no longer holds what was read of it.

    Example: dpmlm runs origin run.yaml --text-file text.txt
    """
    config = read_run(run_file, settings)
    from dpmlm.pipeline.runs import origin as records

    if text_file is not None:
        text = records.read_text(text_file)
        found: records.Origin | records.Sources = records.origin(config, text, identity=identity)
    else:
        found = records.sources(config, identity=identity)
    if as_json:
        print_json(found.SCHEMA, found.to_json())
    else:
        typer.echo(found.text())
    if not found.held:
        raise typer.Exit(1)


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


def ablate(
    run_file: Annotated[Path, typer.Argument(help="The run file.", metavar="RUN.yaml")],
    out: Out,
    source: Annotated[
        list[str] | None,
        typer.Option(help="A source file, as the corpus names it. Repeatable."),
    ] = None,
    halves: Annotated[
        bool,
        typer.Option(
            "--halves", help="Leave out half of the sources at a time: 2 log2 n settings."
        ),
    ] = False,
    seeds: Seeds = 3,
    yes: Yes = False,
    settings: Settings = None,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> None:
    """Train without each of some sources, and say whose removal makes the run better; each
    training is charged.

    Example: dpmlm runs ablate run.yaml --source may.jsonl --source june.jsonl --out ablation
    """
    from dpmlm.config import parse_overrides
    from dpmlm.pipeline.grid import run_grid
    from dpmlm.pipeline.runs.ablation import ablation_grid, ablation_of

    overrides = parse_overrides(settings or [])
    grid = ablation_grid(
        run_file, out, source or [], seeds=seeds, halves=halves, overrides=overrides
    )
    price = agree_to_price(grid, yes=yes)
    found = ablation_of(grid, run_grid(grid))
    if as_json:
        told = found.to_json(private=show_private)
        print_json("dpmlm.ablation/1", {**told, "price": price.to_json()})
    else:
        typer.echo(found.text(private=show_private))


def quarantine(
    run_file: Annotated[Path, typer.Argument(help="A run file of the corpus.", metavar="RUN.yaml")],
    source: Annotated[
        str | None, typer.Option(help="File, by its name or its path below the corpus folder.")
    ] = None,
    rows: Annotated[str | None, typer.Option(help="Rows of it, e.g. 120-480; else all.")] = None,
    reason: Annotated[
        str | None, typer.Option(help="A ticket number, one word; it stands in clear.")
    ] = None,
    basis: Annotated[
        str | None,
        typer.Option(
            help="`public`, or `private` where figures of private text led to it: then no claim "
            "covers the choice."
        ),
    ] = None,
    lift: Annotated[bool, typer.Option("--lift", help="Let it in again.")] = False,
    list_them: Annotated[bool, typer.Option("--list", help="Say what is in force.")] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Keep a source file out of every later run on the corpus' ledger, or let it in again.

    Example: dpmlm runs quarantine run.yaml --source may.jsonl --reason inc-7 --basis public
    """
    config = read_run(run_file, settings)
    from dpmlm.pipeline.runs import quarantining

    if list_them:
        if (source, rows, reason, basis, lift) != (None, None, None, None, False):
            raise typer.BadParameter("--list takes nothing else")
        found = quarantining.quarantined(config)
    elif source is None or reason is None or basis is None:
        raise typer.BadParameter("give --source, --reason and --basis, or --list")
    else:
        part = None if rows is None else quarantining.parse_rows(rows)
        found = quarantining.quarantine(config, source, reason, basis, rows=part, lift=lift)
    if as_json:
        print_json("dpmlm.quarantine/1", found.to_json())
    else:
        typer.echo(found.text())


def postmortem(
    run_file: Annotated[Path, typer.Argument(help="The run file.", metavar="RUN.yaml")],
    out: Annotated[Path, typer.Option(help="Markdown file to write; it must not be there.")],
    against: Annotated[
        Path | None, typer.Option(help="Another run, a workspace or a run file.")
    ] = None,
    registry: Annotated[
        Path | None, typer.Option(help="Registry to look for its releases in.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Write a postmortem with its public facts filled in; no key is needed.

    Example: dpmlm runs postmortem run.yaml --against before.yaml --out incident-7.md
    """
    from dpmlm.config import parse_overrides
    from dpmlm.pipeline.runs.postmortem import write_postmortem

    overrides = parse_overrides(settings or [])
    written = write_postmortem(
        run_file, out, against=against, registry=registry, overrides=overrides
    )
    if as_json:
        print_json("dpmlm.postmortem/1", written.to_json())
    else:
        typer.echo(written.text())


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
    settings: Settings = None,
    as_json: AsJson = False,
    show_private: ShowPrivate = False,
) -> None:
    """Choose among trained runs of one corpus and record in the ledger what the choice looked at.

    Example: dpmlm runs select a.yaml b.yaml --epsilon 0.5
    """
    given = [epsilon is not None, public is not None, uncharged]
    if sum(given) != 1:
        raise typer.BadParameter("give exactly one of --epsilon, --public and --uncharged")
    configs = [read_run(path, settings) for path in run_files]
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
