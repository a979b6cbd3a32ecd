"""Clusters against a naive search over verified edges."""

import random

from dpmlm.dedup.clusters import Clusters


def naive_components(size: int, edges: list[tuple[int, int]]) -> list[int]:
    smallest = list(range(size))
    for _ in range(size):
        for a, b in edges:
            smallest[a] = smallest[b] = min(smallest[a], smallest[b])
    return smallest


def test_roots_and_links_equal_the_naive_components() -> None:
    draw = random.Random(1)
    for _ in range(200):
        size = draw.randrange(1, 14)
        edges = [(draw.randrange(size), draw.randrange(size)) for _ in range(draw.randrange(14))]
        clusters = Clusters()
        for a, b in edges:
            clusters.join(a, b, 0.9)
        wanted = naive_components(size, edges)
        assert [clusters.root(node) for node in range(size)] == wanted
        links = clusters.links()
        assert sorted(links) == [node for node in range(size) if wanted[node] != node]
        for node, link in links.items():
            assert link.root == wanted[node]
            assert {(node, link.parent), (link.parent, node)} & set(edges)
            steps = 0
            while node != link.root:
                node, steps = links[node].parent, steps + 1
                assert steps <= size
