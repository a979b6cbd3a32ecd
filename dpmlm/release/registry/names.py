"""Names of models and aliases: they become folders and tags, so they are plain."""

import re
from dataclasses import dataclass

from dpmlm.errors import UserError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_RESERVED = re.compile(r"latest|v[0-9]+")
"""MLflow gives these a meaning of its own."""
_SHOWN = 40
"""Characters of a refused name in a message."""


@dataclass(frozen=True)
class Reference:
    """`NAME@ALIAS` or `NAME@NUMBER`."""

    name: str
    alias: str | None
    number: int | None
    """One of the two is None."""


def check_name(name: str) -> str:
    """`name`; UserError unless it may name a model."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"model name {ascii(name)[:_SHOWN]}",
            "it is 1 to 64 of a-z, 0-9, - and _, the first a letter or digit",
            "choose such a name",
        )
    return name


def check_alias(alias: str) -> str:
    """`alias`; UserError unless it may name a place in a registry."""
    if not _ALIAS.fullmatch(alias) or _RESERVED.fullmatch(alias):
        raise UserError(
            f"alias {ascii(alias)[:_SHOWN]}",
            "it is 1 to 64 of a-z, 0-9, - and _, the first a letter, and neither latest nor v1",
            "choose such a name, champion say",
        )
    return alias


def parse_reference(text: str) -> Reference:
    """What `text` refers to; UserError if it is no reference."""
    name, at, rest = text.partition("@")
    if not at:
        raise UserError(
            f"{ascii(text)[:_SHOWN]}", "a version is named NAME@ALIAS or NAME@NUMBER", "name one"
        )
    check_name(name)
    if rest.isascii() and rest.isdigit() and len(rest) < 10:
        return Reference(name, None, int(rest))
    return Reference(name, check_alias(rest), None)
