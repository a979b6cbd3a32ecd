"""Plain words and spelled numbers for the report and the model card."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from dpmlm.release.facts import number
from dpmlm.release.gate import Decision, RuleResult, share_of

STATUS = {
    "pass": ("holds", "✓"),
    "fail": ("does not hold", "✕"),
    "inconclusive": ("not decided", "?"),
    "error": ("could not be read", "!"),
    "waived": ("does not hold, and was waived", "!"),
}
"""Word and sign of each rule status."""

PRIORS = ((0.001, "1 in 1,000"), (0.01, "1 in 100"), (0.5, "1 in 2"))


def shown(value: Any) -> str:
    """A fact for people: yes and no, at most five significant digits, thousands grouped."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "—"
    figure = number(value)
    if figure is not None and math.isinf(figure):
        return "∞ (no limit)" if figure > 0 else "−∞"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e5 else _scientific(f"{value:.5g}")
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value) or "none"
    if (counts := share_of(value)) is not None:
        return f"{counts[0]:,} of {counts[1]:,}"
    return str(value)


def _scientific(text: str) -> str:
    """`1 × 10⁻⁶` for 1e-06, kept on one line."""
    mantissa, exponent, power = text.partition("e")
    if not exponent:
        return text
    return f"{mantissa}\u00a0×\u00a010" + str(int(power)).translate(
        str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    )


def required(rule: RuleResult) -> str:
    """A rule's threshold for people."""
    name = next(iter(rule.threshold))
    bound = rule.threshold.get("value", rule.threshold[name])
    if name == "equals":
        return shown(bound)
    return f"at {'most' if name.startswith('max') else 'least'} {shown(bound)}"


def referred(rule: RuleResult) -> str:
    """Where a rule's threshold is taken from; empty for a number of the policy's own."""
    name = next(iter(rule.threshold))
    path = str(rule.threshold[name]) if name.endswith("_ref") else ""
    return path.replace(".", ".\u200b").replace("_", "_\u200b")  # where a narrow column may break


def breakable(place: str) -> Markup:
    """A path or a name that may be broken after its dots and underscores, and copied without."""
    return Markup("<wbr>").join(re.split(r"(?<=[._/#])(?=\w)", place))


def posterior(prior: float, epsilon: float, delta: float) -> float:
    """The most that somebody's belief can become that a given unit was in the corpus.

    By Bayes' rule the odds grow by at most a factor e^epsilon; delta is added as the slack.
    """
    if math.isinf(epsilon) or epsilon > 700:
        return 1.0
    return min(1.0, prior * math.exp(epsilon) / (1 - prior + prior * math.exp(epsilon)) + delta)


def percent(share: float) -> str:
    """A probability that never rounds up to certainty or down to impossibility."""
    value = 100 * share
    if 0 < value < 0.1:
        return "less than 0.1 %"
    if 99.9 < value < 100:
        return "more than 99.9 %"
    return f"{value:.3g} %"


def kept_together(share: float) -> str:
    """The same for a line that is broken where it has room: the sign stays with its number."""
    return percent(share).replace(" %", "\u00a0%")


def one_in(probability: float) -> str:
    """`1 in 1,000,000` for 1e-6."""
    return f"1 in {round(1 / probability):,}" if probability > 0 else "never"


def strength(epsilon: float) -> str:
    """What an epsilon is worth by itself, in one sentence."""
    if math.isinf(epsilon):
        return "Nothing is promised: the model was trained without privacy."
    if epsilon <= 1:
        return "This is a strong promise: it holds well whatever anybody knows or tries."
    if epsilon <= 3:
        return "This is a fair promise: it leaves real doubt even to somebody who knows a lot."
    if epsilon <= 10:
        return (
            "By itself this is a weak promise: against somebody who knows almost everything "
            "already, the mathematics rules out little. It still limits every attack at once, "
            "and what is possible in practice is usually far less; that is what the attacks of "
            "the next section measure."
        )
    return "By itself a promise this loose says almost nothing; only the attacks below count."


def summary(decision: Decision) -> str:
    """Whom the policy lets open the model, as a fact on PASS and as what was missed otherwise."""
    if decision.verdict == "PASS":
        return decision.summary
    return f"What a PASS under {decision.policy} would have meant: {decision.summary}"


def unmet(decision: Decision) -> list[RuleResult]:
    """Rules that did not pass, the broken ones first."""
    return [*decision.of("fail"), *decision.of("inconclusive", "error"), *decision.of("waived")]


def headline(decision: Decision) -> str:
    """The verdict in a sentence."""
    total = len(decision.rules)
    failed, open_ = len(decision.of("fail")), len(decision.of("inconclusive", "error"))
    waived = len(decision.of("waived"))
    if decision.verdict == "PASS" and waived:
        return (
            f"{total - waived} of {total} rules hold; {waived} {'does' if waived == 1 else 'do'} "
            "not, and an approver waived it for this model. The people it was released to can "
            "open the model."
        )
    if decision.verdict == "PASS":
        return f"All {total} rules hold. The people it was released to can open the model."
    if decision.verdict == "FAIL":
        return (
            f"{failed} of {total} rules {'does' if failed == 1 else 'do'} not hold. The model "
            "stays locked: its key was not handed to the people it was meant for."
        )
    return (
        f"No rule was found broken, but {open_} of {total} could not be decided. Missing evidence "
        "is not a pass, so the model stays locked: its key was not handed to the people it was "
        "meant for."
    )


SUBJECTS = {
    "target": ("This model", "the one that is released"),
    "control": ("Leaky twin", "the same training without privacy, on public text"),
    "untrained": ("Untrained", "the model before it saw anything"),
}
"""Name and gloss of each audited model."""


