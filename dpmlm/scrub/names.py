"""A person who was found once in a document is found everywhere else in it.

The rule: a name of two words or more is looked for in any case; each of its words of three
letters or more, and each one-word name, is looked for as a word with a capital or in capitals;
in lower case only when it stood beside another word or a title, has four letters or more and is
no ordinary English word. A word that the document itself has more often in lower case than with a
capital is no name there. Only sure findings are carried on, so that one doubtful guess is not
repeated all over a document.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from dpmlm.scrub.findings import Finding

RECOGNIZER = "NamePropagation"
SURE = 0.8

BEHIND = frozenset("jr sr md phd esq ii iii iv".split())
"""What stands behind a name and is no part of it."""
_TITLES = """
mr mrs ms miss dr prof professor sir madam lord lady rev fr mx hon judge capt col sgt lt gen
captain colonel sergeant lieutenant officer detective inspector president senator
"""
PARTICLES = frozenset("von van der den de la le el al bin the and of".split())
TITLES = frozenset(_TITLES.split()) | BEHIND
HONORIFICS = PARTICLES | TITLES
_ORDINARY_WORDS = """
will mark bill rose grant may june april august frank jack pat art rich guy dean page young
brown white black green gray grey king bishop knight major price rice banks brook wood woods
hill hills field fields stone rock lake rivers bush ford chase pierce drew miles faith hope
grace joy dawn eve summer autumn ivy daisy lily ruby pearl crystal amber baker cook carpenter
mason miller smith taylor turner walker fisher hunter gardener cooper potter porter carter
parker archer butler clark dyer fuller glover farmer shepherd singer long short small little
good best love loving strong swift sharp wise noble moody sweet christian jean don sue jay gene
ray rob nick josh penny victor earl duke marshal bond case cash church house home street place
park cross bell ball bird fox wolf lamb drake day noon winter snow frost rain gale storm power
powers bacon berry cherry curry chance sterling chuck norm wade lance skip buck stew barb
patience mercy angel god jesus general doctor nurse mother father brother sister prince queen
"""
_ORDINARY = frozenset(_ORDINARY_WORDS.split())
_WORD = re.compile(r"[^\W\d_][\w’'\-]*")
_RUN = re.compile(r"\w+")
_PIECE = re.compile(r"(?P<run>\w+)|(?P<blanks>\s+)|.")
_Name = tuple[str, ...]
"""The words of a name."""
_Tree = dict[str, Any]
"""Names by what they begin with: of each next piece the tree of what may follow; `_END` of a name
is there where one may end."""
_END = ""


def propagate(text: str, findings: Iterable[Finding]) -> list[Finding]:
    """Further PERSON findings in `text` for the names in `findings`; those given are left out."""
    spelt = Counter(_WORD.findall(text))
    any_case: set[_Name] = set()
    capital: set[_Name] = set()
    for finding in findings:
        if finding.entity != "PERSON" or finding.score < SURE:
            continue
        every = _WORD.findall(text[finding.start : finding.end])
        words = [word for word in every if _telling(word)]
        if len(words) > 1:
            any_case.add(tuple(words))
        for word in words:
            capitals = sum(spelt[form] for form in {word.title(), word.upper(), word})
            if spelt[word.lower()] > capitals:
                continue
            capital.update((form,) for form in (word.title(), word.upper(), word))
            if len(every) > 1 and len(word) >= 4 and word.lower() not in _ORDINARY:
                any_case.add((word,))
    further = _find(text, any_case, str.lower)
    further += _find(text, {name for name in capital if name[0][0].isupper()}, str)
    return further


def _telling(word: str) -> bool:
    lower = word.lower()
    return len(word) >= 3 and lower not in HONORIFICS and not lower.endswith(("'s", "’s"))


def _find(text: str, names: set[_Name], fold: Callable[[str], str]) -> list[Finding]:
    """Where the names stand as words, the longest first; `fold` takes off what does not count.

    Names are looked up piece by piece in a tree of all of them: the cost is that of the text times
    the length of the longest name, however many there are and whatever they share.
    """
    tree: _Tree = {}
    for name in names:
        branch = tree
        for piece in _PIECE.finditer(" ".join(name)):
            branch = branch.setdefault(fold(piece[0]), {})
        branch[_END] = {}
    found, end = [], 0
    for run in _RUN.finditer(text) if names else ():
        if run.start() >= end and (below := tree.get(fold(run[0]))):
            after = _end_of(text, run.end(), below, fold)
            if after is not None:
                found.append(Finding(run.start(), after, "PERSON", RECOGNIZER, SURE))
                end = after
    return found


def _end_of(text: str, at: int, tree: _Tree, fold: Callable[[str], str]) -> int | None:
    """Where the longest name ends that goes on at `at` as `tree` says; None if none does."""
    after = None
    below: _Tree | None = tree
    while below:
        piece = _PIECE.match(text, at)
        kind = piece.lastgroup if piece else None
        if _END in below and kind != "run":
            after = at
        if piece is None:
            break
        below = below.get(" " if kind == "blanks" else fold(piece[0]))
        at = piece.end()
    return after
