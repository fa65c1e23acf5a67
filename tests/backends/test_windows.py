"""Scratch memory of neighbourhoods: what two steps reach lies in the window of a node's partition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import mge_gpu
from mge_gpu.backends.adjacency import arc_partitions
from mge_gpu.backends.cpu.kinds import arc_kinds
from mge_gpu.backends.cuda.windows import Windows, plain_partitions, windows
from tests.graphs import DenseNet, encoded, random_masks, undirected
from tests.oracles.networks import Case
from tests.oracles.strategies import cases


def windows_of(graph: mge_gpu.MultipartiteGraph, nodes: np.ndarray) -> Windows:
    return windows(graph.adjacency, arc_kinds(graph.adjacency), nodes)


def reached(graph: mge_gpu.MultipartiteGraph) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last node that at most two steps lead to from each node."""
    neighbours = [{v, *near} for v, near in enumerate(undirected(graph).get_adjlist())]
    within = [set().union(*(neighbours[u] for u in near)) for near in neighbours]
    return np.array([min(w) for w in within]), np.array([max(w) for w in within])


@settings(max_examples=30)
@given(cases())
def test_two_steps_stay_within(case: Case) -> None:
    graph = encoded(case)
    g, every = graph.adjacency, np.arange(graph.num_nodes)
    found, parts = windows_of(graph, every), np.arange(len(g.divisor))
    owner = np.searchsorted(g.offset, every, side="right") - 1
    start, size = found.first[owner, 0], found.sizes[0]
    low, high = reached(graph)
    assert (start <= low).all() and (high < start + size).all() and (start >= 0).all()
    assert size <= graph.num_nodes
    # the channels of those nodes, and the hubs that neighbours are in
    channel, source = arc_kinds(g).channel, arc_partitions(g)
    for p in parts:
        near = {p, *g.arc_other[g.arc_ptr[p] : g.arc_ptr[p + 1]].tolist()}
        far = near | {q for r in near for q in g.arc_other[g.arc_ptr[r] : g.arc_ptr[r + 1]].tolist()}
        assert found.first[p, 1] <= channel[min(far)]
        assert channel[max(far) + 1] <= found.first[p, 1] + found.sizes[1]
        hubs = np.flatnonzero(np.isin(source[g.hub_arc], list(near)))
        assert not len(hubs) or found.first[p, 2] <= hubs[0] <= hubs[-1] < found.first[p, 2] + found.sizes[2]


def test_a_deep_network_needs_little_of_itself() -> None:
    graph = mge_gpu.encode(nn.Sequential(*(nn.Linear(10, 10) for _ in range(20))), (10,))
    found = windows_of(graph, np.arange(graph.num_nodes))
    assert found.sizes[:2] == (50, 50)
    assert found.first[:, 0].tolist() == [10 * max(p - 2, 0) for p in range(21)]
    assert windows_of(graph, np.array([3])).sizes[0] == 30
    assert windows_of(graph, np.array([], np.int64)).sizes == (0, 0, 0)


def test_what_reads_all_that_came_before_needs_all() -> None:
    graph = mge_gpu.encode(DenseNet(), (2, 4, 4))
    assert windows_of(graph, np.arange(graph.num_nodes)).sizes[0] == graph.num_nodes


@pytest.mark.parametrize("directed", [True, False])
def test_nodes_that_come_upon_hubs(directed: bool) -> None:
    """Layers with weights of their own; then a pool, of which nine pixels see the same."""
    layers = [nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 4, 3), nn.AvgPool2d(3), nn.Conv2d(4, 3, 1)]
    torch.manual_seed(0)
    model = nn.Sequential(*layers)
    graph = mge_gpu.encode(model, (2, 15, 15), random_masks(model, 0.5))
    g = graph.adjacency
    plain = plain_partitions(g, arc_kinds(g), directed)
    assert [p.name for p in graph.partitions] == ["input", "0", "1", "2", "4"]
    # the last but one has the pixels: what leads there comes upon hubs, and not what leads away
    assert plain.tolist() == [True, True, False, True, directed]
