"""What each attack found, in words for somebody who never heard of epsilon.

The evidence says which attacks were run and what each could have found; this says what it did
find. Results on private text are in the auditor's copy alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

from dpmlm.release import words

PRIVATE = "asked for; the result, or why there is none, is in the auditor's copy"
_NO_LEAK = "nothing beyond what the text by itself tells"


def rows(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each attack with its status, what it could have found, and what it found or why not run."""
    return [{**entry, "found": _found(entry, evidence)} for entry in evidence.get("attacks") or ()]


def _found(entry: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    if entry["status"] != "RUN":
        return str(entry["reason"])
    part: Any = evidence
    for name in entry["evidence"].split("."):
        part = part.get(name) if isinstance(part, Mapping) else None
    if part is None:
        return PRIVATE
    if isinstance(part, Mapping) and part.get("applicable") is False and "reason" in part:
        return f"could not be judged: {part['reason']}"
    say = _WORDS.get(entry["evidence"])
    return say(part) if say else "see the evidence"


def _control(part: Mapping[str, Any]) -> str:
    caught = part["rejected_by"]
    return f"caught by {', '.join(caught)}" if caught else "not caught: the tests show no power"


def _groups(groups: list[Mapping[str, Any]]) -> str:
    """Of each group the mean exposure of inserted secrets beside that of unused ones."""
    told = [f"{group['name']}: {_group(group['models'].get('target'))}" for group in groups]
    return "; ".join(told) if told else PRIVATE


def _group(part: Mapping[str, Any] | None) -> str:
    if not part or part.get("applicable") is False:
        return "could not be scored"
    means = [part[side]["mean_bits"] for side in ("in", "out")]
    if None in means:
        return "no canary on one side"
    return f"{means[0]:.1f} bits planted, {means[1]:.1f} unused"


def _gradients(part: Mapping[str, Any]) -> str:
    bound = part.get("lower_bound") or {}
    least = bound.get("fdp_one_run")
    tail = "" if least is None else f"; epsilon is at least {least:.2f} for whoever sees every sum"
    caught = part.get("rejected_by") or []
    return (f"beyond the promise: {', '.join(caught)}" if caught else "within the promise") + tail


def _membership(part: Mapping[str, Any]) -> str:
    levels = {"records": "record_level", "persons": "person_level"}
    told = {who: (part.get(level) or {}).get("leaks") or [] for who, level in levels.items()}
    found = [f"{who} are told by {', '.join(leaks)}" for who, leaks in told.items() if leaks]
    return "; ".join(found) or _NO_LEAK


def _verbatim(part: Mapping[str, Any]) -> str:
    hits, spans = part["hits"], part["spans"]
    return (
        f"{hits['train']} of {spans['train']} training spans, {hits['twins']} of {spans['twins']} "
        f"unread ones; {part['discordant']} that the other model does not say"
    )


def _identifiers(part: Mapping[str, Any]) -> str:
    told = []
    for kind, games in part.items():
        if isinstance(games, Mapping):
            tried = games.get("applicable", True)
            told.append(f"{kind} text: " + (_games(games) if tried else str(games["reason"])))
    return "; ".join(told)


def _games(games: Mapping[str, Any]) -> str:
    told = []
    for name in ("extractable", "reconstructable", "inferable"):
        game = games.get(name) or {"applicable": False, "reason": "not played"}
        played = game.get("applicable", True)
        told.append(f"{name} " + (_counts(game) if played else f"not judged ({game['reason']})"))
    return ", ".join(told)


def _counts(game: Mapping[str, Any]) -> str:
    """Hits of the model and of the one that never read the text, where the game counts them."""
    table = game.get("top_10") or game
    rows = table.get("all") or {}
    if not {"target", "reference"} <= rows.keys():
        return "played, see the evidence"
    own, other = rows["target"], rows["reference"]
    return f"{own['hits']} of {own['trials']} (the other model {other['hits']})"


_WORDS: dict[str, Callable[[Any], str]] = {
    "subjects.control": _control,
    "subjects.target.gating": words.gating_words,
    "subjects.target.exposure": words.exposure_words,
    "subjects.target.canary_extraction": words.extraction_words,
    "groups": _groups,
    "gradients": _gradients,
    "membership": _membership,
    "verbatim": _verbatim,
    "identifiers": _identifiers,
}
