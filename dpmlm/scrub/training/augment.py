"""More variety from the same annotations: other names, other case, other line breaks.

A model trained on the sets as they are learns their names by heart. Each time an example is
drawn, many of its entities are replaced by others of the same kind, and some examples change case
or are wrapped into lines, as forum posts and forms are. `templates` adds kinds of text that none
of the sets has.
"""

import random
import re
from collections.abc import Mapping, Sequence

from dpmlm.scrub.training.examples import Example, Span
from dpmlm.scrub.training.slots import LABELS_OF_SLOTS, Slots
from dpmlm.scrub.training.templates import TEMPLATES

_SUBSTITUTED = ("PERSON", "LOCATION", "ORGANIZATION", "ADDRESS")
_SLOT = re.compile(r"\{(\w+)\}")
_WIDTH = 72
_CASES = {"tab": 0.06, "pii_synthetic": 0.25, "templates": 0.3}
"""Share of examples that change case, by set; a fifth of the others."""


class Augmenter:
    """Draws changed copies of examples. Everything follows from the seed."""

    def __init__(self, examples: Sequence[Example], seed: int, *, case: float = 1.0) -> None:
        """`case` multiplies the share of examples whose case is changed."""
        self._random = random.Random(seed)
        self._slots = Slots(_pools(examples), self._random)
        self._case_share = case

    def epoch(self, examples: Sequence[Example], templates: int) -> list[Example]:
        """One pass: examples changed anew, and `templates` filled ones, in random order.

        Of the token sets, which are the most and the farthest from records, half are drawn.
        """
        drawn = [
            self._change(e) for e in examples if e.source in _CASES or self._random.random() < 0.5
        ]
        drawn += [self._case(self._fill(self._random.choice(TEMPLATES))) for _ in range(templates)]
        self._random.shuffle(drawn)
        return drawn

    def _change(self, example: Example) -> Example:
        if example.source == "pii_synthetic" or self._random.random() < 0.4:
            example = self._substitute(example)
        return self._case(self._wrap(example))

    def _substitute(self, example: Example) -> Example:
        replacements: dict[str, str] = {}
        text, spans, last = "", [], 0
        for span in example.spans:
            old = new = example.text[span.start : span.end]
            if span.label in _SUBSTITUTED and self._random.random() < 0.6:
                new = replacements.setdefault(old, self._slots.like(span.label, old))
            text += example.text[last : span.start]
            spans.append(Span(len(text), len(text) + len(new), span.label))
            text += new
            last = span.end
        return Example(text + example.text[last:], tuple(spans), example.source, example.group)

    def _case(self, example: Example) -> Example:
        share = self._case_share * _CASES.get(example.source, 0.2)
        draw = self._random.random() / share
        changed = example.text
        if draw < 0.5:
            changed = example.text.lower()
        elif draw < 0.85:
            changed = example.text.upper()
        elif draw < 1:
            changed = example.text.title()
        if len(changed) != len(example.text):  # "ß".upper() is two letters: offsets move
            return example
        return Example(changed, example.spans, example.source, example.group)

    def _wrap(self, example: Example) -> Example:
        if self._random.random() > 0.15:
            return example
        letters, column = list(example.text), 0
        for i, letter in enumerate(letters):
            column = 0 if letter == "\n" else column + 1
            if letter == " " and column > _WIDTH - 10:
                letters[i], column = "\n", 0
        return Example("".join(letters), example.spans, example.source, example.group)

    def _fill(self, template: str) -> Example:
        text, spans, last = "", [], 0
        for match in _SLOT.finditer(template):
            text += template[last : match.start()]
            value = self._slots.draw(match[1])
            spans.append(Span(len(text), len(text) + len(value), LABELS_OF_SLOTS[match[1]]))
            text += value
            last = match.end()
        return Example(text + template[last:], tuple(spans), "templates", template[:20])


def _pools(examples: Sequence[Example]) -> Mapping[str, list[str]]:
    """Different entity texts of the training part, by label; tweets' are too odd to reuse."""
    pools: dict[str, set[str]] = {label: set() for label in _SUBSTITUTED}
    for example in examples:
        if example.source.startswith(("btc", "wnut")):
            continue
        for span in example.spans:
            value = example.text[span.start : span.end]
            if span.label in pools and len(value) > 2 and value[0] not in "@#":
                pools[span.label].add(value)
    return {label: sorted(values) for label, values in pools.items()}
