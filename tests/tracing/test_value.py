"""Values against arrays whose elements list the nodes that they stand for."""

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mge_gpu.tracing.relation import Relation, from_lists
from mge_gpu.tracing.value import (
    Value,
    broadcast,
    drop_dim,
    map_dim,
    output_value,
    permute,
    reshape,
    structural_sum,
)

Nodes = np.ndarray  # of objects: sorted tuples of (partition, offset)


def nodes_of(value: Value) -> Nodes:
    """What each element stands for, factor by factor from the definition."""
    out = np.empty(value.shape, object)
    for place in np.ndindex(*value.shape):
        found = []
        for term in value.terms:
            members = []
            for f in term.factors:
                row = 0
                for d in f.dims:
                    row = row * value.shape[d] + place[d]
                members.append(f.relation.idx[f.relation.ptr[row] : f.relation.ptr[row + 1]].tolist())
            found += [(term.source, sum(combination)) for combination in product(*members)]
        out[place] = tuple(sorted(found))
    return out


def plain(source: int, shape: Sequence[int]) -> Nodes:
    """What the elements of a partition's own tensor stand for."""
    out = np.empty(prod(shape), object)
    out[:] = [((source, k),) for k in range(prod(shape))]
    return out.reshape(shape)


def mapped(nodes: Nodes, dim: int, rows: Sequence[Sequence[int]]) -> Nodes:
    shape = list(nodes.shape)
    shape[dim] = len(rows)
    out = np.empty(shape, object)
    for place in np.ndindex(*shape):
        lists = [nodes[(*place[:dim], j, *place[dim + 1 :])] for j in rows[place[dim]]]
        out[place] = tuple(sorted(x for one in lists for x in one))
    return out


def assert_equal(value: Value, nodes: Nodes) -> None:
    assert value.shape == nodes.shape
    assert (nodes_of(value) == nodes).all()
    for term in value.terms:  # each dim belongs to one factor, whose rows are the product of its dims
        dims = [d for f in term.factors for d in f.dims]
        assert sorted(dims) == list(range(len(value.shape)))
        assert all(len(f.relation) == prod(value.shape[d] for d in f.dims) for f in term.factors)


def regrouped(data: st.DataObject, size: int) -> list[int]:
    """A shape of the given size: its prime factors, in any order, joined at random, with ones between."""
    primes, rest, p = [], size, 2
    while rest > 1:
        while rest % p == 0:
            primes.append(p)
            rest //= p
        p += 1
    shape = [1]
    for prime in data.draw(st.permutations(primes)):
        how = data.draw(st.sampled_from(["join", "new", "one"]))
        if how == "join":
            shape[-1] *= prime
        else:
            shape += [1, prime] if how == "one" else [prime]
    return shape


SHAPES = st.lists(st.sampled_from([1, 2, 2, 3, 4]), min_size=1, max_size=4)
OPS = st.lists(
    st.sampled_from(["reshape", "permute", "map", "function", "drop", "broadcast"]),
    min_size=2,
    max_size=8,
)


@settings(max_examples=150)
@given(SHAPES, OPS, st.data())
def test_chains_of_moves(shape: list[int], ops: list[str], data: st.DataObject) -> None:
    """Any sequence of views, permutations, windows, gathers and expansions."""
    value, nodes = output_value(7, (1, *shape)), plain(7, (1, *shape))
    assert_equal(value, nodes)
    for op in ops:
        rank = nodes.ndim
        if op == "reshape":
            new = regrouped(data, nodes.size)
            value, nodes = reshape(value, new), nodes.reshape(new)
        elif op == "permute":
            order = data.draw(st.permutations(range(rank)))
            value, nodes = permute(value, order), nodes.transpose(order)
        elif op in ("map", "function"):
            dim = data.draw(st.integers(-rank, rank - 1))
            one = st.integers(0, nodes.shape[dim] - 1)
            row = st.lists(one, max_size=2) if op == "map" else one.map(lambda x: [x])
            table = data.draw(st.lists(row, min_size=1, max_size=4))
            value, nodes = map_dim(value, dim, from_lists(table)), mapped(nodes, dim % rank, table)
        elif op == "drop" and 1 in nodes.shape and rank > 1:
            dim = nodes.shape.index(1)
            value, nodes = drop_dim(value, dim), nodes.squeeze(dim)
        elif op == "broadcast":
            wide = [data.draw(st.integers(1, 3)) if n == 1 else n for n in nodes.shape]
            lead = data.draw(st.sampled_from([[], [1], [2]]))
            if prod(wide) * prod(lead) > 200:
                continue
            value, nodes = broadcast(value, [*lead, *wide]), np.broadcast_to(nodes, [*lead, *wide])
        assert_equal(value, nodes)


