"""Breadth-first search, components, and the two forests that certify cut edges and cut nodes."""

import numpy as np

from mge_gpu.backends.adjacency import Adjacency
from mge_gpu.backends.cpu.compress import jit
from mge_gpu.backends.cpu.neighbours import partition_of, place_of, row_of


@jit
def forest(g: Adjacency, without: np.ndarray, parent: np.ndarray, queue: np.ndarray) -> int:
    """A maximal BFS forest of the undirected graph; returns the number of trees.

    ``parent`` (N,) int32 receives -1 at roots. Where ``without`` has length N it is the parent array
    of another forest, whose edges are left out of the graph.
    """
    n = g.offset[len(g.divisor)]
    skip = len(without) == n
    for v in range(n):
        parent[v] = -2
    trees = 0
    for root in range(n):
        if parent[root] != -2:
            continue
        trees += 1
        parent[root] = -1
        queue[0] = root
        head, tail = 0, 1
        while head < tail:
            v = queue[head]
            head += 1
            p = partition_of(g, v)
            c, x = place_of(g, p, v)
            for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
                r = row_of(g, arc, c, x)
                a = g.anchor[g.arc_position[arc] + x]
                for j in range(g.row_ptr[r], g.row_ptr[r + 1]):
                    u = a + g.shifts[j]
                    if parent[u] != -2:
                        continue
                    if skip and (without[u] == v or without[v] == u):
                        continue
                    parent[u] = v
                    queue[tail] = u
                    tail += 1
    return trees


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
