"""Where releases are kept: a local folder of versions, and an MLflow server.

Reading order: `names` (what may be called what), `history` (what the journal's lines say),
`passing` (what may be promoted), `local` (the folder), `figures` and `mlflow` (a server).
"""
