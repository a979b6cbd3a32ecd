import pytest

from dpmlm.bench.models import Workload
from dpmlm.bench.request import BenchModel


@pytest.fixture(params=["bert", "modernbert"])
def work(request) -> Workload:
    """A model of a few thousand weights on four rows."""
    return small(request.param)


@pytest.fixture
def bert() -> Workload:
    return small("bert")


def small(kind: str) -> Workload:
    return Workload(kind, BenchModel(kind, 2, 64, 96, 4, vocabulary=120), window=24, rows=4)
