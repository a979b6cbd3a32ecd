"""Release policies: which facts must hold before a model's consumers may open it.

A policy is a YAML file. Those under `policies/release` are found by name; any other is a path.
Every key is known or refused, every rule says in plain words what it asks and why.
"""

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from dpmlm.canonical import digest
from dpmlm.config import NotPlain, read_plain, read_start, shortened
from dpmlm.errors import UserError
from dpmlm.release.facts import is_private

COMPARISONS = ("max", "min", "equals", "max_ref", "min_ref", "min_rate")


def _number(value: Any) -> Any:
    # YAML 1.1 reads 1e-5 (no dot) as text and `yes` as a bool; the first is meant, the second not.
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?", value):
        return float(value)
    return value


Threshold = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class At(_Strict):
    """Where a number is meant to be read."""

    delta: Threshold
    """The promise's delta must not be larger, else its epsilon is not comparable; in (0, 1)."""


class Rule(_Strict):
    """One comparison of one fact. A missing fact never passes."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$")]
    """Names the rule in the decision and in other rules' `max_ref`."""
    title: Annotated[str, Field(min_length=1)]
    """The question that the rule answers, in plain words."""
    metric: Annotated[str, Field(pattern=r"^[a-z][A-Za-z0-9_]*(\.[A-Za-z0-9_-]+)*$")]
    """Dotted path into the facts: plan, ledger, audit, training, scrub."""
    why: Annotated[str, Field(min_length=1)]
    """What goes wrong where the rule does not hold."""
    max: Threshold | None = None
    """The metric must be at most this."""
    min: Threshold | None = None
    """The metric must be at least this."""
    equals: Any = None
    """The metric must be this JSON value."""
    max_ref: str | None = None
    """As `max`, against another rule's observed value (by id) or another path."""
    min_ref: str | None = None
    """As `min`, against another rule's observed value (by id) or another path."""
    min_rate: Annotated[float, BeforeValidator(_number), Field(gt=0, lt=1)] | None = None
    """The metric counts `found` out of `of`, and the 95 % interval of that share decides: it must
    begin at this or above; where only its end is, the rule is inconclusive."""
    at: At | None = None
    """Further condition on the promise's delta."""
    unit: Literal["document", "person", "sequence"] | None = None
    """The promise's unit must be this one: epsilons of different units do not compare."""
    on_missing: Literal["inconclusive", "fail"] = "inconclusive"
    """What a missing metric amounts to."""
    on_fail: Literal["fail", "inconclusive"] = "fail"
    """What a metric that does not hold amounts to."""
    waivable: bool = True
    """Whether an approver may excuse it for one model."""

    @model_validator(mode="after")
    def _one_comparison(self) -> Self:
        given = [name for name in COMPARISONS if name in self.model_fields_set]
        if len(given) != 1:
            raise ValueError(
                f"a rule has exactly one of {', '.join(COMPARISONS)}, this one has "
                + (" and ".join(given) or "none")
            )
        if given[0] != "equals" and getattr(self, given[0]) is None:
            raise ValueError(f"{given[0]} has no value")
        return self

    @property
    def private(self) -> bool:
        """Whether it looks at a figure of private text."""
        return is_private(self.metric)

    @property
    def comparison(self) -> str:
        """Which of COMPARISONS the rule uses."""
        return next(name for name in COMPARISONS if name in self.model_fields_set)


