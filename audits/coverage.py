"""Every attack that an audit knows, RUN or NOT RUN, so that silence is never taken for a test.

The kinds are those that EDPB Opinion 28/2024 names. What an attack could have found stands beside
it, since "nothing found" is worth as much as what might have been.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KnownAttack:
    """One way to get at the training text."""

    name: str
    """In the field's terms."""
    kind: str
    """Of the opinion's list: membership, attribute inference, exfiltration, regurgitation,
    inversion, reconstruction."""
    evidence: str
    """Path of its result in the evidence; empty where there is no such attack."""
    could_find: str
    """What a leak would have looked like."""
    needs: str
    """The input without which it is not run: a name that `attacks` is given, or "never"."""
    reason: str
    """Why it was not run, where it was not."""


ATTACKS = (
    KnownAttack(
        "membership of planted secrets, by the plan's own trade-off curve (gating test)",
        "membership",
        "subjects.target.gating",
        "more right guesses than a training that keeps the claim allows",
        "canaries",
        "no canaries were planted",
    ),
    KnownAttack(
        "exposure of planted secrets",
        "reconstruction",
        "subjects.target.exposure",
        "secrets that rank higher among all that might have been than the claim allows",
        "canaries",
        "no canaries were planted",
    ),
    KnownAttack(
        "extraction of planted secrets",
        "regurgitation",
        "subjects.target.canary_extraction",
        "a random secret said in full",
        "canaries",
        "no canaries were planted",
    ),
    KnownAttack(
        "exploratory canaries: other families, insertion counts and arms",
        "reconstruction",
        "groups",
        "kinds of secrets, or numbers of insertions, from which a model takes secrets up",
        "groups",
        "no exploratory groups were planted",
    ),
    KnownAttack(
        "white-box gradient canaries",
        "membership",
        "gradients",
        "less noise, or larger steps, than planned in the sums that training added up",
        "gradients",
        "no gradient canaries were planted, so no transcript of noised sums was kept",
    ),
    KnownAttack(
        "membership inference on records and persons (calibrated loss, LiRA-offline, RMIA)",
        "membership",
        "membership",
        "records that are told from held-out ones better than their text alone allows",
        "membership",
        "no records of members and of units held out at random were given",
    ),
    KnownAttack(
        "verbatim extraction of training spans (greedy, confidence first, beam, Gibbs, sampling)",
        "regurgitation",
        "verbatim",
        "spans of training text said token for token, where a model that never read them does not",
        "verbatim",
        "no spans were given, or no model that never read them",
    ),
    KnownAttack(
        "games about identifiers: extractable, reconstructable, inferable",
        "reconstruction",
        "identifiers",
        "identifiers of people in the text, made up, filled in or picked out of candidates",
        "identifiers",
        "no identifiers were given, or no model that never read them",
    ),
    KnownAttack(
        "several independent trainings",
        "membership",
        "",
        "a declared canary that is guessed right in more trainings than the claim allows",
        "never",
        "one training was audited; `python -m audits.runs` takes the models of several",
    ),
    KnownAttack(
        "attribute inference",
        "attribute inference",
        "",
        "an attribute of a person, from the rest of their record",
        "never",
        "no attribute labels were declared",
    ),
    KnownAttack(
        "model inversion and reconstruction from weights",
        "inversion",
        "",
        "training text, from gradients or weights alone",
        "never",
        "no such attack is implemented",
    ),
    KnownAttack(
        "exfiltration through the serving side",
        "exfiltration",
        "",
        "text or weights, by way of a deployment",
        "never",
        "the audit reads a model, not a deployment",
    ),
)


def attacks(
    *, canaries: bool, control: bool, groups: Sequence[str], cases: Collection[str]
) -> list[dict[str, Any]]:
    """Every attack with its status, in a fixed order; a non-private control counts as one."""
    given = {"canaries": canaries, "groups": bool(groups), **dict.fromkeys(cases, True)}
    listed = [
        KnownAttack(
            "the same tests on a non-private control",
            "membership",
            "subjects.control",
            "that the tests miss a model which does leak",
            "control",
            "no control model was given",
        ),
        *ATTACKS,
    ]
    given["control"] = control and canaries
    return [_row(attack, given.get(attack.needs, False)) for attack in listed]


def _row(attack: KnownAttack, run: bool) -> dict[str, Any]:
    row = {"attack": attack.name, "kind": attack.kind, "status": "RUN" if run else "NOT RUN"}
    if run:
        return row | {"evidence": attack.evidence, "could_find": attack.could_find}
    return row | {"reason": attack.reason, "could_find": attack.could_find}
