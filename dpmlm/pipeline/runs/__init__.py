"""Several runs: `catalogue`, `shown` and `comparison` (list, show, compare; with `entry`, a
workspace as it lies on disk, and `words`, how it is told), `tuning` (choose, at a price),
`shards` and `ablation` (which file it was), `quarantining` and `postmortem` (what is done about
it), `origin` (where a text came from), `affected` (which ones a person's text reached; `trace`,
`person`, `handed_out` serve it).
"""
