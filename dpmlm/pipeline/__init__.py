"""A run from corpus to release, and the verbs that need several packages.

* **A run.** `run` executes `stages`, in this order: `data` (corpus, scrub, dedup, tokens; with
  `tombstones` and `quarantine`: what is left out, `soundness`, `duplicates`, `vocabulary`,
  `recall`), `canaries` and `planted` (canaries of text and of whole documents), `models` (plan,
  training, control; with `base`, `ancestor`, `whitebox`, `public_loss`, `public_scales`,
  `frequencies`), `evaluation` (with `earlier_text`), `evidence` (the audits; with
  `attack_cases`, `verbatim_case`), `outcome` (gate and bundle; with `outgoing`, `openers`,
  `waiving`, `logged`).
* **What all of it shares.** `context`, `workspace`, `secrets`, `accounts` (the ledger),
  `preflight`, `sources`, `declared`, `public_text`; `progress`, `status`, `watching`, `summary`,
  `wording`: what is told; `workers`, `on_ray`: several machines.
* **Before a run.** `start` (init), `preview` and `forecast` (plan), `checklist`.
* **After it.** `evaluating`, `evaluated`, `subjects` and `probes` (evaluate), `export`,
  `rotation`, `attack` (audit), `jumps`; `runs/`: several of them, `grid/`: small ones compared,
  `selftest/`: faults that audits must catch.
* **Files of one's own.** `scrub_files`, `dedup_files`, `decisions` and `explain`, `outputs`,
  `planting` (canaries for another trainer), `public_vocabulary`, `roundtrip`, `doctor`.
* **From Python.** `trainer`.
"""
