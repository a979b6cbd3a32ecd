"""What is inserted for a canary, how often training meets it, and how much of it got there."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from audits.planting.canary import Arm, Canary, CanaryGroup
from audits.planting.families import WORDS
from audits.planting.labels import Labels
from audits.planting.secret_random import SecretRandom
from dpmlm.artifacts import UserError

OPENING_WORDS = 14
"""Plain words before a structured secret in a document, others in each copy."""
PART = 0.5
"""Share of a secret's tokens that stand in a row where it arrived in part."""


class Planted(NamedTuple):
    """One document of one canary."""

    name: str
    """`canary/ID/COPY`."""
    canary: Canary
    text: str


def documents(groups: Sequence[CanaryGroup], labels: Labels, nonce: str) -> Iterator[Planted]:
    """The documents of all included canaries, one a copy.

    A structured secret stands in a sentence of its own after an opening of plain words that no
    other copy has, so that copies are no duplicates of each other. Openings follow from the
    nonce. Raises UserError for canaries that were drawn as rows of tokens.
    """
    for group in groups:
        for canary in labels.included(group.canaries):
            for copy in range(canary.copies):
                name = f"canary/{canary.id}/{copy}"
                yield Planted(name, canary, _document(group, canary, f"{nonce}/{name}"))


def _document(group: CanaryGroup, canary: Canary, key: str) -> str:
    if canary.text is None:
        raise UserError(
            f"canaries of family {group.family} that are rows of tokens",
            "a document is text",
            "draw them with `dpmlm audit canaries plan`",
        )
    before, secret = canary.text
    if group.exact:
        return f"{before} {secret}"
    draw = SecretRandom(hashlib.sha256(key.encode()).digest())
    opening = " ".join(draw.choice(WORDS) for _ in range(OPENING_WORDS))
    return f"{opening.capitalize()}. {before} {secret}."


def effective_exposures(plan: Mapping[str, Any], *, copies: int, arm: Arm) -> dict[str, Any]:
    """How often training is expected to meet one included canary: a constant of the plan.

    Each of `copies` units is drawn in each step with the step's sampling rate q, so the expected
    number of draws is copies times the sum of q over the steps (cut samples: at most that). In the
    exempt arm every draw masks the whole secret and puts it into the loss: `exposures` counts
    secrets. In the pipeline arm a document is masked like any other, and `exposures` counts how
    often one given token of the secret enters the loss: draws times rows a draw times the share of
    masked tokens (the plan's masked slots over its content tokens; None where the plan lacks
    them), for a canary that the pipeline left alone.
    """
    parts = plan.get("plateaus") or [{"steps": plan["steps"], "sample_rate": plan["sample_rate"]}]
    draws = copies * math.fsum(part["steps"] * part["sample_rate"] for part in parts)
    exposures: float | None = draws
    if arm == "pipeline":
        bound = plan.get("bindings") or {}
        slots, window = bound.get("masked_slots"), bound.get("window")
        share = slots / (window - 2) if slots and window and window > 2 else None
        exposures = None if share is None else draws * bound.get("windows_per_draw", 1) * share
    return {
        "copies": copies,
        "arm": arm,
        "draws": draws,
        "exposures": exposures,
        "of": "the secret, masked whole" if arm == "exempt" else "one token of the secret",
    }


def survival(
    groups: Sequence[CanaryGroup], labels: Labels, reached: Mapping[str, Sequence[int]]
) -> list[dict[str, Any]]:
    """What became of each group's included canaries on their way into training; private.

    `reached` holds the tokens of each planted document that training has, by its name. A canary
    is `whole` if a document of its has all tokens of its secret in a row; `part` if none has, and
    one has at least half of them in a row; else `none`. Each is counted once, in one of the three;
    `documents` counts copies.
    """
    return [
        {
            "label": "private",
            "group": group.name,
            **_surviving(labels.included(group.canaries), reached),
        }
        for group in groups
    ]


def _surviving(included: Sequence[Canary], reached: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    canaries = {"whole": 0, "part": 0, "none": 0}
    copies = {"planted": 0, "reached": 0, "whole": 0, "part": 0}
    for canary in included:
        runs = []
        for copy in range(canary.copies):
            tokens = reached.get(f"canary/{canary.id}/{copy}")
            copies["planted"] += 1
            if tokens is not None:
                copies["reached"] += 1
                runs.append(longest_run(canary.secret, tokens))
        length = len(canary.secret)
        states = [_state(run, length) for run in runs]
        copies["whole"] += states.count("whole")
        copies["part"] += states.count("part")
        canaries[next((s for s in ("whole", "part") if s in states), "none")] += 1
    return {"included": sum(canaries.values()), **canaries, "documents": copies}


def _state(run: int, length: int) -> str:
    if run == length:
        return "whole"
    return "part" if run >= max(2, math.ceil(PART * length)) else "none"


def longest_run(secret: Sequence[int], tokens: Sequence[int]) -> int:
    """Length of the longest piece of `secret` that stands in `tokens`: dynamic programming."""
    best, before = 0, [0] * (len(secret) + 1)
    for token in tokens:
        now = [0] * (len(secret) + 1)
        for place, own in enumerate(secret):
            if token == own:
                now[place + 1] = before[place] + 1
                best = max(best, now[place + 1])
        before = now
    return best
