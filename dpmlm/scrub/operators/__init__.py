"""What stands in the place of a finding.

`replacement.py` chooses; `surrogates.py`, `numbers.py` and `dates.py` make something of the same
kind by a key (`keyed.py`), `generalised.py` something coarser.
"""
