"""From a YAML file and `--set` overrides to a `RunConfig`, with errors a person can act on."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from dpmlm.config.plain import NotPlain, read_plain, shortened
from dpmlm.config.run import RunConfig
from dpmlm.errors import UserError

ROOT = "run file"
"""Place of a rule between sections."""


def load_config(path: Path | str, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a run file; `overrides` maps dotted keys to values and wins over the file.

    Paths in the file are relative to the file, paths in overrides to the current folder.

    Raises:
        UserError: no such file, not YAML, an unknown key (with the nearest known one), or a
            value out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"run file {path}",
            "there is no such file",
            "`dpmlm init FOLDER` writes one to start from",
        )
    try:
        tree = read_plain(path.read_text(encoding="utf-8"))
    except NotPlain as error:
        line = f" line {error.line}" if error.line else ""
        raise UserError(f"run file {path}{line}", error.rule, "mend it and run again") from None
    except UnicodeDecodeError:
        raise UserError(f"run file {path}", "it is not UTF-8 text", "save it as UTF-8") from None
    if not isinstance(tree, dict):
        raise UserError(
            f"run file {path}", "a run file is a mapping of sections", "see `dpmlm init --help`"
        )
    for key, value in (overrides or {}).items():
        _put(tree, key, value)
    config = _validate(tree, path, tuple(overrides or ()))
    return _resolve(config, path.parent.resolve(), frozenset(overrides or ()))


def names_run_file(path: Path) -> bool:
    """Whether a path that may be a run, a bundle or a model is a run file, by its ending."""
    return path.suffix.lower() in (".yaml", ".yml")


def parse_overrides(settings: list[str]) -> dict[str, Any]:
    """`["privacy.epsilon=4"]` as a mapping; values are read as YAML."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise UserError(
                f"--set {setting}", "a setting is key=value", "for example --set privacy.epsilon=4"
            )
        try:
            parsed[key.strip()] = read_plain(value)
        except NotPlain as error:
            raise UserError(f"--set {key}", f"of its value: {error.rule}", "quote it") from None
    return parsed


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, leaf = dotted.split(".")
    for section in sections:
        below = tree.get(section)
        if not isinstance(below, dict):
            below = tree[section] = {}
        tree = below
    tree[leaf] = value


def _validate(tree: dict[str, Any], path: Path, overridden: Sequence[str]) -> RunConfig:
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or ROOT
        if first["type"] == "extra_forbidden":
            raise _unknown_key(where, path, overridden) from None
        given = first.get("input")
        shown = f" = {shortened(given)}" if isinstance(given, str | int | float | bool) else ""
        rule = first["msg"].removeprefix("Value error, ")
        rule = rule[0].lower() + rule[1:]
        if first["type"] in ("model_type", "model_attributes_type"):
            rule = "it is a section, a mapping of its fields"
        raise UserError(
            _place(where + shown, where, path, overridden),
            rule,
            _advice(where, overridden, missing=first["type"] == "missing"),
        ) from None


def _place(said: str, where: str, path: Path, overridden: Sequence[str]) -> str:
    """Where a person looks for the field `where`: in the file, beside it, or in both."""
    if _set(where, overridden):
        return f"{said}, set beside {path}"
    beside = [key for key in overridden if where == ROOT or _within(key, where)]
    if not beside:
        return f"{path}: {said}"
    with_it = "what is" if where == ROOT else f"{' and '.join(beside)} as"
    return f"{path} with {with_it} set beside it: {said}"


def _advice(where: str, overridden: Sequence[str], *, missing: bool) -> str:
    if not _set(where, overridden):
        return "change that field and run again"
    return "set that field too" if missing else "set another value"


def _set(where: str, overridden: Sequence[str]) -> bool:
    """Whether this field, or what holds it, was set beside the file."""
    return any(_within(where, key) for key in overridden)


def _within(inner: str, outer: str) -> bool:
    return f"{inner}.".startswith(f"{outer}.")


def _unknown_key(where: str, path: Path, overridden: Sequence[str]) -> UserError:
    known = sorted(_known_keys(RunConfig))
    leaf = where.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(where, known, n=1, cutoff=0.6) or [
        key
        for key in known
        if difflib.SequenceMatcher(None, leaf, key.rsplit(".", 1)[-1]).ratio() > 0.7
    ]
    if near:
        next_step = f"did you mean {near[0]}?"
    else:
        section = where.rpartition(".")[0]
        siblings = [key for key in known if key.rpartition(".")[0] == section]
        next_step = f"known there: {', '.join(key.rpartition('.')[2] for key in siblings)}"
    place = _place(where, where, path, overridden)
    return UserError(place, "there is no such key in a run file", next_step)


def _known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        yield key
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _known_keys(kind, key + ".")


def _resolve(config: RunConfig, base: Path, overridden: frozenset[str]) -> RunConfig:
    """Make every path absolute: against the run file, or the current folder if overridden."""

    def visit(section: BaseModel, prefix: str) -> BaseModel:
        changed: dict[str, Any] = {}
        for name, field in type(section).model_fields.items():
            key = prefix + (field.alias or name)
            root = Path.cwd() if key in overridden else base
            value = getattr(section, name)
            if isinstance(value, BaseModel):
                changed[name] = visit(value, key + ".")
            elif isinstance(value, Path):
                changed[name] = _placed(root, value)
            elif isinstance(value, list) and value and isinstance(value[0], Path):
                changed[name] = [_placed(root, item) for item in value]
            elif key in _NAME_OR_PATH and isinstance(value, str) and (root / value).exists():
                changed[name] = str(root / value)
        return section.model_copy(update=changed)

    resolved = visit(config, "")
    assert isinstance(resolved, RunConfig)
    return resolved


def _placed(root: Path, path: Path) -> Path:
    """A key may be kept in a variable or a service instead of a file: `env:NAME`, `kms:ARN`."""
    return path if str(path).startswith(("env:", "kms:")) else root / path


_NAME_OR_PATH = frozenset(
    {"tokens.vocabulary", "model.from", "scrub.policy", "release.policy", "audit.reference"}
)
"""Fields that hold a name, or a path if one is there."""
