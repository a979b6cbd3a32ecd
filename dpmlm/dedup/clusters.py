"""Clusters of nodes joined by verified edges, and the way from each node to its survivor."""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """One step from a node towards its cluster's smallest node."""

    parent: int
    """The neighbour on the way."""
    similarity: float
    """Similarity with that neighbour, as verified."""
    root: int
    """The smallest node of the cluster."""


class Clusters:
    """A union-find forest over whole numbers that remembers the edges that joined it.

    Smaller numbers survive. Edges inside a cluster are not kept: memory is linear in the nodes
    that were ever joined.
    """

    def __init__(self) -> None:
        self._roots: dict[int, int] = {}
        self._edges: dict[int, list[tuple[int, float]]] = {}

    def root(self, node: int) -> int:
        """The smallest node of the cluster."""
        while (above := self._roots.get(node, node)) != node:
            self._roots[node] = node = self._roots.get(above, above)
        return node

    def join(self, left: int, right: int, similarity: float) -> None:
        """Join two clusters by a verified edge; an edge inside a cluster changes nothing."""
        first, second = sorted((self.root(left), self.root(right)))
        if first == second:
            return
        self._roots[second] = first
        self._edges.setdefault(left, []).append((right, similarity))
        self._edges.setdefault(right, []).append((left, similarity))

    def links(self) -> dict[int, Link]:
        """For every node that does not survive, its step towards the survivor."""
        links: dict[int, Link] = {}
        for root in sorted(node for node in self._edges if self.root(node) == node):
            waiting = deque([root])
            while waiting:
                parent = waiting.popleft()
                for node, similarity in self._edges[parent]:
                    if node != root and node not in links:
                        links[node] = Link(parent, similarity, root)
                        waiting.append(node)
        return links
