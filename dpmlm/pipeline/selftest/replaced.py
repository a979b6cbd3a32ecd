"""`replaced`: a piece of the trainer exchanged for another while a context is entered."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def replaced(module: ModuleType, **pieces: Any) -> Iterator[None]:
    """Inside, these names of `module` are bound to these values; AttributeError for a name that
    is not there, as it would replace nothing."""
    found = {name: getattr(module, name) for name in pieces}
    try:
        for name, value in pieces.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in found.items():
            setattr(module, name, value)
