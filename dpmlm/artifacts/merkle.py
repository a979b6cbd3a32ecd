"""Merkle tree over a list that only grows (RFC 6962, RFC 9162 section 2.1), with inclusion proofs.

Such a proof shows that an entry is in the tree of a root. It is a list of 32-byte hashes, about as
many as the number of entries has binary digits, and is read without the list itself. Whether one
tree is the beginning of another is asked of those who have the list: they compute both roots.

Trees are given as the hashes of their leaves (`leaf_hash` of each entry's bytes), in order.
"""

import hashlib
from collections.abc import Sequence

HASH_BYTES = 32


def leaf_hash(data: bytes) -> bytes:
    """Hash of one entry; its prefix keeps it from being taken for an inner node."""
    return hashlib.sha256(b"\0" + data).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Root of the tree of these leaf hashes; of no leaves, the hash of nothing."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    # Roots of whole subtrees, larger ones first: as the ones in the binary number of leaves.
    whole: list[bytes] = []
    for number, leaf in enumerate(leaves, start=1):
        whole.append(leaf)
        for _ in range(_trailing_zeros(number)):
            right = whole.pop()
            whole.append(_node(whole.pop(), right))
    root = whole.pop()
    while whole:
        root = _node(whole.pop(), root)
    return root


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """What leads from leaf `index` (from 0) to the root, the leaf's neighbour first."""
    if not 0 <= index < len(leaves):
        raise ValueError(f"leaf {index} of {len(leaves)}")
    proof = []
    first, end = 0, len(leaves)
    while end - first > 1:
        split = first + _split(end - first)
        if index < split:
            proof.append(root_of(leaves[split:end]))
            end = split
        else:
            proof.append(root_of(leaves[first:split]))
            first = split
    return proof[::-1]


def proves_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether `proof` shows that leaf hash `leaf` is number `index` of the `size` under `root`.

    RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size or not _are_hashes([leaf, root, *proof]):
        return False
    node, last, found = index, size - 1, leaf
    for part in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = _node(part, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = _node(found, part)
        node, last = node >> 1, last >> 1
    return last == 0 and found == root


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def _split(count: int) -> int:
    """Largest power of two below `count`, which is at least 2."""
    return int(1 << (count - 1).bit_length() - 1)


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def _are_hashes(parts: Sequence[bytes]) -> bool:
    return all(len(part) == HASH_BYTES for part in parts)
