"""Puts the figures of a run or of `dpmlm bench` into docs/results.md, between markers of its name.

    dpmlm run RUN.yaml --json --show-private > result.json
    python benchmarks/results.py result.json --command 'dpmlm run RUN.yaml ...'

    dpmlm bench --out benchmarks/results/cpu.json
    python benchmarks/results.py benchmarks/results/cpu.json --command 'dpmlm bench ...'

A run's name is its own; a bench goes by the name of its file, `bench-cpu` for cpu.json. What
stands under `private` in a run is computed from the text: publish it for public corpora alone.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

_HELD_OUT = (
    ("held-out loss, before and after", "loss", 3),
    ("held-out perplexity", "perplexity", 0),
    ("held-out top-1", "top1", 4),
    ("held-out top-5", "top5", 4),
)
BENCH = "dpmlm.bench/1"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"


def rows_of(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The table of one run: what was asked, what came out, how long each part took."""
    public, private = result["public"], result["private"]
    corpus, scrub, dedup = private["corpus"], private["scrub"], private["dedup"]
    evaluation, audit, plan = private["evaluation"], public["audit"], public["plan"]
    before, after = evaluation["before"], evaluation["after"]
    rows = [
        ("verdict", f"**{result['verdict']}**"),
        ("documents", f"{corpus['documents']}, of {corpus['units']} units"),
        ("dropped while reading", _counts(corpus["dropped"])),
        ("replaced by scrubbing", _counts(scrub["found"])),
        ("removed as duplicates", _counts(dedup["removed"])),
        *_passages(dedup),
        ("held-out documents like one in training", str(dedup["cross_split_pairs"])),
        ("claim", f"epsilon {_short(public['ledger']['epsilon'])}, delta {plan['delta']:g}, one "
         f"{plan['unit']}, {plan['scope']}"),
        ("noise", f"noise_multiplier {plan['noise_multiplier']:.4f}, max_grad_norm "
         f"{plan['max_grad_norm']}, sample_rate {plan['sample_rate']:.5f}, {plan['steps']} steps"),
        *(
            (label, f"{_digits(before[name], places)}, {_digits(after[name], places)}")
            for label, name, places in _HELD_OUT
        ),
        ("audit power", audit["power"]),
    ]  # fmt: skip
    for name in ("target", "control", "untrained"):
        if name in audit:
            rows += [(f"{name}: {test}", value) for test, value in _attacks(audit[name])]
    if "hits" in (private.get("verbatim") or {}):
        hits, spans = private["verbatim"]["hits"], private["verbatim"]["spans"]
        rows.append((
            "verbatim spans read out",
            f"{hits['train']} of {spans['train']} training spans, {hits['twins']} of "
            f"{spans['twins']} held-out twins, {hits['reference']} by "
            f"{_rival(private['verbatim'])}",
        ))  # fmt: skip
    seconds = private["seconds"]
    rows += [(f"seconds: {name}", f"{value:.0f}") for name, value in seconds.items()]
    rows.append(("seconds in all", f"{sum(seconds.values()):.0f}"))
    return rows


def _attacks(subject: dict[str, Any]) -> list[tuple[str, str]]:
    gating, exposure = subject["gating"], subject["exposure"]
    rows = []
    if gating.get("guesses"):
        alone, strict = (gating[key] or "no number" for key in ("needed", "needed_strict"))
        rows.append(("membership guesses", f"{gating['correct']} of {gating['guesses']} right; "
                     f"{alone} would refute the plan alone, {strict} with the error budget shared "
                     "over three tests"))  # fmt: skip
    if isinstance(exposure.get("mean_bits"), float):
        rows.append(("mean exposure", f"{exposure['mean_bits']:.2f} bits, ceiling "
                     f"{_short(exposure['ceiling_bits'])}"))  # fmt: skip
    rows.append(("canaries extracted", f"{subject['extracted']} of {subject['inserted']}"))
    rows.append(("rejected by", ", ".join(subject["rejected_by"]) or "no test"))
    return rows


def _rival(verbatim: dict[str, Any]) -> str:
    """Whom verbatim extraction was held against."""
    names = {"given": "the reference model", "control": "the control"}
    return names.get(verbatim["reference"]["is"], "the untrained model")


