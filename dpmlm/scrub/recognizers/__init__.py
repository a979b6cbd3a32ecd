"""What looks for what.

`registry.py` has Presidio's recognizers and those by caption or title; a file each has people,
places, organisations, demographics, written dates and sums, `lexicon.py` their words; `remote.py`
has those that a policy names by class.
"""
