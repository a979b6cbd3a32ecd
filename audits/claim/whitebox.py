"""White-box gradient canaries: what the noised sums themselves say about who was in them.

Each canary is a unit whose clipped gradient is a known direction, included by a fair coin. The
trainer seals what every step's noised sum says along each direction, x, in units of the clipping
norm; the coins stay apart. Under the plan x of a canary that is in is N(1, sigma^2) where it was
drawn, at rate q, and N(0, sigma^2) elsewhere.

What may be concluded. The transcript follows from the noised sums, which is what the plan bounds,
and the coins are independent of the text: a rejection contradicts the claim, whatever the text
was. But the transcript is **not released**. Its bound is about somebody who sees every noised sum
and plants directions; whoever holds the weights alone sees less, so that a large bound within the
claim tells nothing against the release, and a small one is no certificate. Canaries join the sum
after text is clipped: sampling, noise and accounting are tested, the clipping of text is not.
"""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from audits.claim.gating import (
    Guesses,
    TradeOffCurve,
    check_plan,
    gating_test,
    membership_guesses,
    needed_guesses,
    trade_off_curve,
)
from audits.claim.power import DEFAULT_SHARE, best_guesses, smallest_caught
from audits.statistics import clopper_pearson, fdp_one_run_epsilon, holm, one_run_epsilon
from dpmlm.artifacts import IntegrityError, SealedFolder, UserError, digest

SCHEMA = "dpmlm.gradient-canaries/1"
TESTS = ("gating", "noise", "drawn")
"""The tests that share the error budget of this part."""
COMMITMENT = "gradient_canary_commitment"
"""Name of the commitment among a plan's bindings."""
_FILE, _SUMS = "gradient_canaries", "gradient_projections"


@dataclass(frozen=True)
class GradientCanarySet:
    """The coins of one run and the seed of its directions, drawn before training."""

    nonce: str
    """64 hex digits that hide the coins behind the commitment."""
    seed: str
    """64 hex digits from which the trainer makes the directions."""
    included: tuple[bool, ...]
    """The fair coin of each canary."""

    @property
    def commitment(self) -> str:
        """`sha256:...` over nonce, seed and coins in canonical JSON."""
        return digest(self._content())

    @property
    def members(self) -> tuple[int, ...]:
        """Numbers of the canaries that go into training."""
        return tuple(number for number, coin in enumerate(self.included) if coin)

    def public(self) -> dict[str, Any]:
        """What may be published before training: count and commitment, no coin, no direction."""
        count = len(self.included)
        return {"schema": SCHEMA, "canaries": count, "commitment": self.commitment}

    def to_json(self) -> dict[str, Any]:
        """The whole set with its commitment; holds every coin."""
        return {**self._content(), "commitment": self.commitment}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "GradientCanarySet":
        """Rebuild a set. Raises IntegrityError when it does not open its own commitment."""
        try:
            coins = tuple(bool(coin) for coin in value["included"])
            result = cls(nonce=str(value["nonce"]), seed=str(value["seed"]), included=coins)
            sound = value["schema"] == SCHEMA and len(bytes.fromhex(result.seed)) == 32
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise UserError(
                "a file of gradient canaries with a missing or malformed field",
                f"this version reads {SCHEMA}",
                "pass the file that the run wrote",
            )
        if result.commitment != value.get("commitment"):
            raise IntegrityError(
                f"gradient canaries committed to as {value.get('commitment')}",
                "their content hashes to another value: a coin or the seed was changed",
                "use the file that was committed before training",
            )
        return result

    def write(self, folder: SealedFolder) -> None:
        """Seal the set into `folder`."""
        folder.write_json(_FILE, self.to_json())

    @classmethod
    def read(cls, folder: SealedFolder) -> "GradientCanarySet | None":
        """The set that `write` sealed; None in the folder of a run without one."""
        return cls.from_json(folder.read_json(_FILE)) if folder.has(_FILE) else None

    def _content(self) -> dict[str, Any]:
        coins = [int(coin) for coin in self.included]
        return {"schema": SCHEMA, "nonce": self.nonce, "seed": self.seed, "included": coins}


def plan_gradient_canaries(count: int, *, secret: bytes | None = None) -> GradientCanarySet:
    """Draw `count` coins and the seed of the directions, before training.

    All follows from `secret` (32 bytes of the operating system by default).
    """
    secret = os.urandom(32) if secret is None else secret
    drawn = hashlib.shake_256(b"dpmlm gradient canaries\0" + secret).digest(64 + count)
    coins = tuple(bool(byte & 1) for byte in drawn[64:])
    return GradientCanarySet(nonce=drawn[:32].hex(), seed=drawn[32:64].hex(), included=coins)


