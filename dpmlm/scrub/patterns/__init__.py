"""Presidio's patterns over whole texts, each run only where it can match.

`search.py` finds; `needs.py` reads from a pattern what its matches hold, `scans.py` and
`windows.py` choose where it is run, `phones.py` parses phone numbers, `context.py` looks at the
words before a finding.
"""
