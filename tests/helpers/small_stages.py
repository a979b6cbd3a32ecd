"""The data stages of a small corpus, without the models of scrubbing, in a fraction of a second."""

import json
from dataclasses import replace
from pathlib import Path

from small_run import draw_keys, write_run_file

from dpmlm.artifacts import SealedFolder
from dpmlm.config import RunConfig, load_config
from dpmlm.corpus import count_shards, read_shard, shard_name, write_shard
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.data import data_stages
from dpmlm.pipeline.preflight import preflight
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.stages import execute
from dpmlm.pipeline.workspace import deciding_settings

EMPTY = "(nothing but an identifier)"
"""A text that is emptied."""


def write_rows(folder: Path, rows: list[dict]) -> None:
    """Rows with `id`, `text` and `author` as the corpus; public text beside it."""
    (folder / "private.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    public = "the river and the stone near the old market were quiet again " * 3
    (folder / "public.jsonl").write_text(json.dumps({"text": public}) + "\n")


def begin(folder: Path, rows: list[dict], **changes) -> RunConfig:
    """Corpus, run file, keys and ledger, not run yet; `changes` as in `write_run_file`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder, rows)
    train = {"corpus": "public.jsonl", "size": 200, "unused": 10}
    more = {"tokens__train": train, "split__validation": 0.0, "audit__canaries": 0}
    write_run_file(folder, **{**more, **changes})
    if not (folder / "ledger.jsonl").exists():
        draw_keys(folder)
    return load_config(folder / "run.yaml")


def run_stages(config: RunConfig, until: str = "tokens", *, check: bool = False) -> Run:
    """Run the data stages up to one of them; scrubbing changes nothing but empties `EMPTY`."""
    run = Run.load(config, Progress(quiet=True))
    stages = [replace(s, build=_pass) if s.name == "scrub" else s for s in data_stages(config)]
    names = [stage.name for stage in stages]
    if check:
        preflight(run)
    run.workspace.claim(config.name, deciding_settings(config))
    execute(run, stages[: names.index(until) + 1])
    return run


def _pass(run: Run, folder: SealedFolder, report) -> dict:
    source = run.source("scrub")
    for number in range(count_shards(source)):
        documents = read_shard(source, number)
        empty = [one for one in documents if one["text"] == EMPTY]
        write_shard(folder, number, [one for one in documents if one not in empty])
        folder.write_json(shard_name("emptied", number), empty)
    return {"counts": {"documents": 0}}
