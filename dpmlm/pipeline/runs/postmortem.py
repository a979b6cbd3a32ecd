"""A postmortem with its public facts filled in: `dpmlm runs postmortem`.

All of it is read in clear, without a key: run.json, the bundle's public files, the ledger, the
lines about sources beside it, the log of releases, a registry, the log of exports. So nothing that
is computed from private text can be in it but what a release says anyway; what people have to find
out is left to them, under the headings that a blameless review has.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpmlm.artifacts import atomic_write
from dpmlm.config import RunConfig, load_config, names_run_file
from dpmlm.errors import UserError
from dpmlm.pipeline.accounts import Account, budget_text
from dpmlm.pipeline.runs.handed_out import Outside, handed_out
from dpmlm.pipeline.runs.shown import Shown, show_run
from dpmlm.pipeline.runs.words import flat, spelled
from dpmlm.pipeline.tombstones import file_beside
from dpmlm.pipeline.workspace import BUNDLE
from dpmlm.privacy import Ledger
from dpmlm.privacy.journal import Journal
from dpmlm.release.exports import Export, log_of, read_exports
from dpmlm.release.inventory import MANIFEST
from dpmlm.release.signed import peek

_TOLD = {
    "register": "corpus {corpus} registered with its cap",
    "reserve": "run {run_id} reserved",
    "attempt": "run {run_id}: attempt {attempt}, from step {from_step}",
    "forgo": "run {run_id}: ended early, all {steps} steps of its plan charged",
    "commit": "run {run_id}: {steps} steps committed",
    "import": "release {release} charged, which a run continues",
    "spend": "{label} charged",
    "select": "{label} charged",
    "choose": "a choice, labelled {label}",
    "repair": "a torn line mended",
}
"""Kinds of ledger lines that a timeline tells, each with its line; of charged steps it tells the
first and the last, and of `UNTOLD` none."""
UNTOLD = ("keep", "tombstones")
"""A checkpoint, and how far the file of forgotten persons reaches."""


@dataclass(frozen=True)
class Postmortem:
    """What was written."""

    file: str
    to_fill_in: int
    """Places for people."""
    releases: list[str]
    """Digests of the releases that it names."""

    def to_json(self) -> dict[str, Any]:
        return {"file": self.file, "to_fill_in": self.to_fill_in, "releases": self.releases}

    def text(self) -> str:
        known = f"{len(self.releases)} releases are named" if self.releases else "no release known"
        return f"wrote {self.file}: {known}, {self.to_fill_in} places to fill in"


def write_postmortem(
    run: Path,
    out: Path,
    *,
    against: Path | None = None,
    registry: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Postmortem:
    """Fill the template about a run, beside another, into a new file.

    Raises UserError for a file that is there, a run that is given by no run file or was not begun,
    and a ledger that is broken.
    """
    _refuse_present(out)
    if not names_run_file(run):
        raise UserError(
            f"run {run}",
            "a postmortem tells of its ledger and its log, which a run file names",
            "name the run file",
        )
    config = load_config(run, dict(overrides or {}))
    shown = show_run(run, overrides)
    other = None if against is None else show_run(against)
    known = [handed_out(config, registry)]
    if against is not None and other is not None and other.entry.name is not None:
        known.append(handed_out(_config_of(against, other.entry.name, config), registry))
    outside = _together(known)
    page = _filled(config, shown, other, outside, registered=registry is not None)
    _write_new(out, page)
    releases = [one["release"] for one in outside.releases]
    return Postmortem(str(out), page.lower().count("*to fill in"), releases)


def _config_of(path: Path, name: str, beside: RunConfig) -> RunConfig:
    """Of a run file; a workspace names no ledger and no log, so those of the run beside it."""
    if names_run_file(path) and not path.is_dir():
        return load_config(path)
    return beside.model_copy(update={"name": name})


def _together(known: Sequence[Outside]) -> Outside:
    """What is known of several runs, a release that two of them have once."""
    releases: dict[str, dict[str, Any]] = {}
    for each in known:
        for one in each.releases:
            releases.setdefault(one["release"], one)
    charged = dict.fromkeys(run_id for each in known for run_id in each.charged)
    problems = dict.fromkeys(problem for each in known for problem in each.problems)
    return Outside(list(releases.values()), list(charged), list(problems))


def _filled(
    config: RunConfig, shown: Shown, other: Shown | None, outside: Outside, *, registered: bool
) -> str:
    from dpmlm.release.report.templates import environment

    environment().filters["cell"] = cell
    ledger = Ledger.open(config.ledger.path)
    account = Account.of(config.ledger.path)
    lines = sources_told(file_beside(config.ledger.path))
    both = [shown] if other is None else [shown, other]
    settings = [dict(flat(one.settings)) for one in both]
    differing = {
        key: [each.get(key) for each in settings]
        for key in dict.fromkeys(key for each in settings for key in each)
        if any(each.get(key) != settings[0].get(key) for each in settings)
    }
    choices = sum(choice["label"] == "private" for choice in ledger.choices())
    return environment().get_template("postmortem.md.j2").render(
        name=config.name,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        run=shown.entry,
        other=other.entry if other else None,
        ledger={
            "corpus": account.corpus,
            "entries": account.entries,
            "head": account.head,
            "spent": budget_text(account.spent).removeprefix("epsilon "),
            "cap": budget_text(account.cap),
        },
        releases=[{**one, "where": _where(one)} for one in outside.releases],
        registry=registered,
        bundle=_bundles(both),
        exports=_exports(both, outside),
        problems=outside.problems,
        timeline=_timeline(ledger.entries, lines, outside, both),
        settings=differing,
        quarantines=lines,
        charges=account.runs,
        uncharged=(
            f"Choices that looked at private text uncharged: {choices}. No run on this corpus "
            "passes a gate."
            if choices
            else "No choice looked at private text uncharged, as far as the ledger knows."
        ),
        digests={**_digests(both), **_versions(both)},
    )  # fmt: skip


def sources_told(path: Path) -> list[dict[str, Any]]:
    """The lines about sources beside a ledger, oldest first: `number`, `time`, `what`, `reason`,
    `basis`. Which source a line is about takes the pseudonym key to say; persons are passed over.
    """
    if not path.exists():
        return []
    found = []
    for entry in Journal(path, lambda one: None, None, "tombstone file").entries():
        if entry["kind"] == "quarantine":
            rows = "" if entry["rows"] is None else ", some rows of it"
            found.append({**_line(entry), "what": f"a source left out{rows}"})
        elif entry["kind"] == "lift":
            found.append({**_line(entry), "what": f"line {entry['of']} lifted"})
    return found


def _line(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("number", "time", "reason", "basis")}


def _timeline(
    entries: Sequence[Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any]],
    outside: Outside,
    runs: Sequence[Shown],
) -> list[dict[str, str]]:
    """Oldest first, and in the ledger's order where it has two lines of one second. Of the charged
    steps of an attempt the first and the last."""
    told = [(entry["time"], line) for entry, line in zip(entries, _ledger_told(entries)) if line]
    told += [(line["time"], f"{line['what']} ({line['reason']})") for line in lines]
    told += [
        (one["created"], f"run {one['run_id']} released, verdict {one['verdict']}")
        for one in outside.releases
    ]
    known = {one["release"] for one in outside.releases}
    told += [
        (one.entry.created, f"bundle of {one.entry.name} made, verdict {one.entry.verdict}")
        for one in runs
        if one.entry.bundle and one.entry.release not in known and one.entry.created
    ]
    return [{"time": time, "what": what} for time, what in sorted(told, key=_instant)]


def _ledger_told(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is said of each line; empty where nothing is."""
    charges: dict[tuple[str, int], list[int]] = {}
    for number, entry in enumerate(entries):
        if entry["kind"] == "charge":
            charges.setdefault((entry["run_id"], entry["attempt"]), []).append(number)
    lines = [_TOLD.get(entry["kind"], "").format(**entry) for entry in entries]
    for (run_id, attempt), numbers in charges.items():
        last = f"last step of attempt {attempt}, number {entries[numbers[-1]]['step'] + 1}"
        lines[numbers[-1]] = f"run {run_id}: {last}"
        first = f"first step of attempt {attempt}"
        lines[numbers[0]] = f"run {run_id}: {first}" + (f"; {last}" if len(numbers) == 1 else "")
    return lines


