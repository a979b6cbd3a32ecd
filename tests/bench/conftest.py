import pytest
import torch

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


@pytest.fixture(autouse=True)
def _one_thread():
    """Compiled code adds up in another order on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
