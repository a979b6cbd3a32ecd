"""Figures of `audits.claim.power` for a terminal, in words that ask for no knowledge of privacy."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

_WIDTH = 80
_BAR = 40
"""Characters of a chance of one."""


def outlook(power: Mapping[str, Any], needed: Mapping[str, Any] | None = None) -> str:
    """What `power_of` and `canaries_needed` found, in lines of at most 80 characters."""
    if not power["applicable"]:
        return _filled(f"No audit can contradict this plan: {power['reason']}.")
    paragraphs = [
        "What this audit could find, before anything is trained",
        _filled(_promise(power)),
        _filled(_rule(power)),
        _curve(power),
        _filled(_limits(power)),
        _filled(_advice(power)),
    ]
    if needed is not None:
        paragraphs.append(_filled(_canaries(needed)))
    return "\n\n".join(part for part in paragraphs if part)


def _filled(text: str) -> str:
    return textwrap.fill(text, _WIDTH)


def _promise(power: Mapping[str, Any]) -> str:
    epsilon, copies = power["claim"]["epsilon"], power["claim"]["copies"]
    right = 1 / (1 + math.exp(-epsilon))
    times = "" if copies == 1 else f" {copies} times"
    return (
        f"The plan promises epsilon {epsilon:.4g}: whoever flips a coin to guess whether one unit"
        " was in the data is right half the time, and whoever sees the trained model is right at"
        f" most {_percent(right)} of the time. To test it, the audit plants"
        f" {power['canaries']:,} made-up secrets, canaries; a coin decides for each whether it is"
        f" trained on{times}. Afterwards {power['guesses']:,} guesses are made of how coins fell."
    )


def _rule(power: Mapping[str, Any]) -> str:
    guesses, fewest = power["guesses"], power["fewest_guesses"]
    if power["needed"] is None:
        missing = (
            "No number of guesses would do on so few canaries."
            if fewest is None
            else f"It takes {fewest:,} guesses, {fewest - guesses:,} more."
        )
        return (
            f"NO POWER: a run that keeps the promise may let all {guesses:,} guesses be right, so"
            f" they can never refute it. {missing}"
        )
    strict = power["needed_strict"]
    shared = (
        "not even all of them refute it by themselves" if strict is None else f"it takes {strict:,}"
    )
    return (
        f"{power['needed']:,} right guesses refute the promise: a run that keeps it has so many in"
        f" {_percent(power['beta'])} of runs at most. When {power['tests']} tests share that"
        f" chance of a false alarm, {shared}."
    )


def _curve(power: Mapping[str, Any]) -> str:
    lines = [
        "Chance that a run with too little noise is caught, by this test alone (+) and",
        f"when {power['tests']} tests share the chance of a false alarm (#):",
        "",
        "  noise   epsilon    alone  shared",
    ]
    for row in power["faults"]:
        times = "no end" if row["noise"] == 0 else f"x {row['multiple']:.3g}"
        alone, shared = (round(_BAR * row[name]) for name in ("rate", "rate_strict"))
        bar = "#" * shared + "+" * (alone - shared)
        lines.append(
            f"  {row['noise']:5.0%}  {times:>8}  {row['rate']:7.1%} {row['rate_strict']:7.1%}"
            f"  |{bar:<{_BAR}}|"
        )
    kept = power["faults"][0]
    note = (
        f"Noise is the share of what the plan says, epsilon the multiple of the promise that is"
        f" then true. The first row keeps the promise, so to catch it is a false alarm. Chances"
        f" are of {kept['trials']:,} simulated runs, and within {math.ceil(100 * _widest(power))}"
        f" points in 95 of 100 cases."
    )
    return "\n".join([*lines, "", _filled(note)])


def _widest(power: Mapping[str, Any]) -> float:
    return max(
        abs(end - row[f"rate{name}"])
        for row in power["faults"]
        for name in ("", "_strict")
        for end in row[f"interval{name}"]
    )


def _limits(power: Mapping[str, Any]) -> str:
    alone, shared = (
        "none" if multiple is None else f"{multiple:.3g} times the promise"
        for multiple in (power["smallest_multiple"], power["smallest_multiple_strict"])
    )
    ceilings = power["ceilings"]
    return (
        f"Smallest fault that is caught in {_percent(power['chance'])} of runs: {alone} (alone),"
        f" {shared} (shared). Were all guesses right, they would prove an epsilon of"
        f" {ceilings['one_run']:.2f}, or {ceilings['fdp_one_run']:.2f} if the leak has the shape of"
        " Gaussian noise, and never more: a low proof is no certificate. All this is of the best"
        " attack there is, which watches every step. An attack on the finished model finds less,"
        " so what is not caught here goes unseen."
    )


def _advice(power: Mapping[str, Any]) -> str:
    best = power["best_strict"] or power["best"]
    if best is None:
        return ""
    side = best["guesses"] // 2
    return (
        f"Best for this plan: {side:,} guesses a side, {_percent(side / power['canaries'])} of the"
        f" canaries. Half the noise is then caught in {_percent(best['chance'])} of runs, to be"
        " fixed before training."
    )


def _canaries(needed: Mapping[str, Any]) -> str:
    if not needed["applicable"]:
        return f"Canaries needed: {needed['reason']}."
    asked = (
        f"Canaries needed to catch {needed['multiple']:g} times the promised epsilon in"
        f" {_percent(needed['power'])} of runs, at a false alarm in {_percent(needed['beta'])}:"
    )
    if needed["canaries"] is None:
        most = max(row["canaries"] for row in needed["tried"])
        return f"{asked} no number up to {most:,} does, as {needed['reason']}."
    last = needed["tried"][-1]
    return (
        f"{asked} {needed['canaries']:,}, with {last['guesses'] // 2:,} guesses a side (caught in"
        f" {_percent(last['rate'])} of {last['trials']:,} simulated runs)."
    )


def _percent(share: float) -> str:
    """As many digits as tell the share from all and from nothing."""
    digits = 3 if 0 < min(share, 1 - share) < 0.01 else 1
    return f"{100 * share:.{digits}f}".rstrip("0").rstrip(".") + " %"
