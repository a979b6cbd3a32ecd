"""Which group a held-out document of a run is in, whatever deduplication called it since."""

import pytest
from small_stages import begin, run_stages

from dpmlm.corpus import Document, read_shards
from dpmlm.pipeline.evaluation import HeldOut, grouped_by


@pytest.mark.parametrize("unit", ["document", "person"])
def test_groups_are_found_where_documents_were_named_anew(tmp_path, unit):
    rows = [
        {"id": f"d{n}", "text": f"note {n} " * 9, "author": f"p{n}", "ward": f"ward {n % 3}"}
        for n in range(12)
    ]
    rows += [{**rows[3], "id": "e3"}, {**rows[4], "id": "e4", "ward": None}]
    wards = {row["text"].strip(): row["ward"] for row in rows[:12]}
    config = begin(tmp_path, rows, privacy__unit=unit, dedup={"near": None})
    run = run_stages(config)
    staged = list(read_shards(run.source("tokens")))
    assert {d["id"] for d in staged}.isdisjoint({"d3", "e3"}) == (unit == "document")
    documents = [Document(d["id"], d["text"], None, "", 0) for d in staged]
    held_out = grouped_by(run, HeldOut(documents, [d["unit"] for d in staged], None), "ward")
    assert len(held_out.documents) == 12
    assert {d.text.strip(): held_out.groups.get(d.id) for d in documents} == wards
