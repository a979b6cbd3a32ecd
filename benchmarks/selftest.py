"""The self-test over many seeds: planted faults, and small DP models beside their controls.

    python benchmarks/selftest.py --claims 20 --faults 7 --out benchmarks/results/selftest.json

Prints two tables: which audit or check caught which fault (epsilon 8), and how often the audits
reject a small model that was trained as planned, and its control, at each epsilon. All text is made
up. What `--out` holds already is kept, so that a run that was stopped goes on where it was; results
of an older schema are measured anew.
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from audits.statistics import clopper_pearson
from dpmlm.pipeline.selftest import SelfTest, selftest
from dpmlm.pipeline.selftest.result import BLACK_BOX, CODE, WHITE_BOX

EPSILONS = (1.0, 8.0)
FAULTED = 8.0
SCHEMA = "dpmlm.selftest-benchmark/2"


def one_seed(held: dict[str, Any], part: str, epsilon: float, seed: int) -> bool:
    """Whether this seed had to be run; leaves its trials in `held`."""
    if _of_seed(held, part, epsilon, seed) is not None:
        return False
    faults = None if part == "faults" else ()
    found = selftest(seeds=[seed], faults=faults, epsilon=epsilon).to_json()
    held[f"{part}/{epsilon:g}/{seed}"] = {name: found[name] for name in ("beta", "trials")}
    return True


def _of_seed(held: dict[str, Any], part: str, epsilon: float, seed: int) -> SelfTest | None:
    """What is held of a seed; trials with all faults hold a correct one and a control as well."""
    places = [part] if part == "faults" else ["faults", part]
    for place in places:
        value = held.get(f"{place}/{epsilon:g}/{seed}")
        if value is not None:
            return SelfTest.from_json(value)
    return None


def together(held: dict[str, Any], part: str, epsilon: float) -> SelfTest | None:
    """All seeds of a part, judged as one self-test; None where there is none."""
    seeds = sorted({int(key.split("/")[2]) for key in held})
    found = [one for seed in seeds if (one := _of_seed(held, part, epsilon, seed)) is not None]
    if not found:
        return None
    trials = [
        trial
        for one in found
        for trial in one.trials
        if part == "faults" or trial.name in ("correct", "control")
    ]
    return SelfTest(trials, found[0].beta)


def claims_table(held: dict[str, Any]) -> str:
    """A row an epsilon."""
    rows = [
        "| epsilon | seeds | model not rejected | 95 % interval | white box silent | checks silent "
        "| right guesses | control rejected | 95 % interval | right guesses |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for epsilon in EPSILONS:
        found = together(held, "claims", epsilon)
        if found is None:
            continue
        correct, control = found.of("correct"), found.of("control")
        kept, *silent = (
            sum(not trial.found[kind] for trial in correct) for kind in (BLACK_BOX, WHITE_BOX, CODE)
        )
        cells = (
            f"{epsilon:g}", len(correct), kept, _interval(kept, len(correct)), *silent,
            _mean(correct),
            found.control_rejected, _interval(found.control_rejected, len(control)),
            _mean(control),
        )  # fmt: skip
        rows.append(
            f"| {' | '.join(f'{c:g}' if isinstance(c, float) else str(c) for c in cells)} |"
        )
    return "\n".join(rows)


def _interval(successes: int, trials: int) -> str:
    low, high = clopper_pearson(successes, trials)
    return f"{low:.2f} to {high:.2f}"


def _mean(trials: list[Any]) -> str:
    right = [trial.right for trial in trials if trial.right is not None]
    return f"{sum(right) / len(right):.0f} of {trials[0].guesses}"


def written(held: dict[str, Any], out: Path) -> None:
    """Tables and trials, whole or not there."""
    parts = {
        f"{part}/{epsilon:g}": found.to_json()
        for part, epsilon in (("faults", FAULTED), *(("claims", e) for e in EPSILONS))
        if (found := together(held, part, epsilon)) is not None
    }
    for value in parts.values():
        value.pop("trials")
    facts = {
        "schema": SCHEMA,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {name: version(name) for name in ("torch", "dp-accounting")},
        "summary": parts,
        "seeds": held,
    }
    draft = out.with_suffix(".part")
    draft.write_text(json.dumps(facts, indent=1) + "\n")
    draft.replace(out)


def main() -> None:
    """Run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--claims", type=int, default=20, help="seeds of each epsilon")
    parser.add_argument("--faults", type=int, default=7, help="seeds of all faults")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    before = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    held = before["seeds"] if before.get("schema") == SCHEMA else {}
    wanted = [("faults", FAULTED, seed) for seed in range(asked.faults)]
    wanted += [("claims", epsilon, seed) for seed in range(asked.claims) for epsilon in EPSILONS]
    for place, (part, epsilon, seed) in enumerate(wanted, 1):
        if one_seed(held, part, epsilon, seed):
            written(held, asked.out)
            print(f"{place} of {len(wanted)}", flush=True)
    faulted = together(held, "faults", FAULTED)
    if faulted is not None:
        print(f"{faulted.text()}\n")
    print(claims_table(held))


if __name__ == "__main__":
    main()
