"""`SelfTest`: which audit or check caught which fault, and whether that is enough."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from scipy import stats

from audits.statistics import clopper_pearson
from audits.subject import TESTS
from dpmlm.pipeline.selftest.checks import CHECKS
from dpmlm.pipeline.selftest.faults import CORRECT
from dpmlm.release.facts import spelled

SCHEMA = "dpmlm.selftest/1"
CONTROL = "control"
FACTOR = 2.0
"""A fault that multiplies epsilon by so much or more has to be caught."""
SHARE = 0.9
"""Of the seeds, in which the control has to be rejected for the audits to have power."""
CONFIDENCE = 0.999
"""Of the statement that the correct training fails in more than its share of seeds."""


@dataclass(frozen=True)
class Trial:
    """One training and what everybody said of it."""

    name: str
    seed: int
    claimed: float
    kept: float
    """Epsilon that the training keeps; infinite for none."""
    p_values: dict[str, float | None]
    """Of the audits' tests; None where one could not be run."""
    rejected_by: tuple[str, ...]
    """Tests that rejected the claim."""
    untrained_rejected_by: tuple[str, ...]
    """Tests that rejected it of the model before training: broken ones."""
    right: int | None
    """Membership guesses that were right."""
    guesses: int | None
    bound: float | None
    """Lower bound on epsilon (f-DP, one run), outside the error budget."""
    checks: dict[str, str] = field(default_factory=dict)
    """What each check found, in words; empty where nothing was wrong. The control has none."""
    seconds: float = 0.0
    """Of one core."""

    @property
    def caught_by(self) -> list[str]:
        """Audits, then checks."""
        return [*self.rejected_by, *(name for name, words in self.checks.items() if words)]


