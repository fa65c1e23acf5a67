"""Scratch memory of neighbourhoods: what two steps reach lies in the window of a node's partition."""

import numpy as np
from hypothesis import given, settings
from torch import nn

import mge_gpu
from mge_gpu.backends.cuda.local import windows
from tests.graphs import DenseNet, encoded, undirected
from tests.oracles.networks import Case
from tests.oracles.strategies import cases


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
    first, size = windows(g, every)
    start = first[np.searchsorted(g.offset, every, side="right") - 1]
    low, high = reached(graph)
    assert (start <= low).all() and (high < start + size).all() and (start >= 0).all()
    assert size <= graph.num_nodes


def test_a_deep_network_needs_little_of_itself() -> None:
    graph = mge_gpu.encode(nn.Sequential(*(nn.Linear(10, 10) for _ in range(20))), (10,))
    first, size = windows(graph.adjacency, np.arange(graph.num_nodes))
    assert size == 50 and first.tolist() == [10 * max(p - 2, 0) for p in range(21)]
    assert windows(graph.adjacency, np.array([3])).size == 30
    assert windows(graph.adjacency, np.array([], np.int64)).size == 0


def test_what_reads_all_that_came_before_needs_all() -> None:
    graph = mge_gpu.encode(DenseNet(), (2, 4, 4))
    assert windows(graph.adjacency, np.arange(graph.num_nodes)).size == graph.num_nodes
