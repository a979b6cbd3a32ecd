"""Where names stand in a text, for whoever masks them: the scrubber's name finder and no more."""

from itertools import islice

from dpmlm.scrub.blocks import cut
from dpmlm.scrub.engine import AGREED, NameFinder, load_pipelines
from dpmlm.scrub.policy import ScrubPolicy

KINDS = frozenset({"PERSON", "LOCATION", "ORGANIZATION", "NRP"})
"""What counts as a name: persons, places, organisations, and nationalities and the like."""
_TOGETHER = 16


class Mentions:
    """The names of a text, found on this machine by the policy's pipelines."""

    def __init__(self, policy: ScrubPolicy) -> None:
        """Loads the pipelines: seconds. Raises UserError where one cannot be had."""
        self._finder = NameFinder(load_pipelines(policy.engine.spacy, policy.engine.parts))

    def __call__(self, text: str) -> list[tuple[int, int]]:
        """Characters [start, end) of each name, in order, none over another.

        Names that all pipelines mark; where their stretches differ, all of them. A function of the
        text alone.
        """
        found: list[tuple[int, int]] = []
        blocks = (block for block in cut(text) if not block.text.isspace())
        while some := list(islice(blocks, _TOGETHER)):
            for block, read in zip(some, self._finder.read([b.text for b in some]), strict=True):
                for name, score in zip(read.entities, read.scores, strict=True):
                    if (
                        name.label_ in KINDS
                        and score >= AGREED
                        and any(map(str.isalpha, name.text))
                    ):
                        start = block.start + name.start_char
                        found.append((start, start + len(name.text)))
        return _joined(sorted(found))


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans in order, those that overlap as one."""
    joined: list[tuple[int, int]] = []
    for first, last in spans:
        if joined and first < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined
