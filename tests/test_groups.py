"""Tests that share what is dear to make run on one worker."""

import pytest

pytestmark = pytest.mark.xdist_group("groups")


def test_the_scheduler_reads_a_tests_group_from_its_id(request):
    if not hasattr(request.config, "workerinput"):
        pytest.skip("one process needs no groups")
    assert request.node.nodeid.endswith("@groups")