def _instant(told: tuple[str, str]) -> datetime:
    """Ledgers write Z, logs an offset."""
    return datetime.fromisoformat(told[0])


def _bundles(runs: Sequence[Shown]) -> dict[str, Any] | None:
    """Digests of the bundles in the workspaces and the key ids of who can open them, the run's name
    with each where there are several runs; None without a sound one."""
    found = [
        (one, _consumers(Path(one.entry.bundle))) for one in runs if one.entry.bundle is not None
    ]
    if not found:
        return None

    def named(what: str | None, one: Shown) -> str:
        return f"{what} (run {one.entry.name})" if len(runs) > 1 else str(what)

    return {
        "release": " and ".join(named(one.entry.release, one) for one, _ in found),
        "consumers": [named(key, one) for one, keys in found for key in keys],
    }


def _consumers(bundle: Path) -> list[str]:
    signed = peek((bundle / MANIFEST).read_bytes())[1]["predicate"]
    return list(signed["recipients"]["consumers"])


def _exports(runs: Sequence[Shown], outside: Outside) -> list[Export]:
    """Of the logs beside the workspaces, which outlive the bundles; oldest first. A release of
    which the run is known is named with it where there are several runs."""
    logs = dict.fromkeys(log_of(Path(one.entry.workspace) / BUNDLE) for one in runs)
    found = [export for log in logs if log.exists() for export in read_exports(log).exports]
    run_ids = {one["release"]: one["run_id"] for one in outside.releases}
    run_ids |= {one.entry.release: one.entry.run_id for one in runs if one.entry.bundle}
    if len(runs) > 1:
        found = [
            replace(one, release=f"{one.release} (run {run_ids[one.release]})")
            if one.release in run_ids
            else one
            for one in found
        ]
    return sorted(found, key=lambda one: datetime.fromisoformat(one.time))


