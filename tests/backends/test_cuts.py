"""Bridges and articulation points of two forests of any graph, not only of networks, against igraph."""

import igraph
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mge_gpu.backends.cpu.cuts import cut_marks


def parents(graph: igraph.Graph, order: list[int], depth_first: bool) -> np.ndarray:
    """A maximal forest of the graph, (N,) int32, whose roots are tried in the given order."""
    parent = np.full(graph.vcount(), -1, np.int32)
    seen = np.zeros(graph.vcount(), bool)
    for root in order:
        waiting = [(root, -1)] if not seen[root] else []
        while waiting:
            v, above = waiting.pop() if depth_first else waiting.pop(0)
            if not seen[v]:
                seen[v], parent[v] = True, above
                waiting += [(u, v) for u in graph.neighbors(v) if not seen[u]]
    return parent


def tree_edges(parent: np.ndarray) -> dict[int, tuple[int, int]]:
    """The edge above each node that is no root."""
    return {v: (min(p, v), max(p, v)) for v, p in enumerate(parent.tolist()) if p >= 0}


def check(n: int, edges: list[tuple[int, int]], order: list[int], depth_first: bool) -> None:
    graph = igraph.Graph(n=n, edges=edges)
    first = parents(graph, order, depth_first=False)
    above = tree_edges(first)
    rest = igraph.Graph(n=n, edges=sorted(set(edges) - set(above.values())))
    second = parents(rest, order[::-1], depth_first)
    certificate = igraph.Graph(n=n, edges=[*above.values(), *tree_edges(second).values()])
    bridge, cut = cut_marks(first, second)
    assert bridge.dtype == cut.dtype == bool
    ends = {certificate.es[e].tuple for e in certificate.bridges()}
    assert len(bridge) == n and {above[v] for v in np.flatnonzero(bridge).tolist()} == ends
    assert np.flatnonzero(cut).tolist() == sorted(certificate.articulation_points())
    if not depth_first:  # a certificate of the whole graph, too
        assert len(ends) == len(graph.bridges())
        assert np.flatnonzero(cut).tolist() == sorted(graph.articulation_points())


@given(st.data(), st.integers(1, 24), st.booleans())
def test_any_graph(data: st.DataObject, n: int, depth_first: bool) -> None:
    pairs = [(u, v) for v in range(n) for u in range(v)]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=2 * n)) if pairs else []
    check(n, edges, data.draw(st.permutations(range(n))), depth_first)


@given(st.integers(0, 10**6), st.integers(0, 3), st.booleans())
def test_long_cycles_and_trees(seed: int, chords: int, depth_first: bool) -> None:
    """Paths of hundreds of nodes with a few chords: ways up that are long, and blocks that are."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 400))
    label = rng.permutation(n)
    reach = int(rng.integers(1, 4))
    found = {(v, v - int(rng.integers(1, min(v, reach) + 1))) for v in range(1, n)}
    found |= {(int(max(p)), int(min(p))) for p in rng.integers(0, n, (chords, 2)) if p[0] != p[1]}
    edges = [(int(min(label[[u, v]])), int(max(label[[u, v]]))) for u, v in found]
    check(n, edges, rng.permutation(n).tolist(), depth_first)


def test_graphs_without_edges() -> None:
    for n in (0, 1, 5):
        alone = np.full(n, -1, np.int32)
        assert [x.sum() for x in cut_marks(alone, alone)] == [0, 0]