class ReleasePolicy(_Strict):
    """What must hold for PASS."""

    policy: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*/v[0-9]+$")]
    """Name and version, such as internal/v1."""
    summary: Annotated[str, Field(min_length=1)]
    """Who may open a model that passes, in plain words."""
    require: Annotated[list[Rule], Field(min_length=1)]
    """Every rule must pass."""
    _text: str = PrivateAttr("")

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        ids = [rule.id for rule in self.require]
        twice = sorted({rule for rule in ids if ids.count(rule) > 1})
        if twice:
            raise ValueError(f"two rules are called {twice[0]}")
        return self

    @model_validator(mode="after")
    def _references_are_public(self) -> Self:
        """A rule's threshold is shown to consumers, so it comes from nothing private."""
        metrics = {rule.id: rule.metric for rule in self.require}
        for rule in self.require:
            reference = rule.max_ref or rule.min_ref
            if reference is not None and is_private(metrics.get(reference, reference)):
                raise ValueError(f"rule {rule.id}: {reference} is private, and a threshold is not")
        return self

    def known(self, rule: str) -> Rule:
        """The rule of that id; UserError with the nearest id if there is none."""
        ids = [one.id for one in self.require]
        if rule in ids:
            return self.require[ids.index(rule)]
        near = difflib.get_close_matches(rule, ids, n=1)
        hint = f"did you mean {near[0]}?" if near else f"its rules: {', '.join(ids)}"
        raise UserError(f"rule {rule}", f"policy {self.policy} has no such rule", hint)

    @property
    def text(self) -> str:
        """The policy file as it was read, comments included."""
        return self._text

    @property
    def digest(self) -> str:
        """Digest of the policy file's bytes."""
        return digest(self._text.encode())


def policy_names() -> list[str]:
    """Names of the shipped policies."""
    folder = resources.files("policies") / "release"
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def load_policy(name_or_path: str | Path) -> ReleasePolicy:
    """A shipped policy by name, or a policy file by path.

    Raises:
        UserError: no such policy, not YAML, an unknown key or a value out of range.
    """
    name = str(name_or_path)
    if name in policy_names():
        shipped = resources.files("policies") / "release" / f"{name}.yaml"
        return parse_policy(shipped.read_bytes(), name=f"release policy {name}")
    path = Path(name_or_path)
    if not path.is_file():
        raise UserError(
            f"release policy {name}",
            f"it is neither a file nor one of {', '.join(policy_names())}",
            "name one of these, or the path of a policy file",
        )
    return parse_policy(read_start(path), name=f"release policy {path}")


def parse_policy(data: bytes, *, name: str) -> ReleasePolicy:
    """Read a policy's bytes; `name` is what errors call it. Raises UserError."""
    try:
        text = data.decode()
        tree = read_plain(text)
    except UnicodeDecodeError:
        raise UserError(name, "it is not UTF-8 text", "save it as UTF-8") from None
    except NotPlain as error:
        line = f" line {error.line}" if error.line else ""
        raise UserError(f"{name}{line}", error.rule, "mend it") from None
    try:
        policy = ReleasePolicy.model_validate(tree)
    except ValidationError as error:
        raise _explained(error, tree, name) from None
    policy._text = text
    return policy


def _explained(error: ValidationError, tree: Any, name: str) -> UserError:
    first = error.errors(include_url=False)[0]
    where = _where(first["loc"], tree)
    if first["type"] == "extra_forbidden":
        model = Rule if "require" in first["loc"] else ReleasePolicy
        near = difflib.get_close_matches(str(first["loc"][-1]), model.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(model.model_fields)}"
        return UserError(f"{name}, {where}", "there is no such key in a release policy", hint)
    given = first.get("input")
    shown = f" = {shortened(given)}" if isinstance(given, str | int | float | bool) else ""
    rule = first["msg"].removeprefix("Value error, ")
    rule = rule[0].lower() + rule[1:]
    return UserError(f"{name}, {where}{shown}", rule, "change that entry")


def _where(loc: tuple[int | str, ...], tree: Any) -> str:
    """`rule dp.epsilon: max` for ("require", 1, "max"), as far as ids can be read."""
    if len(loc) >= 2 and loc[0] == "require" and isinstance(loc[1], int):
        entry = tree["require"][loc[1]]
        label = entry.get("id", f"number {loc[1] + 1}") if isinstance(entry, dict) else loc[1] + 1
        rest = ".".join(str(part) for part in loc[2:])
        return f"rule {label}" + (f": {rest}" if rest else "")
    return ".".join(str(part) for part in loc) or "the whole file"
