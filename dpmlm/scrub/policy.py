"""What to look for, how sure to be, and what to put in its place: a policy file."""

import difflib
from functools import cached_property
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from dpmlm.canonical import digest
from dpmlm.config import NotPlain, read_plain, read_start
from dpmlm.errors import UserError
from dpmlm.scrub.operators.generalised import GENERALISED
from dpmlm.scrub.operators.surrogates import SURROGATES

MODEL_PARTS = ("first", "second")
"""The pipelines of the shipped name finder, folders of `dpmlm/scrub/model`."""

Operator = Literal["placeholder", "redact", "pseudonym", "surrogate", "generalise", "keep"]
KEYED: frozenset[Operator] = frozenset({"pseudonym", "surrogate"})
"""Operators that need a secret key."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Strict):
    """How one kind of entity is treated."""

    entity: str = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    """Presidio's name of the entity, such as PERSON or US_SSN."""
    operator: Operator
    """`placeholder`: <PERSON>; `redact`: one block sign; `pseudonym`: a keyed token; `surrogate`:
    something else of the same kind, keyed; `generalise`: a date's year, 90+ for an age, three
    digits of a post code; `keep`."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Findings with a score below it are left alone, 0 to 1."""
    why: str = Field(min_length=1)
    """The reason, for whoever reviews the policy."""

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        if self.operator == "surrogate" and self.entity not in SURROGATES:
            raise ValueError(f"there is no surrogate for {self.entity}; take a placeholder")
        if self.operator == "generalise" and self.entity not in GENERALISED:
            raise ValueError(
                f"there is nothing more general than {self.entity}; take a placeholder"
            )
        return self


class OtherRule(_Strict):
    """How entities without a rule of their own are treated."""

    operator: Operator
    """As in `Rule`."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """As in `Rule`."""
    why: str = Field(min_length=1)
    """The reason."""


class Remote(_Strict):
    """A recognizer of presidio_analyzer that the policy names by its class.

    The class is imported and run: it may be one of Presidio's remote recognizers (Azure AI
    Language, Azure Health de-identification, language models) or one's own. Text leaves the
    machine where it sends it, in blocks of up to 3,000 characters, and its answers may change from
    run to run without a trace in the policy's digest.
    """

    recognizer: str = Field(pattern=r"^[\w.]+:\w+$")
    """Import path of the class: package.module:ClassName."""
    arguments: dict[str, JsonValue] = {}
    """What it is built from, by the names of its parameters."""
    environment: dict[str, str] = {}
    """Further arguments, such as keys, and the environment variables that hold their values."""


class Engine(_Strict):
    """What finds the entities."""

    mode: Literal["best", "fast"] = "best"
    """`best`: what any of the two shipped name finders marks; `fast`: the first one alone, in about
    half the time, with more names missed."""
    spacy: str | None = None
    """Name or folder of another spaCy pipeline (transformers ones too); null: the shipped one."""
    token_classifier: str | None = None
    """Folder or hub name of a Hugging Face token classifier that looks beside the pipeline."""
    labels: dict[str, str] = {}
    """Its labels, without B- and I-, and the entities they stand for; empty: Presidio's own list,
    in which PER is PERSON."""
    remote: tuple[Remote, ...] = ()
    """Further recognizers, which may send text to another machine."""
    countries: tuple[str, ...] | None = None
    """Two-letter codes whose national recognizers run; null: all that Presidio has for English."""
    propagate_names: bool = True
    """Find a person who was found once everywhere else in the same document."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders of the shipped pipelines that are used."""
        return MODEL_PARTS if self.mode == "best" else MODEL_PARTS[:1]


class Identifier(_Strict):
    """A row of a legal list: which entities cover it, and what no rule here can see."""

    number: int = Field(ge=1)
    """Its place in the list."""
    identifier: str
    """What the law names."""
    found_by: tuple[str, ...]
    """Entities that cover it; empty where none does."""
    out_of_reach: str
    """What is not found, and who has to look after it."""


