"""What each attack found, in words for somebody who never heard of epsilon.

The evidence says which attacks were run and what each could have found; this says what it did
find. Results on private text are in the auditor's copy alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

from dpmlm.release.facts import is_private
from dpmlm.release.report import words
from dpmlm.release.report.pointers import HELD
from dpmlm.release.report.reach import quantity, reach

PRIVATE = "asked for; the result, or why there is none, is in the auditor's copy"
_NO_LEAK = "nothing beyond what the text by itself tells"
TITLES = {
    "gating": (
        "Was it in the training text?",
        "For the secrets the model likes most and least, guess whether they were trained on.",
    ),
    "exposure": (
        "How much does the model prefer the secret?",
        "Rank each secret among all others that could have been in its place.",
    ),
    "canary_extraction": (
        "Can the secret be read out?",
        "Hide the secret and let the model fill the gap, word piece by word piece.",
    ),
    "lower_bound": (
        "Do the guesses by themselves refute the promise?",
        "From the right guesses, compute an epsilon that the true one is above.",
    ),
}
"""Question and manner of each declared test that is known here, in the order shown."""


def rows(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each attack with its status, what it could have found, in words and in numbers, and what it
    found or why it was not run."""
    return [_row(entry, evidence) for entry in evidence.get("attacks") or ()]


def declared_tests(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tests that the evidence declares, each with what became of it on the released model."""
    subjects = evidence.get("subjects") or {}
    names = (evidence.get("declared") or {}).get("tests") or ()
    return [_declared(name, subjects) for name in names]


def on_target(subjects: Mapping[str, Any], test: str) -> tuple[str, str]:
    """Word and colour class for one test on the released model: silence of a test counts where
    this very test caught the control, accuses no model that never read the secrets, and could have
    found something by itself."""
    part = (subjects.get("target") or {}).get(test)
    word, kind = words.outcome(part, "target")
    if kind == "good" and (part or {}).get("needed_strict", 0) is None:
        return "silent; alone it could find nothing", "open"
    caught = ((subjects.get("control") or {}).get(test) or {}).get("rejected")
    if kind == "good" and not caught:
        return "silent, and not shown to notice a leak", "open"
    if kind == "good" and ((subjects.get("untrained") or {}).get(test) or {}).get("rejected"):
        return "silent, but it accuses the untrained model too", "open"
    return word, kind


def title(test: str) -> str:
    """A declared test in words; one that is not known here by its own name."""
    return TITLES.get(test, (test.replace("_", " "), ""))[0]


def result_of(entry: Mapping[str, Any], evidence: Mapping[str, Any]) -> Any:
    """What the evidence holds of an attack that was run; None where it is private, or not run."""
    part: Any = evidence if "evidence" in entry else None
    for name in entry.get("evidence", "").split("."):
        part = part.get(name) if isinstance(part, Mapping) else None
    return part


def _row(entry: Mapping[str, Any], evidence: Mapping[str, Any]) -> dict[str, Any]:
    path, part = entry.get("evidence", ""), result_of(entry, evidence)
    private = is_private(f"audit.{path}")
    return {
        **entry,
        "tried": quantity(path, part) or (HELD if private and part is None else ""),
        "reach": reach(path, part),
        "found": _found(entry, part),
    }


def _declared(name: str, subjects: Mapping[str, Any]) -> dict[str, Any]:
    path, part = f"subjects.target.{name}", (subjects.get("target") or {}).get(name) or {}
    outcome, kind = on_target(subjects, name)
    judged = part.get("rejected") is not None
    interval = part.get("accuracy_interval") or part.get("ci")
    reason = part.get("reason") or (part.get("test") or {}).get("reason")
    return {
        "name": name,
        "title": title(name),
        "run": judged,
        "why_not": "" if judged else reason or "it is not in the evidence",
        "tried": quantity(path, part),
        "interval": interval,
        "p_value": part.get("p_value"),
        "reach": reach(path, part),
        "outcome": outcome if judged else "",
        "kind": kind,
    }


def _found(entry: Mapping[str, Any], part: Any) -> str:
    if entry["status"] != "RUN":
        return str(entry["reason"])
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
    told = [f"{group['name']}: {_group(group)}" for group in groups]
    return "; ".join(told) if told else PRIVATE


def _group(group: Mapping[str, Any]) -> str:
    part = group["models"].get("target")
    if not part or part.get("applicable") is False:
        return "could not be scored"
    score = part["scores"][group["default_score"]]
    if not (score["in"]["n"] and score["out"]["n"]):
        return "no canary on one side"
    planted, unused = (score[side]["mean_text"] for side in ("in", "out"))
    return f"{planted} planted, {unused} unused ({score['ranked']})"


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
    table = game.get("top_10") or game.get("said") or game
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
    "subjects.target.lower_bound": words.bound_words,
    "groups": _groups,
    "gradients": _gradients,
    "membership": _membership,
    "verbatim": _verbatim,
    "identifiers": _identifiers,
}
