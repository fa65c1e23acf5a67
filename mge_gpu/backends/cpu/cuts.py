"""Cut edges and cut nodes: low points on the edges of two forests."""

import numpy as np

from mge_gpu.backends.cpu.compress import jit


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
def undirected_csr(n: int, source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undirected CSR of a list of edges on n nodes."""
    ptr = np.zeros(n + 1, np.int64)
    for k in range(len(source)):
        ptr[source[k] + 1] += 1
        ptr[target[k] + 1] += 1
    for v in range(n):
        ptr[v + 1] += ptr[v]
    fill = ptr[:-1].copy()
    idx = np.empty(ptr[n], np.int32)
    for k in range(len(source)):
        u, v = source[k], target[k]
        idx[fill[u]] = v
        fill[u] += 1
        idx[fill[v]] = u
        fill[v] += 1
    return ptr, idx


@jit
def low_points(ptr: np.ndarray, idx: np.ndarray) -> tuple[int, int]:
    """(bridges, articulation points) of a simple undirected graph in CSR, by Tarjan's low points."""
    n = len(ptr) - 1
    order = np.zeros(n, np.int32)
    low = np.zeros(n, np.int32)
    up = np.full(n, -1, np.int32)
    cursor = ptr[:-1].copy()
    cut = np.zeros(n, np.bool_)
    bridges, articulation, clock = 0, 0, 0
    for root in range(n):
        if order[root]:
            continue
        clock += 1
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
                    bridges += 1
                if u != root and low[v] >= order[u]:
                    cut[u] = True
                v = u
        if children > 1:
            cut[root] = True
    for v in range(n):
        articulation += cut[v]
    return bridges, articulation