@dataclass(frozen=True)
class Transcript:
    """What the noised sum of every committed step says along each direction. Private: sealed to
    the auditor."""

    projections: np.ndarray
    """float32 [steps, canaries], in units of the clipping norm."""
    plan_digest: str
    """Of the plan that was trained under."""
    commitment: str
    """Of the canaries whose directions these are."""

    def write(self, folder: SealedFolder) -> None:
        """Seal it into `folder`."""
        facts = {"plan": self.plan_digest, "commitment": self.commitment}
        shape = list(self.projections.shape)
        folder.write_json(f"{_SUMS}.json", {"schema": SCHEMA, "shape": shape, **facts})
        folder.write_bytes(_SUMS, self.projections.astype("<f4").tobytes())

    @classmethod
    def read(cls, folder: SealedFolder) -> "Transcript":
        """What `write` sealed. Raises IntegrityError where rows are missing."""
        facts = folder.read_json(f"{_SUMS}.json")
        numbers = np.frombuffer(folder.read_bytes(_SUMS), dtype="<f4")
        if len(numbers) != math.prod(facts["shape"]):
            raise IntegrityError(
                f"a transcript of {len(numbers)} numbers",
                f"{facts['shape']} of steps and canaries were written",
                "use the transcript that the training wrote",
            )
        return cls(numbers.reshape(facts["shape"]), facts["plan"], facts["commitment"])


def score(transcript: Transcript, plan: Mapping[str, Any]) -> np.ndarray:
    """float64 [canaries]: log-likelihood ratio of IN against OUT, summed over the steps.

    Of one step log(1 - q + q exp((x - 1/2) / sigma^2)), the ratio of
    (1 - q) N(0, sigma^2) + q N(1, sigma^2) to N(0, sigma^2). Raises UserError for a plan under
    which x is not distributed so, or of another number of steps.
    """
    rates = _rates(plan)
    x = np.asarray(transcript.projections, dtype=np.float64)
    if len(x) != len(rates):
        raise UserError(
            f"a transcript of {len(x)} steps",
            f"the plan has {len(rates)}",
            "pass transcript and plan of one run",
        )
    drawn = np.log(rates)[:, None] + (x - 0.5) / float(plan["noise_multiplier"]) ** 2
    with np.errstate(divide="ignore"):  # log 0 at rate 1
        return np.asarray(np.logaddexp(np.log1p(-rates)[:, None], drawn).sum(axis=0))


def judge_whitebox(
    canaries: GradientCanarySet,
    transcript: Transcript,
    plan: Mapping[str, Any],
    *,
    beta: float = 0.05,
) -> dict[str, Any]:
    """Try to contradict the claim of `plan` by a transcript; a JSON-able part, labelled private.

    Three tests share `beta` by Holm: `gating`, whether so many right guesses are possible under
    the plan's own curve; `noise`, whether held-out projections vary less than its noise; `drawn`,
    whether included ones show more of their direction than rate and clipping norm allow. The
    lower bounds, each with its ceiling, stand outside that budget and decide nothing.

    Both numbers of guesses follow from the plan and the number of canaries. The gating test's a
    side are those of `best_guesses`. The bounds take `DEFAULT_SHARE` a side: at epsilon 8 the test
    can never reject by so few, and by its own 30 % the f-DP bound of ideal canaries falls from 2.8
    to 2.2. Raises UserError as `score`, IntegrityError where plan, canaries and transcript are not
    of one run.
    """
    check_plan(plan)
    if math.isinf(float(plan["epsilon"])) or plan["noise_multiplier"] == 0:
        return _not_run("the plan promises nothing (epsilon inf), so there is no claim to test")
    _check_one_run(canaries, transcript, plan)
    coins, x = np.array(canaries.included), transcript.projections
    if len(coins) < 2 or coins.all() or not coins.any():
        return _not_run(f"{len(coins)} gradient canaries: one in and one out are needed at least")
    if not np.isfinite(x).all():
        return _not_run("a noised sum was not finite, so that nothing can be scored")
    share, level = max(1, int(DEFAULT_SHARE * len(coins))), beta / len(TESTS)
    scores, curve = score(transcript, plan), trade_off_curve(plan)
    side = best_guesses(plan, len(coins), curve, level) or share
    guesses, few = (membership_guesses(scores, coins, count) for count in (side, share))
    parts = {
        "gating": _gating(guesses, plan, curve, beta),
        "noise": _noise(x[:, ~coins], plan),
        "drawn": _drawn(x[:, coins], x[:, ~coins], plan),
    }
    rejected = holm({name: part["p_value"] for name, part in parts.items()}, beta)
    for name, part in parts.items():
        part["rejected"] = name in rejected
    return {
        "label": "private",
        "applicable": True,
        "commitment": canaries.commitment,
        "steps": len(x),
        "canaries": guesses.canaries,
        "included": int(coins.sum()),
        "guesses": guesses.made,
        "correct": guesses.correct,
        "accuracy_interval": list(clopper_pearson(guesses.correct, guesses.made)),
        "beta": beta,
        **parts,
        "lower_bound": _lower_bound(few, plan, beta),
        "rejected_by": sorted(rejected),
    }


