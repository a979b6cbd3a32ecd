"""YAML as a run file may use it: mappings, lists and scalars, nothing that expands or hides.

Safe loading keeps code out. Beyond that an anchor or a merge key can stand for gigabytes, a key
given twice silently loses its first value, and a NUL or half a surrogate pair breaks whatever
opens the path it stands in: none of them is accepted.
"""

from pathlib import Path
from typing import Any

import yaml

MAX_CHARACTERS = 1 << 20
"""A run file is a page of text; one of megabytes is something else."""
_DIGITS = 100
"""Of a number: no double is larger, and Python refuses to spell integers of thousands of digits."""


class NotPlain(Exception):
    """The text is not plain YAML; the message is the rule it breaks."""

    def __init__(self, rule: str, line: int | None = None) -> None:
        super().__init__(rule)
        self.rule = rule
        self.line = line
        """Where, from 1; None if that is unknown."""


def read_plain(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        NotPlain: not YAML, too long, nested too deep, anchors, tags, merge keys, a key given twice,
            a value out of any range, or a string that no file name can hold.
    """
    if len(text) > MAX_CHARACTERS:
        raise NotPlain(f"it is longer than {MAX_CHARACTERS} characters")
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise NotPlain("this is not valid YAML", mark.line + 1 if mark else None) from None
    except RecursionError:
        raise NotPlain("it is nested too deep") from None
    except (ValueError, OverflowError):
        raise NotPlain("a date or number in it cannot be read") from None


def read_start(path: Path) -> bytes:
    """A file's bytes, or of a longer one enough for `read_plain` to refuse it."""
    with open(path, "rb") as file:
        return file.read(4 * MAX_CHARACTERS + 1)


def shortened(value: object) -> str:
    """A value as a message shows it, 80 characters at most."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            raise NotPlain("anchors and aliases are not used here", event.start_mark.line + 1)
        if getattr(event, "tag", None) is not None:  # PyYAML trips over `!!bool x`
            raise NotPlain("tags are not used here", event.start_mark.line + 1)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                raise NotPlain("merge keys are not used here", line)
            if isinstance(key.value, str) and key.value in seen:
                raise NotPlain(f"key {key.value!r} is given twice", line)
            if isinstance(key.value, str):
                seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):  # 1 and 0x1, yes and true
            raise NotPlain("a key is given twice, in two spellings", node.start_mark.line + 1)
        return mapping

    def construct_scalar(self, node: Any) -> Any:
        if len(node.value) > _DIGITS and node.tag in _NUMBERS:
            raise NotPlain("a number in it is too long to be read", node.start_mark.line + 1)
        value = super().construct_scalar(node)
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise NotPlain("a string holds a NUL or half a character", node.start_mark.line + 1)
        return value
