"""What the corpus says twice: exact duplicates, near-duplicates, repeated passages.

`deduplication.py` decides, and holds the two modes: *stable* keeps the privacy claim on the
source corpus, *quality* moves it to the deduplicated corpus. It knows documents from the
`catalogue.py` and reads texts from a shelf. `shingles.py` and `signatures.py` make MinHash
signatures, `bands.py` finds candidates by them, `pairs.py` proves them, `clusters.py` joins what
is proven; `passages.py` finds what many documents repeat word for word.
"""

from dpmlm.dedup.catalogue import Catalogue, Held, Shelf
from dpmlm.dedup.deduplication import REPORT_THRESHOLD, decide, deduplicate, kept, removed
from dpmlm.dedup.records import CrossSplitPair, Decisions, DedupResult, Removal

__all__ = [
    "REPORT_THRESHOLD",
    "Catalogue",
    "CrossSplitPair",
    "Decisions",
    "DedupResult",
    "Held",
    "Removal",
    "Shelf",
    "decide",
    "deduplicate",
    "kept",
    "removed",
]