def _not_run(reason: str) -> dict[str, Any]:
    return {"label": "private", "applicable": False, "reason": reason, "rejected_by": []}


def _rates(plan: Mapping[str, Any]) -> np.ndarray:
    """Sampling rate of every step, float64 [steps]."""
    check_plan(plan)
    odd = {
        f"bands {plan.get('bands')}": plan.get("bands", 1) > 1,
        f"max_batch_size {plan.get('max_batch_size')}": plan.get("max_batch_size") is not None,
        "noise_multiplier 0": plan["noise_multiplier"] == 0,
    }
    for given, found in odd.items():
        if found:
            raise UserError(
                f"a transcript under {given}",
                "scores are for units drawn alone at one rate, and noise independent by step",
                "audit such a run by its weights alone",
            )
    whole = [{"steps": plan["steps"], "sample_rate": plan["sample_rate"]}]
    parts: Sequence[Mapping[str, Any]] = plan.get("plateaus") or whole
    return np.repeat([part["sample_rate"] for part in parts], [part["steps"] for part in parts])


def _check_one_run(
    canaries: GradientCanarySet, transcript: Transcript, plan: Mapping[str, Any]
) -> None:
    bound = (plan.get("bindings") or {}).get(COMMITMENT, canaries.commitment)
    sound = (
        canaries.commitment == bound == transcript.commitment
        and plan.get("digest", transcript.plan_digest) == transcript.plan_digest
        and transcript.projections.ndim == 2
        and transcript.projections.shape[1] == len(canaries.included)
    )
    if not sound:
        raise IntegrityError(
            f"gradient canaries with commitment {canaries.commitment}",
            "plan and transcript are of others",
            "pass plan, canaries and transcript of one run",
        )


def _gating(
    guesses: Guesses, plan: Mapping[str, Any], curve: TradeOffCurve, beta: float
) -> dict[str, Any]:
    made, epsilon = guesses.made, float(plan["epsilon"])
    result = gating_test(guesses, curve, beta)
    strict = needed_guesses(guesses.canaries, made, curve, beta / len(TESTS))
    return {
        "needed": result.needed,
        "needed_strict": strict,
        "can_reject": result.needed is not None,
        "smallest_multiple_detected": smallest_caught(
            plan, 1, guesses.canaries, made, strict, epsilon
        ),
        "p_value": result.p_value,
    }


def _noise(out: np.ndarray, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Whether held-out projections [steps, n] vary less than noise of the plan's size.

    x is noise plus what the text adds, given the past a constant: a squared normal about another
    centre is stochastically no smaller, so that the sum of x^2 / sigma^2 is at least chi-squared.
    """
    sigma = float(plan["noise_multiplier"])
    square = float(np.square(out, dtype=np.float64).sum())
    return {
        "expected": sigma,
        "measured": math.sqrt(square / out.size),
        "p_value": float(stats.chi2.cdf(square / sigma**2, out.size)),
    }


def _drawn(inside: np.ndarray, out: np.ndarray, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Whether included projections [steps, n] average more than the sampling rate.

    Each is a coin of rate q, times a norm of at most one, plus what held-out ones show: of mean
    zero, as signs are drawn anew each step. The mean of many is taken as normal.
    """
    rates, n = _rates(plan), inside.shape[1]
    mean, expected = float(inside.mean(dtype=np.float64)), float(rates.mean())
    beside = float(np.square(out, dtype=np.float64).mean())
    variance = (float((rates * (1 - rates)).mean()) + beside) / (len(rates) * n)
    return {
        "expected": expected,
        "measured": mean,
        "p_value": float(stats.norm.sf((mean - expected) / math.sqrt(variance))),
    }


def _lower_bound(guesses: Guesses, plan: Mapping[str, Any], beta: float) -> dict[str, Any]:
    setting: dict[str, Any] = {
        "canaries": guesses.canaries,
        "guesses": guesses.made,
        "delta": float(plan["delta"]),
        "beta": beta,
    }
    return {
        "one_run": one_run_epsilon(correct=guesses.correct, **setting),
        "one_run_ceiling": one_run_epsilon(correct=guesses.made, **setting),
        "fdp_one_run": fdp_one_run_epsilon(correct=guesses.correct, **setting),
        "fdp_one_run_ceiling": fdp_one_run_epsilon(correct=guesses.made, **setting),
        "guesses": guesses.made,
        "correct": guesses.correct,
    }
