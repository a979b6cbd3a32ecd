"""Several runs: `catalogue` and `comparison` (list, show, compare), `tuning` (choose, at a price),
`affected` (which ones a person's text reached; `trace`, `person`, `handed_out` serve it).
"""
