"""What `dpmlm evaluate` found, and what of it may be shown to whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dpmlm.evaluation import (
    KEPT,
    Forgetting,
    Group,
    group_lines,
    groups_told,
    lines_of,
    probe_lines,
    pseudo_lines,
)
from dpmlm.release.facts import spelled

Label = Literal["public", "dp", "private"]


@dataclass(frozen=True)
class Evaluated:
    """What was found, with what may be shown to whom."""

    models: Mapping[str, str]
    """What each name stands for."""
    held_out: Mapping[str, Any] | None
    """`beside` of the held-out text; None where there is none."""
    groups: list[Group]
    group_field: str | None
    pseudo: Mapping[str, Any]
    probes: list[dict[str, Any]]
    private: bool
    """Whether the held-out text, or a model that saw it, is somebody's secret."""
    probes_label: Label
    """Who vouches that figures of probes may be shown: `public`, whoever asked; `dp`, the claims of
    all probed models; `private`, nobody."""
    notes: list[str]
    forgetting: Forgetting | None = None
    """What the model lost on public text of an earlier domain, where that was asked."""
    private_forgetting: bool = False
    """Whether a model of it is not covered by a claim."""

    def refused(self, *, private: bool = False) -> bool:
        """Whether it was asked what the model forgot, and the answer is not that it kept it.

        Of a model without a claim that is `private`, as the answer itself is: an exit status is
        read by whoever started the command.
        """
        if self.forgetting is None or (self.private_forgetting and not private):
            return False
        return self.forgetting.verdict != KEPT

    def to_json(self, *, private: bool = False) -> dict[str, Any]:
        """One JSON object; private figures only if they are asked for."""
        figures = {
            "held_out": self.held_out,
            "groups": groups_told(self.groups) if self.group_field else None,
            "pseudo": dict(self.pseudo) or None,
        }
        shown = figures if private or not self.private else None
        probes = self.probes if private or self.probes_label != "private" else None
        return {
            "models": dict(self.models),
            "label": "private" if self.private else "public",
            "figures": None if shown is None else spelled(shown),
            "probes_label": self.probes_label,
            "probes": None if probes is None else spelled(probes),
            "forgetting": spelled(self.forgetting.to_json())
            if self.forgetting and (private or not self.private_forgetting)
            else None,
        }

    def text(self, *, private: bool = False) -> str:
        """Lines for a person who does not know the figures."""
        lines = [f"{name}: {what}" for name, what in self.models.items()]
        hidden = "; --show-private prints the figures"
        if self.held_out is not None:
            if self.private and not private:
                lines += ["", f"measured on held-out text, which is private{hidden}"]
            else:
                lines += ["", *lines_of(self.held_out, list(self.models))]
                if self.group_field:
                    lines += ["", *group_lines(self.groups, self.group_field)]
                if self.pseudo:
                    lines += ["", *pseudo_lines(self.pseudo)]
        for probe in self.probes:
            if self.probes_label == "private" and not private:
                lines += ["", f"probe {probe['probe']} of a model without a claim{hidden}"]
            else:
                lines += ["", *probe_lines(probe)]
        if self.forgetting is not None:
            if self.private_forgetting and not private:
                lines += ["", f"forgetting of a model without a claim{hidden}"]
            else:
                lines += ["", *self.forgetting.lines()]
        return "\n".join([*lines, *self.notes])