def _short(value: float | str | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _digits(value: float | str, places: int) -> str:
    """A figure; beyond any number it is spelled already."""
    return value if isinstance(value, str) else f"{value:.{places}f}"


def _passages(dedup: dict) -> list[tuple[str, str]]:
    if "passages" not in dedup:
        return []
    found = f"{dedup['passages']}, cut from {dedup['cut_documents']} documents"
    return [("repeated passages", found)]


def _counts(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count}" for name, count in ordered) or "none"


def section(result: dict[str, Any], command: str) -> str:
    """Markdown for one run or one bench."""
    body = bench_lines(result) if result["schema"] == BENCH else run_lines(result)
    return "\n".join(["", "```", command, "```", "", *body, ""])


def run_lines(result: dict[str, Any]) -> list[str]:
    """The table of a run."""
    return [
        "| what | figure |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in rows_of(result)),
    ]


def bench_lines(result: dict[str, Any]) -> list[str]:
    """A line for each model and window, then the figures to reach, then where it ran."""
    machine, versions = result["machine"], result["versions"]
    usual = {"own", "opacus_hooks", "opacus_ghost"} & set(result["columns"])
    lines = _usual_lines(result) if usual else _other_lines(result)
    if result["targets"]:
        lines += ["| figure to reach | at most | measured | |", "| --- | --- | --- | --- |"]
        lines += [_target_line(target) for target in result["targets"]] + [""]
    where = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    asked, day = result["settings"], result["date"][:10]
    lines.append(
        f"{where}, {machine['threads']} CPU threads, load {machine['load']:g} at the beginning; "
        f"{asked['precision']}, medians of {asked['repeats']} turns; {named}; {day}."
    )
    return lines


def _other_lines(result: dict[str, Any]) -> list[str]:
    """Other ways through a step: time, and memory in brackets, over the plain one."""
    names = [name for name in result["columns"] if name != "plain"]
    lines = [
        f"| model, tokens, rows | plain | {' | '.join(f'`{name}`' for name in names)} |",
        "| --- " * (len(names) + 2) + "|",
    ]
    for row in result["rows"]:
        time, memory = (
            row["ratios"][measure].get("plain", {}) for measure in ("wall_seconds", "peak_bytes")
        )
        cells = [f"{row['model']}, {row['window']}, {row['batch']}"]
        cells.append(_cell(row["columns"]["plain"], lambda found: f"{found['wall_seconds']:.3f} s"))
        for name in names:
            shown = f"{_two(time.get(name))} ({_two(memory.get(name))})"
            cells.append(_cell(row["columns"][name], lambda _, shown=shown: shown))
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", "Time, and peak memory in brackets, as ratios to `plain`.", ""]


def _usual_lines(result: dict[str, Any]) -> list[str]:
    return [
        "| model, tokens, rows | plain | own | private | Opacus hooks | ghost | private / own "
        "| private / hooks | private / ghost | peak memory, private / plain "
        "| update: plain, private |",
        "| --- " * 11 + "|",
        *(_bench_line(row) for row in result["rows"]),
        "",
        "`plain` in seconds, the columns after it as ratios to it; `update` in seconds.",
        "",
    ]


def _bench_line(row: dict[str, Any]) -> str:
    columns = row["columns"]
    time, memory = row["ratios"]["wall_seconds"], row["ratios"]["peak_bytes"]
    cells = [f"{row['model']}, {row['window']}, {row['batch']}"]
    cells.append(_cell(columns.get("plain"), lambda plain: f"{plain['wall_seconds']:.3f} s"))
    for name in ("own", "private", "opacus_hooks", "opacus_ghost"):
        ratio = time.get("plain", {}).get(name)
        cells.append(_cell(columns.get(name), lambda _, ratio=ratio: _two(ratio)))
    cells += [
        _two(time.get(base, {}).get("private")) for base in ("own", "opacus_hooks", "opacus_ghost")
    ]
    cells.append(_two(memory.get("plain", {}).get("private")))
    updates = [row["updates"].get(name) for name in ("plain", "private")]
    cells.append(", ".join(_cell(u, lambda found: f"{found['wall_seconds']:.3f}") for u in updates))
    return f"| {' | '.join(cells)} |"


def _cell(column: dict[str, Any] | None, shown: Callable[[dict[str, Any]], str]) -> str:
    """A column that failed shows the class of its error."""
    if column is None:
        return "-"
    return column["error"].split(":")[0] if "error" in column else shown(column)


def _two(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _target_line(target: dict[str, Any]) -> str:
    what = "peak memory" if target["measure"] == "peak_bytes" else "time"
    figure = "unmeasured" if target["measured"] is None else f"{target['measured']:.3f}"
    verdict = {True: "met", False: "**missed**", None: "open"}[target["met"]]
    where = f"{target['model']}, {target['window']} tokens, {target['batch']} rows"
    return f"| {where}: {what}, {target['ratio']} | {target['at_most']:g} | {figure} | {verdict} |"


def main() -> None:
    """Replace the run's section of the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path, help="JSON of dpmlm run or dpmlm bench")
    parser.add_argument("--command", required=True, help="the command, as a reader would type it")
    given = parser.parse_args()
    result = json.loads(given.result.read_text())
    bench = result["schema"] == BENCH
    name = f"bench-{given.result.stem}" if bench else result["name"]
    marked = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    page = PAGE.read_text()
    if not marked.search(page):
        raise SystemExit(f"{PAGE} has no markers <!-- {name} --> and <!-- /{name} -->")
    body = section(result, given.command)
    PAGE.write_text(marked.sub(lambda hit: hit[1] + body + hit[2], page))


if __name__ == "__main__":
    main()
