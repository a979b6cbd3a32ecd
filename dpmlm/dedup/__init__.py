"""What the corpus says twice: exact and near-duplicates, each removal with its evidence.

`deduplication.py` decides, and holds the two modes: *stable* keeps the privacy claim on the
source corpus, *quality* moves it to the deduplicated corpus. `shingles.py` and `candidates.py` find
pairs (datasketch MinHash LSH), `clusters.py` joins the verified ones.
"""

from dpmlm.dedup.deduplication import (
    REPORT_THRESHOLD,
    Mode,
    deduplicate,
    mode_of,
    scope_of,
)
from dpmlm.dedup.records import CrossSplitPair, DedupResult, Removal

__all__ = [
    "REPORT_THRESHOLD",
    "CrossSplitPair",
    "DedupResult",
    "Mode",
    "Removal",
    "deduplicate",
    "mode_of",
    "scope_of",
]
