"""A person as whoever asks names them: read from where nobody looks, and never repeated."""

import sys
from pathlib import Path

from dpmlm.errors import UserError

LONGEST = 4096
"""Characters of a name or a number."""
_MOST_BYTES = 4 * LONGEST + 1024


def read_person(file: str | None, person: str | None) -> str:
    """The person in a file, on standard input for "-", or else as given.

    Raises UserError for none or two of them, for text that is no UTF-8, and for a person that is
    blank, of several lines or longer than `LONGEST`; no message holds any of it.
    """
    if (file is None) == (person is None):
        raise UserError(
            "--person-file and --person",
            "one of them says who it is about",
            "give --person-file FILE, or - for standard input",
        )
    return _checked(person if person is not None else _text(str(file)))


def _text(file: str) -> str:
    if file == "-":
        data = sys.stdin.buffer.read(_MOST_BYTES)
    else:
        with Path(file).open("rb") as stream:
            data = stream.read(_MOST_BYTES)
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass  # not from within: that exception holds the bytes, and a traceback would show them
    # A file that was cut at the limit may end inside a letter; it is too long in any case.
    if len(data) == _MOST_BYTES:
        return data.decode(errors="replace")
    raise UserError(f"--person-file {file}", "it is not UTF-8 text", "save it as UTF-8")


def _checked(given: str) -> str:
    name = given.removeprefix("\ufeff").strip()
    rule = None
    if not name:
        rule = "it is blank, and a person has a name or a number"
    elif len(name) > LONGEST:
        rule = f"it is longer than {LONGEST} characters"
    elif "\n" in name:
        rule = "it holds several lines, and one person is asked for at a time"
    elif any("\ud800" <= letter <= "\udfff" for letter in name):
        rule = "it is not UTF-8 text"
    if rule:
        raise UserError("the person that was given", rule, "give one person, as the corpus does")
    return name
