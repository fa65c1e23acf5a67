"""The topometrics by other people's code on edges that are written down, and motifs by a plain CSR loop."""

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import scipy.sparse as sp

Edges = tuple[np.ndarray, np.ndarray, np.ndarray]


def timed(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, float]:
    """A call's result and its seconds."""
    begin = time.perf_counter()
    found = call(*args, **kwargs)
    return found, time.perf_counter() - begin


def degree_metrics(n: int, edges: Edges, inputs: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """What degrees and weights say, by NumPy; ``inputs`` and ``outputs`` are (N,) masks."""
    source, target, weight = edges
    outdeg, indeg = (np.bincount(x, minlength=n) for x in (source, target))
    sink, start = (indeg > 0) & (outdeg == 0) & ~outputs, (indeg == 0) & (outdeg > 0) & ~inputs
    return {
        "nodes": n,
        "edges": len(source),
        "sink_nodes": int(sink.sum()),
        "source_nodes": int(start.sum()),
        "disconnected_nodes": int((indeg + outdeg == 0).sum()),
        "removable_out": int(indeg[sink].sum()),
        "removable_in": int(outdeg[start].sum()),
        "one_hop": 1 + len(source) / n,
        "strength": 2 * float(weight.sum(dtype=np.float64)) / n,
    }


def scipy_metrics(n: int, edges: Edges, rows: int = 1024) -> Iterator[tuple[str, float, float]]:
    """(metric, value, seconds): spectra by ARPACK at 1e-9, two-step neighbourhoods by sparse products."""
    from scipy.sparse.linalg import eigsh

    half = sp.csr_array((edges[2].astype(np.float64), (edges[0], edges[1])), shape=(n, n))
    full = half + half.T
    start = np.random.default_rng(0).standard_normal(n)
    found, seconds = timed(eigsh, full, 4, which="LM", ncv=40, v0=start, tol=1e-9, return_eigenvectors=False)
    values = np.sort(np.abs(found))[::-1]
    yield "spectral_gap", float(values[0] - values[2]), seconds
    laplacian = sp.csr_array(sp.diags_array(np.asarray(full.sum(axis=1)).ravel()) - full)
    del full
    found, seconds = timed(
        eigsh, laplacian, 1, which="LA", ncv=20, v0=start, tol=1e-9, return_eigenvectors=False
    )
    yield "spectral_radius", float(found[0]), seconds
    del laplacian
    pattern = sp.csr_array((np.ones(half.nnz, np.int8), half.indices, half.indptr), shape=(n, n))
    del half
    near = (pattern.astype(bool) + sp.eye_array(n, dtype=bool)).tocsr()
    total, seconds = timed(lambda: sum((near[k : k + rows] @ near).nnz for k in range(0, n, rows)))
    yield "two_hop", total / n, seconds


def igraph_metrics(n: int, edges: Edges) -> Iterator[tuple[str, float, float]]:
    """(metric, value, seconds) on an undirected igraph.Graph."""
    import igraph

    pairs = np.stack(edges[:2], 1)
    graph = igraph.Graph(n=n, edges=pairs, directed=False)
    del pairs
    gc.collect()
    components, seconds = timed(lambda: len(graph.connected_components()))
    yield "components", components, seconds
    yield "component_size", n / components, seconds
    core, seconds = timed(lambda: float(np.mean(graph.coreness())))
    yield "k_core", core, seconds
    bridges, seconds = timed(lambda: len(graph.bridges()))
    yield "cut_edges", bridges, seconds
    nodes, seconds = timed(lambda: len(graph.articulation_points()))
    yield "cut_nodes", nodes, seconds


@numba.njit(cache=True, parallel=True)
def _squares(ptr: np.ndarray, idx: np.ndarray, parts: int) -> int:
    """4-cycles. Nodes are numbered by degree: v counts its two-step ends below itself through nodes below."""
    n = len(ptr) - 1
    found = np.zeros(parts, np.int64)
    for part in numba.prange(parts):
        count = np.zeros(n, np.int32)
        for v in range(part, n, parts):
            for i in range(ptr[v], ptr[v + 1]):
                u = idx[i]
                if u >= v:
                    break
                for j in range(ptr[u], ptr[u + 1]):
                    w = idx[j]
                    if w >= v:
                        break
                    found[part] += count[w]
                    count[w] += 1
            for i in range(ptr[v], ptr[v + 1]):
                u = idx[i]
                if u >= v:
                    break
                for j in range(ptr[u], ptr[u + 1]):
                    if idx[j] >= v:
                        break
                    count[idx[j]] = 0
    return found.sum()


@numba.njit(cache=True)
def _triangles(ptr: np.ndarray, idx: np.ndarray, at_edge: np.ndarray) -> None:
    """Triangles at each edge, noted at its larger end's entry for the smaller end."""
    n = len(ptr) - 1
    where = np.full(n, -1, np.int64)
    for v in range(n):
        for i in range(ptr[v], ptr[v + 1]):
            if idx[i] >= v:
                break
            where[idx[i]] = i
        for i in range(ptr[v], ptr[v + 1]):
            u = idx[i]
            if u >= v:
                break
            for j in range(ptr[u], ptr[u + 1]):
                w = idx[j]
                if w >= u:
                    break
                if where[w] >= 0:
                    at_edge[i] += 1
                    at_edge[j] += 1
                    at_edge[where[w]] += 1
        for i in range(ptr[v], ptr[v + 1]):
            if idx[i] >= v:
                break
            where[idx[i]] = -1


def motifs(n: int, edges: Edges, owner: np.ndarray) -> int:
    """Connected induced 4-node subgraphs of a graph in which no four partitions are mutually linked.

    4-cycles and triangles are enumerated on a CSR of the nodes renumbered by degree.
    """
    assert no_four_linked(edges, owner), "4-cliques are possible; this count leaves them out"
    degree = np.bincount(edges[0], minlength=n) + np.bincount(edges[1], minlength=n)
    rank = np.empty(n, np.int32)
    rank[np.argsort(degree, kind="stable")] = np.arange(n, dtype=np.int32)
    a, b = rank[edges[0]], rank[edges[1]]
    half = sp.csr_array((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    del a, b
    full = (half + half.T).tocsr()
    full.sort_indices()
    ptr, idx = full.indptr, full.indices
    squares = int(_squares(ptr, idx, 64))
    at_edge = np.zeros(len(idx), np.int32)
    _triangles(ptr, idx, at_edge)
    large = np.repeat(np.arange(n), np.diff(ptr))
    at_node = np.bincount(large, at_edge, n) + np.bincount(idx, at_edge, n)
    degree = np.sort(degree, kind="stable").astype(np.int64)
    triangles = int(at_edge.sum(dtype=np.int64)) // 3
    diamonds = int((at_edge.astype(np.int64) * (at_edge.astype(np.int64) - 1) // 2).sum())
    paws = int((at_node.astype(np.int64) // 2 * np.maximum(degree - 2, 0)).sum())
    less = degree - 1
    ends = sum(
        int(less[i : i + 4096] @ (full[i : i + 4096].astype(np.int64) @ less)) for i in range(0, n, 4096)
    )
    claws = sum(
        int(d) * (int(d) - 1) * (int(d) - 2) // 6 * int(c)
        for d, c in zip(*np.unique(degree, return_counts=True), strict=True)
    )
    return ends // 2 - 3 * triangles + claws - 3 * squares - 2 * paws + 4 * diamonds


def no_four_linked(edges: Edges, owner: np.ndarray) -> bool:
    """Whether no four partitions are mutually linked."""
    pairs = np.unique(owner[edges[0]] * 10_000 + owner[edges[1]])
    near: dict[int, set[int]] = {}
    for s, t in zip((pairs // 10_000).tolist(), (pairs % 10_000).tolist(), strict=True):
        near.setdefault(s, set()).add(t)
        near.setdefault(t, set()).add(s)
    return not any(
        near[c] & near[a] & near[b] - {a, b} for a in near for b in near[a] for c in near[a] & near[b]
    )