@dataclass(frozen=True)
class SelfTest:
    """All trials, and what follows from them."""

    trials: Sequence[Trial]
    beta: float

    def of(self, name: str) -> list[Trial]:
        """The trials of a fault, of "correct" or of "control"."""
        return [trial for trial in self.trials if trial.name == name]

    @property
    def faults(self) -> list[str]:
        """Names of the faults, in the order of the table."""
        return [name for name in self._names if name not in (CONTROL, CORRECT.name)]

    @property
    def missed(self) -> list[str]:
        """Faults that break the claim by `FACTOR` and were overlooked in some seed."""
        return [
            name
            for name in self.faults
            if any(t.kept >= FACTOR * t.claimed and not t.caught_by for t in self.of(name))
        ]

    @property
    def most_alarms(self) -> int:
        """Seeds in which audits may reject a correct model, at `beta` a seed, before chance is
        refuted."""
        return int(stats.binom.ppf(CONFIDENCE, len(self.of(CORRECT.name)), self.beta))

    @property
    def wrong_alarms(self) -> list[str]:
        """Why the correct training did not pass; empty if it did.

        A check has to be silent in every seed. Of few seeds the binomial limit allows all, so a
        single p-value that chance gives in one of a thousand self-tests counts as well.
        """
        correct = self.of(CORRECT.name)
        found = [
            f"seed {trial.seed}: {name}: {words}"
            for trial in correct
            for name, words in trial.checks.items()
            if words
        ]
        for who, alarms in (
            ("the correct model", sum(bool(trial.rejected_by) for trial in correct)),
            ("the untrained model", sum(bool(trial.untrained_rejected_by) for trial in correct)),
        ):
            if alarms > self.most_alarms:
                found.append(f"{who} is rejected in {alarms} seeds, {self.most_alarms} are chance")
        values = [p for trial in correct for p in trial.p_values.values() if p is not None]
        if values and min(values) < (1 - CONFIDENCE) / (len(TESTS) * len(correct)):
            found.append(f"an audit rejects the correct model with p {min(values):.1e}")
        return found

    @property
    def control_rejected(self) -> int:
        """Seeds in which an audit rejected the control."""
        return sum(bool(trial.rejected_by) for trial in self.of(CONTROL))

    @property
    def power(self) -> bool:
        """Whether the audits reject the control in enough seeds for their silence to count."""
        return self.control_rejected >= SHARE * len(self.of(CONTROL))

    @property
    def passed(self) -> bool:
        """Every fault caught, the correct training not, the control rejected: exit status 0."""
        return not self.missed and not self.wrong_alarms and self.power

    def to_json(self) -> dict[str, Any]:
        """As `dpmlm.selftest/1`."""
        value: dict[str, Any] = spelled(
            {
                "schema": SCHEMA,
                "passed": self.passed,
                "beta": self.beta,
                "seeds": sorted({trial.seed for trial in self.trials}),
                "missed": self.missed,
                "wrong_alarms": self.wrong_alarms,
                "most_alarms": self.most_alarms,
                "control_rejected": self.control_rejected,
                "power": self.power,
                "faults": {name: self._counts(name) for name in self._names},
                "trials": [asdict(trial) for trial in self.trials],
            }
        )
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "SelfTest":
        """What `to_json` wrote; its trials are judged again."""
        trials = []
        for entry in value["trials"]:
            numbers = {name: float(entry[name]) for name in ("claimed", "kept")}
            tests = {n: tuple(entry[n]) for n in ("rejected_by", "untrained_rejected_by")}
            trials.append(Trial(**(entry | numbers | tests)))
        return cls(trials, value["beta"])

    def text(self) -> str:
        """For a terminal: a row a training, a column an audit or check."""
        detectors = self._detectors
        rows = [["", "epsilon", "caught", *detectors]]
        for name in self._names:
            counts = self._counts(name)
            caught = f"{counts['caught']}/{counts['seeds']}"
            cells = [str(counts["by"][detector] or "-") for detector in detectors]
            rows.append([name, self._epsilon(self.of(name)), caught, *cells])
        widths = [max(map(len, column)) for column in zip(*rows)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
                 for row in rows]  # fmt: skip
        return "\n".join([*table, "", *self._words(), "", *self._verdict()])

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(trial.name for trial in self.trials))

    @property
    def _detectors(self) -> list[str]:
        more = {test for trial in self.trials for test in trial.rejected_by} - set(TESTS)
        return [*TESTS, *sorted(more), *CHECKS]

    def _counts(self, name: str) -> dict[str, Any]:
        trials = self.of(name)
        caught = sum(bool(trial.caught_by) for trial in trials)
        by = {d: sum(d in trial.caught_by for trial in trials) for d in self._detectors}
        interval = list(clopper_pearson(caught, len(trials)))
        return {"seeds": len(trials), "caught": caught, "interval": interval, "by": by}

    @staticmethod
    def _epsilon(trials: Sequence[Trial]) -> str:
        """Claimed, and what is kept."""
        kept = max(trial.kept for trial in trials)
        return f"{trials[0].claimed:g} -> {'none' if math.isinf(kept) else f'{kept:.1f}'}"

    def _words(self) -> list[str]:
        """What the checks said of each fault in its first seed, and what the audits did not see."""
        unseen = [name for name in self.faults if not any(t.rejected_by for t in self.of(name))]
        return [
            *(
                f"{name}: {check}: {words}"
                for name in self.faults
                for check, words in self.of(name)[0].checks.items()
                if words
            ),
            *([f"seen by no audit: {', '.join(unseen)}"] if unseen else []),
        ]

    def _verdict(self) -> list[str]:
        seeds = len(self.of(CORRECT.name))
        lines = [f"MISSED {name}" for name in self.missed]
        lines += [f"FALSE ALARM {why}" for why in self.wrong_alarms]
        if not self.power:
            lines.append(f"NO POWER the control is rejected in {self.control_rejected} of {seeds}")
        if self.passed:
            alarms = sum(bool(trial.rejected_by) for trial in self.of(CORRECT.name))
            lines.append(
                f"passed: every fault was caught in each of {seeds} seeds, the audits rejected the "
                f"control in {self.control_rejected} and the correct training in {alarms} "
                f"(at most {self.most_alarms} by chance)"
            )
        return lines
