"""Forgetting: how much worse a model became at text of an earlier domain by being trained further.

A non-inferiority test: the model kept what it could if the loss of top-1 accuracy, with all of its
interval, is at most a margin that was stated beforehand. A mean that is within it proves nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from dpmlm.evaluation.intervals import FEWEST_UNITS, Estimate, changes
from dpmlm.evaluation.measurement import Measurement

KEPT, FORGOT, UNDECIDED = "kept", "forgot", "undecided"
_SAYS = {
    KEPT: "it kept what it could, within the margin",
    FORGOT: "it forgot more than the margin",
    UNDECIDED: "undecided: the interval holds the margin; measure on more documents",
}


@dataclass(frozen=True)
class Forgetting:
    """What training further cost on one text, and whether that is within the margin."""

    text: str
    """Digest of the text that both models were asked about."""
    margin: float
    """Points of top-1 accuracy that may be lost; at least 0."""
    documents: int
    lost: Estimate
    """Points of top-1 accuracy, before minus after, with a paired 95 % interval over documents."""
    bits: Estimate | None
    """Bits per byte, after minus before; above 0 is worse. None where bytes are not known."""

    @property
    def verdict(self) -> str:
        """kept, forgot or undecided."""
        low, high = self.lost.low, self.lost.high
        if low is None or high is None:
            return UNDECIDED
        return KEPT if high <= self.margin else FORGOT if low > self.margin else UNDECIDED

    def to_json(self) -> dict[str, Any]:
        """JSON object, the verdict among it."""
        return {**asdict(self), "verdict": self.verdict}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        bits = values["bits"]
        return cls(
            values["text"],
            values["margin"],
            values["documents"],
            Estimate(**values["lost"]),
            None if bits is None else Estimate(**bits),
        )

    def lines(self) -> list[str]:
        """For a person."""
        few = f" (fewer than {FEWEST_UNITS} documents)" if self.documents < FEWEST_UNITS else ""
        rows = [
            f"forgetting on {self.documents} documents of text {self.text[:16]}, "
            f"margin {self.margin:g} points",
            f"  top-1 lost     {_shown(self.lost, ' points')}{few}",
        ]
        if self.bits is not None:
            rows.append(f"  bits a byte    {_shown(self.bits, '')}, after minus before")
        return [*rows, f"  {self.verdict.upper()}: {_SAYS[self.verdict]}"]


def forgetting(
    before: Measurement, after: Measurement, *, text: str, margin: float
) -> Forgetting | None:
    """`after` beside `before` on the same documents; None where no token of them is hidden."""
    found = changes(before, after)
    if not found:
        return None
    change = found["top1"]
    ends: tuple[float | None, float | None] = (None, None)
    if change.low is not None and change.high is not None:
        ends = (-100 * change.high, -100 * change.low)
    lost = Estimate(-100 * change.value, *ends)
    return Forgetting(text, margin, len(before.documents), lost, found.get("bits_per_byte"))


def _shown(estimate: Estimate, unit: str) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.3g}{unit}, no interval"
    return f"{estimate.value:+.3g}{unit} ({estimate.low:+.3g} to {estimate.high:+.3g})"
