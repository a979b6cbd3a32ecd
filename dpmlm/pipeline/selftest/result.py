"""`SelfTest`: which audit or check caught which fault, and whether that is enough."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

from audits.statistics import clopper_pearson
from dpmlm.pipeline.selftest.faults import CORRECT, FAULTS
from dpmlm.release.facts import spelled

SCHEMA = "dpmlm.selftest/1"
CONTROL = "control"
BLACK_BOX, WHITE_BOX, CODE = "black-box audit", "white-box audit", "check of the code"
AUDITS = (BLACK_BOX, WHITE_BOX)
"""They judge a finished training, each with an error budget of its own."""
KINDS = (*AUDITS, CODE)
"""Who may catch a fault."""
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
    found: dict[str, dict[str, str]]
    """Of `KINDS`: the tests or checks that caught it, with what they saw in words. The control has
    neither gradient canaries nor checks."""
    p_values: dict[str, dict[str, float | None]]
    """Of `AUDITS`: every test; None where one could not be run."""
    untrained_rejected_by: tuple[str, ...]
    """Tests that rejected the claim of the model before training: broken ones."""
    right: int | None
    """Membership guesses of the black-box audit that were right."""
    guesses: int | None
    seconds: float = 0.0
    """Of one core."""

    @property
    def caught(self) -> bool:
        """Whether an audit or a check saw something."""
        return any(self.found.values())


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
    def counted(self) -> list[str]:
        """Faults that multiply epsilon by `FACTOR` or more."""
        return [
            name
            for name in self.faults
            if any(trial.kept >= FACTOR * trial.claimed for trial in self.of(name))
        ]

    @property
    def missed(self) -> list[str]:
        """Of those counted, the ones that were overlooked in some seed."""
        return [
            name
            for name in self.faults
            if name in self.counted and not all(trial.caught for trial in self.of(name))
        ]

    @property
    def most_alarms(self) -> int:
        """Seeds in which an audit may accuse a correct training, at `beta` a seed, before chance is
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
            f"seed {trial.seed}: {check}: {words}"
            for trial in correct
            for check, words in trial.found[CODE].items()
        ]
        accused = {
            f"the {audit} accuses the correct training": self._seeds_caught(CORRECT.name, audit)
            for audit in AUDITS
        }
        untrained = sum(bool(trial.untrained_rejected_by) for trial in correct)
        accused[f"the {BLACK_BOX} accuses the untrained model"] = untrained
        for who, alarms in accused.items():
            if alarms > self.most_alarms:
                found.append(f"{who} in {alarms} seeds, {self.most_alarms} are chance")
        values = [p for trial in correct for tests in trial.p_values.values()
                  for p in tests.values() if p is not None]  # fmt: skip
        if values and min(values) < (1 - CONFIDENCE) / len(values):
            found.append(f"an audit rejects the correct training with p {min(values):.1e}")
        return found

    @property
    def control_rejected(self) -> int:
        """Seeds in which the black-box audit rejected the control."""
        return self._seeds_caught(CONTROL, BLACK_BOX)

    @property
    def power(self) -> bool:
        """Whether the audits reject the control in enough seeds for their silence to count."""
        return self.control_rejected >= SHARE * len(self.of(CONTROL))

    @property
    def passed(self) -> bool:
        """No fault missed, the correct training not accused, the control rejected: exit status
        0."""
        return not self.missed and not self.wrong_alarms and self.power

    def to_json(self) -> dict[str, Any]:
        """As `dpmlm.selftest/1`."""
        value: dict[str, Any] = spelled(
            {
                "schema": SCHEMA,
                "passed": self.passed,
                "beta": self.beta,
                "seeds": sorted({trial.seed for trial in self.trials}),
                "counted": self.counted,
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
            untrained = {"untrained_rejected_by": tuple(entry["untrained_rejected_by"])}
            trials.append(Trial(**(entry | numbers | untrained)))
        return cls(trials, value["beta"])

    def text(self) -> str:
        """For a terminal: a row a training with who caught it, what was seen, and a summary."""
        rows = [["", "epsilon kept", "caught", *KINDS]]
        for name in self._names:
            trials = self.of(name)
            caught = f"{sum(trial.caught for trial in trials)} of {len(trials)}"
            rows.append([name, self._kept(name), caught, *(self._who(name, k) for k in KINDS)])
        widths = [max(map(len, column)) for column in zip(*rows)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
                 for row in rows]  # fmt: skip
        seeds = len({trial.seed for trial in self.trials})
        claim = f"every plan claims epsilon {self.trials[0].claimed:g} for a person; seeds: {seeds}"
        return "\n".join([claim, "", *table, "", *self._words(), "", *self._verdict()])

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(trial.name for trial in self.trials))

    def _seeds_caught(self, name: str, kind: str) -> int:
        """Seeds in which this kind caught it."""
        return sum(bool(trial.found[kind]) for trial in self.of(name))

    def _by(self, name: str, kind: str) -> dict[str, int]:
        """Seeds in which each test or check of a kind caught it."""
        trials = self.of(name)
        names = dict.fromkeys(by for trial in trials for by in trial.found[kind])
        return {by: sum(by in trial.found[kind] for trial in trials) for by in names}

    def _counts(self, name: str) -> dict[str, Any]:
        trials = self.of(name)
        caught = sum(trial.caught for trial in trials)
        interval = list(clopper_pearson(caught, len(trials)))
        by = {kind: self._by(name, kind) for kind in KINDS}
        return {"seeds": len(trials), "caught": caught, "interval": interval, "by": by}

    def _who(self, name: str, kind: str) -> str:
        """Who of a kind caught it, and in how many seeds where not in all."""
        seeds = len(self.of(name))
        found = [by if count == seeds else f"{by} ({count})"
                 for by, count in self._by(name, kind).items()]  # fmt: skip
        return ", ".join(found) or "-"

    def _kept(self, name: str) -> str:
        kept = max(trial.kept for trial in self.of(name))
        return "none" if math.isinf(kept) else f"{kept:.1f}"

    def _words(self) -> list[str]:
        """What was planted, and what was seen of it in its first seed."""
        planted = {fault.name: fault.words for fault in FAULTS}
        lines = []
        for name in self.faults:
            lines.append(f"{name}: {planted[name]}")
            first = self.of(name)[0].found
            lines += [f"    {kind}: {by}: {words}" for kind in KINDS
                      for by, words in first[kind].items()]  # fmt: skip
        return lines

    def _verdict(self) -> list[str]:
        seeds = len(self.of(CORRECT.name))
        lines = [f"MISSED {name}" for name in self.missed]
        lines += [f"FALSE ALARM {why}" for why in self.wrong_alarms]
        if not self.power:
            lines.append(
                f"NO POWER the control is rejected in {self.control_rejected} of {seeds} seeds"
            )
        return [*lines, self._summary()]

    def _summary(self) -> str:
        caught = len(self.counted) - len(self.missed)
        alarms = " and ".join(f"the {a} in {self._seeds_caught(CORRECT.name, a)}" for a in AUDITS)
        told = (
            f"{'passed' if self.passed else 'FAILED'}: of {len(self.counted)} planted faults that "
            f"multiply epsilon by {FACTOR:g} or more, {caught} were caught in every seed; "
            f"the correct training was accused by {alarms} "
            f"({self.most_alarms} are chance), the control by the {BLACK_BOX} in "
            f"{self.control_rejected}"
        )
        below = [name for name in self.faults if name not in self.counted]
        return f"{told}; not counted, as they cost less: {', '.join(below)}" if below else told