class ScrubPolicy(_Strict):
    """A scrub policy. Every field but the name of the policy changes what is replaced."""

    name: str
    """How reports name it."""
    description: str
    """What it is for, in a sentence or two."""
    engine: Engine = Engine()
    """What finds the entities."""
    other: OtherRule
    """For entities without a rule."""
    rules: tuple[Rule, ...]
    """One rule an entity."""
    identifiers: tuple[Identifier, ...] = ()
    """The legal list that the policy answers to, if any."""

    @field_validator("rules")
    @classmethod
    def _one_rule_an_entity(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        names = [rule.entity for rule in rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"more than one rule for {', '.join(twice)}")
        return rules

    @cached_property
    def _by_entity(self) -> dict[str, Rule]:
        return {rule.entity: rule for rule in self.rules}

    def rule_for(self, entity: str) -> Rule | OtherRule:
        """The rule that decides over `entity`."""
        return self._by_entity.get(entity, self.other)

    @cached_property
    def digest(self) -> str:
        """Digest of all that decides what is replaced: this policy, the shipped name finder, and
        the files of models in folders that it names."""
        weights = {}
        named = {"spacy": self.engine.spacy, "token_classifier": self.engine.token_classifier}
        for field, name in named.items():
            if name is not None:
                weights[field] = _model_digest(name)
        if self.engine.spacy is None:
            model = resources.files("dpmlm.scrub") / "model"
            for part in self.engine.parts:
                weights[part] = digest((model / part / "ner" / "model").read_bytes())
        return digest({"policy": self.model_dump(mode="json"), "weights": weights})

    @property
    def needs_key(self) -> bool:
        """Whether any rule makes keyed pseudonyms or surrogates."""
        rules: list[Rule | OtherRule] = [*self.rules, self.other]
        return any(rule.operator in KEYED for rule in rules)


def _model_digest(name: str) -> str | None:
    """Of a folder its files, of an installed package its version; nothing of a hub name."""
    if Path(name).is_dir():
        return _folder_digest(Path(name))
    try:
        return version(name)
    except (PackageNotFoundError, ValueError):
        return None


def _folder_digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = [[str(path.relative_to(folder)), digest(path.read_bytes())] for path in files]
    return digest(found)


def load_policy(name_or_path: str | Path) -> ScrubPolicy:
    """Read a shipped policy by name, or a file by path.

    Raises UserError for an unknown name, a file that is not YAML, or an unknown or wrong field.
    """
    text = _read(name_or_path)
    try:
        data = read_plain(text)
    except NotPlain as error:
        line = f", line {error.line}" if error.line else ""
        raise UserError(f"scrub policy {name_or_path}{line}", error.rule, "mend it") from None
    try:
        return ScrubPolicy.model_validate(data)
    except ValidationError as error:
        # An unknown field explains the missing one beside it, so it is told first.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(
            f"{name_or_path}: {where}", first["msg"], _next_step(first["loc"])
        ) from None


def shipped_policies() -> list[str]:
    """Names of the policies that come with the package."""
    folder = resources.files("policies") / "scrub"
    return sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".yaml"))


def _read(name_or_path: str | Path) -> str:
    path = Path(name_or_path)
    shipped = resources.files("policies") / "scrub" / f"{name_or_path}.yaml"
    if path.is_file():
        try:
            return read_start(path).decode()
        except UnicodeDecodeError:
            raise UserError(str(path), "a scrub policy is UTF-8 text", "save it so") from None
    if path.name == str(name_or_path) and shipped.is_file():
        return shipped.read_text(encoding="utf-8")
    raise UserError(
        f"scrub policy {str(name_or_path)!r}",
        "there is no shipped policy and no file of that name",
        f"use one of {', '.join(shipped_policies())} or the path of a YAML file",
    )


def _next_step(where: tuple[int | str, ...]) -> str:
    """The nearest known field of the model that the error stands in."""
    part: dict[str, type[_Strict]] = {
        "rules": Rule,
        "other": OtherRule,
        "engine": Engine,
        "identifiers": Identifier,
    }
    model = part.get(str(where[0]), ScrubPolicy) if len(where) > 1 else ScrubPolicy
    known = list(model.model_fields)
    if where and where[-1] not in known:
        near = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0)
        return f"the nearest known field is {near[0]}"
    return "mend its value"
