"""The tree against a second implementation, written from the text of RFC 6962 alone."""

import random
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainos_ros.ledger.merkle import (
    HASH_SIZE,
    TILE_WIDTH,
    Mountain,
    consistency_path,
    leaf_hash,
    range_root,
)
from brainos_ros.ledger.proof import Prover
from brainos_ros.ledger.verifier import Head, extends, root_of


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, path: list[bytes]) -> bool:
    return extends(Head("", old, old_root), Head("", new, new_root), path)


def split_point(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(d: list[bytes]) -> bytes:
    """Merkle Tree Hash, section 2.1."""
    if not d:
        return sha256().digest()
    if len(d) == 1:
        return sha256(b"\x00" + d[0]).digest()
    k = split_point(len(d))
    return sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def path(m: int, d: list[bytes]) -> list[bytes]:
    """Merkle audit path, section 2.1.1."""
    if len(d) == 1:
        return []
    k = split_point(len(d))
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def subproof(m: int, d: list[bytes], whole: bool) -> list[bytes]:
    """Merkle consistency proof, section 2.1.2."""
    if m == len(d):
        return [] if whole else [mth(d)]
    k = split_point(len(d))
    if m <= k:
        return [*subproof(m, d[:k], whole), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


def entries(n: int) -> list[bytes]:
    return [i.to_bytes(4, "big") for i in range(n)]


class Store:
    """A mountain and every node it ever made."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.mountain = Mountain()
        self.levels: list[bytearray] = []
        for leaf in leaves:
            self.mountain.add(leaf_hash(leaf))
        for level, hashes in enumerate(self.mountain.take_fresh()):
            self.levels.append(hashes)
            assert len(hashes) == len(leaves) // TILE_WIDTH**level * HASH_SIZE

    def run(self, level: int, start: int, count: int) -> bytes:
        if not count:
            return b""
        data = bytes(self.levels[level][start * HASH_SIZE : (start + count) * HASH_SIZE])
        assert len(data) == count * HASH_SIZE
        return data


@cache
def mth_of_first_entries(start: int, end: int) -> bytes:
    """`mth` of `entries(end)[start:]`, each part computed once."""
    if end - start < 2:
        return mth(entries(end)[start:])
    k = start + split_point(end - start)
    return sha256(b"\x01" + mth_of_first_entries(start, k) + mth_of_first_entries(k, end)).digest()


def test_roots_for_every_size_to_1025() -> None:
    mountain = Mountain()
    assert mountain.root() == mth([])
    store = Store(entries(1025))
    for n, leaf in enumerate(entries(1025), start=1):
        mountain.add(leaf_hash(leaf))
        expected = mth_of_first_entries(0, n)
        assert mountain.root() == expected
        assert range_root(0, n, store.run) == expected
        assert Mountain.load(n, store.run).root() == expected


@pytest.mark.parametrize("seed", range(6))
def test_roots_and_proofs_of_random_larger_sizes(seed: int) -> None:
    chance = random.Random(seed)
    n = chance.randrange(1026, 20_000)
    leaves = entries(n)
    store = Store(leaves)
    root = mth(leaves)
    assert store.mountain.root() == root
    for _ in range(20):
        m = chance.randrange(n)
        proof = Prover(n, store.run).path(m)
        assert proof == path(m, leaves)
        assert root_of(leaf_hash(leaves[m]), m, n, proof) == root
        old = chance.randrange(1, n + 1)
        growth = consistency_path(old, n, store.run)
        assert growth == subproof(old, leaves, True)
        assert consistent(old, mth(leaves[:old]), n, root, growth)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 64, 65, 100])
def test_every_proof_of_small_trees(n: int) -> None:
    leaves = entries(n)
    store = Store(leaves)
    for m in range(n):
        proof = Prover(n, store.run).path(m)
        assert proof == path(m, leaves)
        assert root_of(leaf_hash(leaves[m]), m, n, proof) == mth(leaves)
        growth = consistency_path(m + 1, n, store.run)
        assert growth == subproof(m + 1, leaves, True)
        assert consistent(m + 1, mth(leaves[: m + 1]), n, mth(leaves), growth)


@given(
    n=st.integers(2, 200),
    data=st.data(),
)
def test_a_changed_proof_proves_nothing(n: int, data: st.DataObject) -> None:
    leaves = entries(n)
    store = Store(leaves)
    root = mth(leaves)
    m = data.draw(st.integers(0, n - 1))
    proof = Prover(n, store.run).path(m)
    leaf = leaf_hash(leaves[m])
    other = data.draw(st.integers(0, n + 1).filter(lambda i: i != m))
    assert root_of(leaf, other, n, proof) != root
    assert root_of(leaf, m, n, [*proof, root]) != root
    assert root_of(leaf, m, n, proof[:-1]) != root
    at = data.draw(st.integers(0, len(proof) - 1))
    bent = [*proof]
    bent[at] = bytes([bent[at][0] ^ 1]) + bent[at][1:]
    assert root_of(leaf, m, n, bent) != root
    old = data.draw(st.integers(1, n - 1))
    growth = consistency_path(old, n, store.run)
    wrong = leaf_hash(b"another history")
    assert not consistent(old, wrong, n, root, growth)
    assert not consistent(old, mth(leaves[:old]), n, wrong, growth)
    assert not consistent(old, mth(leaves[:old]), n, root, [*growth, root])


@pytest.mark.parametrize("index", [-1, 5, 6])
def test_no_proof_for_a_leaf_that_is_not_there(index: int) -> None:
    with pytest.raises(ValueError, match="not in a tree of 5"):
        Prover(5, Store(entries(5)).run).path(index)


@pytest.mark.parametrize(("old", "new"), [(0, 3), (4, 3), (-1, 3)])
def test_no_consistency_proof_out_of_nothing(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="no consistency proof"):
        consistency_path(old, new, Store(entries(3)).run)
    assert not consistent(old, b"", new, b"", [])


@given(parts=st.lists(st.integers(0, 70), max_size=8))
def test_extending_is_adding_each(parts: list[int]) -> None:
    one, many = Mountain(), Mountain()
    for part in parts:
        leaves = [leaf_hash(bytes([i])) for i in range(part)]
        for leaf in leaves:
            one.add(leaf)
        many.extend(b"".join(leaves))
        assert (one.size, one.root(), one.edge) == (many.size, many.root(), many.edge)
    assert one.take_fresh() == many.take_fresh()