def _where(one: Mapping[str, Any]) -> str:
    places = [] if one["log"] is None else [f"log, line {one['log']}"]
    return ", ".join([*places, *one["registered"]])


def _digests(runs: Sequence[Shown]) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = {
        "release": [one.entry.release for one in runs],
        "model": [one.entry.model_digest for one in runs],
        "run id": [one.entry.run_id for one in runs],
        "created": [one.entry.created for one in runs],
    }
    plans = [dict(flat(one.plan)) for one in runs]
    for key in dict.fromkeys(key for plan in plans for key in plan):
        rows[f"plan: {key}"] = [plan.get(key) for plan in plans]
    return rows


def _versions(runs: Sequence[Shown]) -> dict[str, list[Any]]:
    """Of packages, as the statements of the bundles name them."""
    told = [
        json.loads((Path(one.entry.bundle) / "statement.json").read_bytes())["versions"]
        if one.entry.bundle and one.claim
        else {}
        for one in runs
    ]
    names = sorted({name for each in told for name in each})
    return {name: [each.get(name) for each in told] for name in names}


def cell(value: Any) -> str:
    """A value that stays in its cell of a table and starts no mark-up."""
    text = spelled(value)
    for mark in ("\\", "|", "`", "*", "_", "<", "[", "]"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def _refuse_present(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise UserError(f"--out {out}", "it is there already", "name a new file")
    if out.suffix.lower() != ".md":
        raise UserError(f"--out {out}", "a postmortem is Markdown", "name a file that ends in .md")


def _write_new(out: Path, page: str) -> None:
    """Whole or not at all, and never over what somebody wrote meanwhile."""
    draft = out.with_name(f".{out.name}.{os.getpid()}.new")
    try:
        if not out.parent.is_dir():
            out.parent.mkdir(parents=True)
    except OSError as error:
        raise _unwritten(out, error) from None
    try:
        with atomic_write(draft) as file:
            file.write(page.encode())
        os.link(draft, out)
    except FileExistsError:
        raise UserError(f"--out {out}", "it is there already", "name a new file") from None
    except OSError as error:
        raise _unwritten(out, error) from None
    finally:
        with suppress(OSError):
            draft.unlink()


def _unwritten(out: Path, error: OSError) -> UserError:
    return UserError(
        f"--out {out}", f"it cannot be written ({error.strerror})", "name another file"
    )