_RIVALS = {
    "given": "the reference model",
    "control": "the leaky twin, which never read it",
    "untrained": "the untrained model",
}


def rival(verbatim: Mapping[str, Any]) -> str:
    """Whom verbatim extraction was held against; the evidence says which model that was."""
    return _RIVALS.get((verbatim.get("reference") or {}).get("is", ""), "another model")


ANNOTATIONS = {
    "blind": "They marked without seeing what the software finds.",
    "prefilled": "They were shown what the software had found and corrected it: whatever both "
    "overlooked is not counted, so the true shares may be lower.",
    "unsaid": "Nothing says whether they were shown what the software finds; if they were, the "
    "true shares may be lower.",
}
"""What it means for recall how the documents were marked."""

_KINDS = {
    "all": "everything that was marked",
    "direct": "what points to one person by itself, such as a name",
    "quasi": "what points to a person beside other details, such as a date",
}


def recall_rows(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Shares of recall for a table, by kind and then by type; those of nothing are left out."""
    named = [(label, figures.get(key)) for key, label in _KINDS.items()]
    named += sorted((figures.get("by_type") or {}).items())
    return [{"label": label, **share} for label, share in named if share]


_OUTCOMES = {
    "target": (("within the promise", "good"), ("beyond the promise", "bad")),
    "control": (("not caught", "open"), ("caught", "good")),
    "untrained": (("left alone", "good"), ("wrongly accused", "open")),
}


_FIGURES = {"correct", "mean_bits", "extracted"}
"""What a test that was tried has counted, whatever it may conclude from it."""


def outcome(part: Mapping[str, Any] | None, who: str) -> tuple[str, str]:
    """Word and colour class for one test on one model (a key of `SUBJECTS`)."""
    if part is None:
        return "not run", "none"
    if who == "target" and part.get("extracted"):
        return "secrets came out", "bad"
    if part.get("applicable") is False and not _FIGURES & part.keys():
        return "could not be tried", "open"
    if part.get("applicable") is False or part.get("rejected") is None:
        return "no promise to test", "none"
    return _OUTCOMES[who][bool(part["rejected"])]


def gating_words(part: Mapping[str, Any]) -> str:
    """The membership test's figures for one model."""
    if "correct" not in part:
        return str(part.get("reason", ""))
    needed = part.get("needed_strict")  # whatever the other tests find
    if needed is not None:
        limit = f"; {needed} would break the promise"
    elif part.get("applicable"):
        limit = "; alone, no number of them could break the promise"
    else:
        limit = ""
    return f"{part['correct']} of {part['guesses']} guesses right{limit}"


def exposure_words(part: Mapping[str, Any]) -> str:
    """The exposure test's figures for one model."""
    mean = part.get("mean_bits")
    if mean is None:
        return str(part.get("reason", "no planted secret"))
    ceiling = part.get("ceiling_bits")
    limit = f"; the promise allows {ceiling:.1f}" if isinstance(ceiling, int | float) else ""
    return f"mean {mean:.1f} of {part['space_bits']:.0f} bits{limit}"


def exposure_shown(part: Mapping[str, Any], who: str) -> str:
    """What to see in the drawing of one model's exposures."""
    told = f"The secrets in its text have a mean of {part['mean_bits']:.1f} bits"
    unused = part.get("mean_bits_out")
    if isinstance(unused, int | float):
        told += f", those that were never in it {unused:.1f}"
    if who == "control":
        return f"{told}. This is how a model looks that was trained without privacy."
    told += (
        ". Where a model has kept nothing of the secrets, both means are the same, but for chance."
    )
    return told if not isinstance(unused, int | float) else f"{told} {_gap(part)}"


_CHANCE = 3.0
"""Standard errors up to which a gap of two means is taken for chance."""


def _gap(part: Mapping[str, Any]) -> str:
    """What it means that planted secrets rank higher than unused ones, or no higher."""
    gap, counts = part["mean_bits"] - part["mean_bits_out"], part["histogram"]
    # Exposure of what a model never saw is exponential: 1/ln 2 bits its mean and its deviation.
    inverse = sum(1 / max(1, sum(counts[side])) for side in ("in", "out"))
    if gap <= _CHANCE * math.sqrt(inverse) / math.log(2):
        return "The gap here is no more than chance makes: no trace of them shows."
    limit = part.get("ceiling_bits")
    beside = (
        f" The promise allows a mean of {limit:.1f} bits at most."
        if isinstance(limit, int | float)
        else ""
    )
    return (
        f"The gap of {gap:.1f} bits here is more than chance makes: the model has kept a trace of "
        f"its secrets, of which a typical one ranks {2**gap:.1f} times as high as an unused one."
        f"{beside}"
    )


def extraction_words(part: Mapping[str, Any]) -> str:
    """The extraction test's figures for one model."""
    if "extracted" not in part:
        return str(part.get("reason", ""))
    return f"{part['extracted']} of {part['n']} secrets read out"


def bound_words(part: Mapping[str, Any]) -> str:
    """The lower bound's figures for one model."""
    least = part.get("one_run")
    if least is None:
        return str(part.get("reason", ""))
    ceiling = part.get("one_run_ceiling")
    limit = "" if ceiling is None else f", of {ceiling:.2f} that could have been shown"
    return f"epsilon is at least {least:.2f}{limit}"


SAY: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "gating": gating_words,
    "exposure": exposure_words,
    "canary_extraction": extraction_words,
    "lower_bound": bound_words,
}
"""Figures of a declared test in words; a test that is not known here shows its outcome alone."""
