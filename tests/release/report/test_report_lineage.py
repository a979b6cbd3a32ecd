"""The stages are drawn in the order of the run."""

import re

import pytest

from dpmlm.release.report import lineage


@pytest.mark.parametrize("order", [("corpus", "scrub", "dedup"), ("corpus", "dedup", "scrub")])
def test_the_lineage_is_drawn_in_the_order_of_the_run(order):
    names = [*order, "tokens", "canaries", "training", "audit"]
    digests = {name: "sha256:" + f"{at}{at + 1}" * 32 for at, name in enumerate(names)}
    svg = lineage.draw({"settings": "sha256:" + "f" * 64, **digests})
    assert re.findall(r'<text class="value"[^>]*>([^<]+)<', svg) == [*names, "bundle"]
    assert re.findall(r'<text class="tick mono"[^>]*>([0-9]+)<', svg) == [
        digest[7:23] for digest in digests.values()
    ]
    assert svg.count('class="arrow"') == len(names)
    assert "ffff" not in svg
    corners = [*map(float, re.findall(r'<rect class="stage" x="([\d.]+)"', svg))]
    assert corners[:4] == sorted(corners[:4])
    assert corners[4:] == corners[3::-1]  # the second row runs back
    assert lineage.draw({"settings": "sha256:0"}) is None