@settings(max_examples=250)
@given(st.lists(st.sampled_from([2, 2, 3, 4]), min_size=2, max_size=4), st.integers(2, 6), st.data())
def test_views_and_permutations_in_turn(shape: list[int], turns: int, data: st.DataObject) -> None:
    """Views of permuted tensors tie dims together, and later views and permutations tear those groups."""
    value, index = output_value(0, shape), torch.arange(prod(shape)).reshape(shape)
    for _ in range(turns):
        order = data.draw(st.permutations(range(index.dim())))
        value, index = permute(value, order), index.permute(order)
        new = regrouped(data, index.numel())
        value, index = reshape(value, new), index.reshape(new)
        assert_equal(value, plain(0, index.shape).ravel()[index.numpy()])
        assert value.fresh == 0


@settings(max_examples=60)
@given(SHAPES, st.data())
def test_views_there_and_back(shape: list[int], data: st.DataObject) -> None:
    value = output_value(0, (1, *shape))
    there = reshape(value, regrouped(data, prod(shape)))
    assert_equal(reshape(there, (1, *shape)), plain(0, (1, *shape)))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.data())
def test_structural_sum_broadcasts_its_operands(c: int, h: int, w: int, data: st.DataObject) -> None:
    """A gate of shape (C, 1, 1) beside a map of shape (C, H, W), and a sum with oneself."""
    big, gate = output_value(0, (1, c, h, w)), output_value(1, (1, c, 1, 1))
    nodes, gates = plain(0, (1, c, h, w)), np.broadcast_to(plain(1, (1, c, 1, 1)), (1, c, h, w))
    together = np.empty(nodes.shape, object)
    for place in np.ndindex(*nodes.shape):
        together[place] = tuple(sorted(nodes[place] + gates[place]))
    operands = data.draw(st.permutations([big, gate]))
    total = structural_sum(operands, (1, c, h, w))
    assert_equal(total, together)
    assert total.fresh is None
    doubled = structural_sum([big, big], big.shape)
    assert nodes_of(doubled)[0, 0, 0, 0] == ((0, 0), (0, 0))  # both routes, to be added up in one edge


def test_freshness() -> None:
    """Bijections of a layer's output are still its plain output; selections and sums are not."""
    value = output_value(3, (1, 2, 3))
    assert value.fresh == permute(value, [0, 2, 1]).fresh == reshape(value, (1, 6)).fresh == 3
    assert value.stale().fresh is None and output_value(3, (1, 2, 3), fresh=False).fresh is None
    assert map_dim(value, 1, from_lists([[1]])).fresh is None
    assert map_dim(value, 1, from_lists([[1], [0]])).fresh == 3
    assert map_dim(value, 1, from_lists([[1], [1]])).fresh is None
    assert broadcast(value, (1, 2, 3)).fresh == 3


def test_large_tensors_stay_small_tables() -> None:
    """Flattening and pooling a 64 x 112 x 112 map keeps one table a dim, and so does going back."""
    value = output_value(0, (1, 64, 112, 112))
    flat = reshape(value, (1, 64 * 112 * 112))
    back = reshape(flat, (1, 64, 112, 112))
    assert max(len(f.relation) for f in back.terms[0].factors) == 112
    window = Relation(np.array([0, 112]), np.arange(112))
    pooled = reshape(map_dim(map_dim(value, 2, window), 3, window), (1, 64))
    assert max(len(f.relation.idx) for f in pooled.terms[0].factors) <= 112 * 112
