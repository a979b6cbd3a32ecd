"""The Merkle tree against published roots and a recursive twin; a changed proof proves nothing."""

import hashlib
import random

import pytest

from dpmlm.artifacts.merkle import (
    inclusion_proof,
    leaf_hash,
    proves_inclusion,
    root_of,
)

ENTRIES = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""Of the first 0 to 8 entries, as Certificate Transparency's implementations publish them."""


def naive_root(entries):
    """RFC 6962, section 2.1, word for word."""
    if len(entries) < 2:
        return hashlib.sha256(b"".join(b"\0" + entry for entry in entries)).digest()
    k = 1
    while 2 * k < len(entries):
        k *= 2
    left, right = naive_root(entries[:k]), naive_root(entries[k:])
    return hashlib.sha256(b"\1" + left + right).digest()


def naive_path(m, entries):
    """RFC 6962, section 2.1.1."""
    if len(entries) == 1:
        return []
    k = 1
    while 2 * k < len(entries):
        k *= 2
    if m < k:
        return [*naive_path(m, entries[:k]), naive_root(entries[k:])]
    return [*naive_path(m - k, entries[k:]), naive_root(entries[:k])]


def _tree(size, seed=0):
    rng = random.Random(size * 1000 + seed)
    entries = [rng.randbytes(rng.randrange(4)) for _ in range(size)]
    return entries, [leaf_hash(entry) for entry in entries]


def test_published_roots_of_0_to_8_entries():
    for size, root in enumerate(ROOTS):
        assert root_of([leaf_hash(entry) for entry in ENTRIES[:size]]).hex() == root
        assert naive_root(ENTRIES[:size]).hex() == root


@pytest.mark.parametrize("sizes", [range(1, 40), (64, 65, 127, 128, 129, 255, 256, 257, 300)])
def test_roots_and_proofs_are_those_of_the_recursive_twin(sizes):
    rng = random.Random(1)
    for size in sizes:
        entries, leaves = _tree(size)
        root = root_of(leaves)
        assert root == naive_root(entries)
        places = range(size) if size < 20 else rng.sample(range(size), 2)
        for index in places:
            proof = inclusion_proof(leaves, index)
            assert proof == naive_path(index, entries)
            assert proves_inclusion(leaves[index], index, size, proof, root)


@pytest.mark.full
def test_every_tree_to_300_entries_agrees_with_the_twin():
    for size in range(1, 301):
        entries, leaves = _tree(size, seed=7)
        root = root_of(leaves)
        assert root == naive_root(entries)
        rng = random.Random(size)
        for index in {0, size - 1, *(rng.randrange(size) for _ in range(6))}:
            proof = inclusion_proof(leaves, index)
            assert proof == naive_path(index, entries)
            assert proves_inclusion(leaves[index], index, size, proof, root)


def _changed(proof):
    """Proofs with each one bit changed."""
    for at, part in enumerate(proof):
        for bit in range(256):
            other = bytearray(part)
            other[bit // 8] ^= 1 << bit % 8
            yield [*proof[:at], bytes(other), *proof[at + 1 :]]


@pytest.mark.parametrize(("size", "index"), [(7, 3), (8, 0), (13, 12), (1, 0)])
def test_a_proof_with_a_bit_changed_or_of_another_length_is_refused(size, index):
    _, leaves = _tree(size)
    root = root_of(leaves)
    proof = inclusion_proof(leaves, index)
    assert proves_inclusion(leaves[index], index, size, proof, root)
    wrong = [*_changed(proof), [root, *proof], [*proof, root], [*proof, bytes(31)]]
    wrong += [proof[:-1], proof[1:], proof[::-1]] if len(proof) > 1 else []
    wrong += [proof * 3] if proof else []
    for other in wrong:
        assert not proves_inclusion(leaves[index], index, size, other, root)


def test_what_is_no_place_in_a_tree_is_refused():
    _, leaves = _tree(5)
    root, proof = root_of(leaves), inclusion_proof(leaves, 2)
    for index, size in ((-1, 5), (5, 5), (3, 5), (2, 9), (2, 0), (2, 2**63)):
        assert not proves_inclusion(leaves[2], index, size, proof, root)
    assert not proves_inclusion(leaves[2][:31], 2, 5, proof, root)
    assert not proves_inclusion(leaves[1], 2, 5, proof, root)
    # A larger tree is not taken for a smaller one, nor bytes that move from one hash to the next.
    two = root_of(leaves[:2])
    assert not proves_inclusion(leaves[1], 0, 1, [leaves[0]], two)
    assert not proves_inclusion(leaves[0] + leaves[1][:1], 0, 2, [leaves[1][1:]], two)
    for place in (5, -1):
        with pytest.raises(ValueError, match="of 5"):
            inclusion_proof(leaves, place)
