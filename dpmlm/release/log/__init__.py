"""The log of releases: `entry` (a line, and its proof), `reading` (the file under its signed head),
`appending` (what survives a kill), `check` (a bundle beside the log), `book` (what the verbs show).
"""
