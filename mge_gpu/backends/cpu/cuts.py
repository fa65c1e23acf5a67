"""Cut edges and cut nodes: low points on the edges of two forests."""

import numpy as np

from mge_gpu.backends.cpu.compress import jit
from mge_gpu.backends.cpu.threads import num_threads, run

SLICES = 8
"""Parts of the components for each thread: one part holds more nodes than another."""


@jit
def forest_csr(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undirected CSR of the edges v - parent[v] of two edge-disjoint forests."""
    n = len(first)
    ptr = np.zeros(n + 1, np.int64)
    for v in range(n):
        for u in (first[v], second[v]):
            if u >= 0:
                ptr[v + 1] += 1
                ptr[u + 1] += 1
    for v in range(n):
        ptr[v + 1] += ptr[v]
    fill = ptr[:-1].copy()
    idx = np.empty(ptr[n], np.int32)
    for v in range(n):
        for u in (first[v], second[v]):
            if u >= 0:
                idx[fill[v]] = u
                fill[v] += 1
                idx[fill[u]] = v
                fill[u] += 1
    return ptr, idx


@jit
def _low_points(
    ptr: np.ndarray,
    idx: np.ndarray,
    roots: np.ndarray,
    order: np.ndarray,
    low: np.ndarray,
    up: np.ndarray,
    cursor: np.ndarray,
    bridge: np.ndarray,
    cut: np.ndarray,
) -> None:
    """Mark bridges at their lower ends, and articulation points, in the components of some roots (Tarjan)."""
    for r in range(len(roots)):
        root = np.int64(roots[r])
        clock = 1
        order[root] = low[root] = clock
        children, v = 0, root
        while True:
            if cursor[v] < ptr[v + 1]:
                u = idx[cursor[v]]
                cursor[v] += 1
                if order[u] == 0:
                    clock += 1
                    order[u] = low[u] = clock
                    up[u] = v
                    if v == root:
                        children += 1
                    v = u
                elif u != up[v]:
                    low[v] = min(low[v], order[u])
            else:
                if v == root:
                    break
                u = up[v]
                low[u] = min(low[u], low[v])
                if low[v] > order[u]:
                    bridge[v] = True
                if u != root and low[v] >= order[u]:
                    cut[u] = True
                v = u
        if children > 1:
            cut[root] = True


def cut_marks(ptr: np.ndarray, idx: np.ndarray, roots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bridges and articulation points of a simple undirected graph in CSR, each (N,) bool.

    A bridge is marked at one of its ends, another one for each. ``roots`` are nodes, one a component: some
    components a thread.
    """
    n = len(ptr) - 1
    order, low = (np.zeros(n, np.int32) for _ in range(2))
    up, cursor = np.full(n, -1, np.int32), ptr[:-1].copy()
    bridge, cut = (np.zeros(n, np.bool_) for _ in range(2))
    parts = max(1, min(len(roots), SLICES * num_threads()))
    ends = np.linspace(0, len(roots), parts + 1).astype(np.int64)

    def task(k: int) -> None:
        _low_points(ptr, idx, roots[ends[k] : ends[k + 1]], order, low, up, cursor, bridge, cut)

    run(task, parts)
    return bridge, cut
