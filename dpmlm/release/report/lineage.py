"""How the model came about, drawn: each stage with the digest of its ciphertext."""

from collections.abc import Mapping

from markupsafe import Markup

from dpmlm.release.provenance import STAGES
from dpmlm.release.report import charts

BUNDLE = ("bundle", "what is released", "its signed manifest")

_COLUMNS = 4
_WIDTH, _HEIGHT, _GAP = 162, 84, 24
_TOP = 4


def draw(digests: Mapping[str, str]) -> Markup | None:
    """The stages that have a digest, in the order given, and the bundle; None if there is none.

    Rows run to and fro, so that each arrow is short. `digests` are sha256:HEX by stage; what is no
    stage is passed over.
    """
    known = [(name, STAGES[name], _short(digests[name])) for name in digests if name in STAGES]
    if not known:
        return None
    boxes = [*known, BUNDLE]
    drawn = [_box(*_place(number), *box) for number, box in enumerate(boxes)]
    drawn += [_arrow(number) for number in range(len(boxes) - 1)]
    rows = -(-len(boxes) // _COLUMNS)
    words = ", then ".join(f"{name} ({digest})" for name, _, digest in boxes)
    height = _TOP + rows * _HEIGHT + (rows - 1) * _GAP + 4
    return charts.drawing(drawn, height, "From the text to the bundle", f"{words}.")


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:16]


def _place(number: int) -> tuple[float, float]:
    """Upper left corner of a box."""
    row, column = divmod(number, _COLUMNS)
    if row % 2:
        column = _COLUMNS - 1 - column
    return column * (_WIDTH + _GAP), _TOP + row * (_HEIGHT + _GAP)


def _box(x: float, y: float, name: str, said: str, digest: str) -> Markup:
    box = Markup('<rect class="stage" x="{}" y="{}" width="{}" height="{}" rx="6"/>')
    kinds = ("value", "tick", "tick mono")
    lines = [
        charts.written(x + 8, y + 24 + 24 * row, line, kind)
        for row, (line, kind) in enumerate(zip((name, said, digest), kinds, strict=True))
    ]
    return box.format(x, y, _WIDTH, _HEIGHT) + Markup("").join(lines)


def _arrow(number: int) -> Markup:
    """From a box to the next: along the row, or down at its end."""
    (x, y), (next_x, next_y) = _place(number), _place(number + 1)
    if y == next_y:
        right = next_x > x
        start = x + _WIDTH if right else x
        step, half = (_GAP - 8 if right else 8 - _GAP), (8 if right else -8)
        path = f"M{start} {y + _HEIGHT / 2} h{step} m0 -5 l{half} 5 l{-half} 5 z"
    else:
        path = f"M{x + _WIDTH / 2} {y + _HEIGHT} v{_GAP - 8} m-5 0 l5 8 l5 -8 z"
    return Markup('<path class="arrow" d="{}"/>').format(path)
