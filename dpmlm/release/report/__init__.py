"""What people read of a release: the page, the model card, and the words and drawings of both.

Reading order: `data` (what is told), `page` (HTML, in two copies) and `card` (the model card, as
Markdown and as a section of the page), then what both are made of: `figures` and `words`, the
drawings of `charts`, `curves` and `lineage`, and the tables of `fields`, `reach`, `clauses`,
`identifiers` and `threats` with their `pointers`. `templates` stand beside them.
"""

from typing import TYPE_CHECKING

from dpmlm.lazy import lazy_names

if TYPE_CHECKING:
    from dpmlm.release.report.card import model_card
    from dpmlm.release.report.page import PrivateFigures, ReportData, render_report

__all__ = ["PrivateFigures", "ReportData", "model_card", "render_report"]


__getattr__ = lazy_names(
    __name__,
    {"card": ("model_card",), "page": ("PrivateFigures", "ReportData", "render_report")},
)
