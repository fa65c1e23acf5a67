"""Core numbers by bucket-queue peeling (Batagelj and Zaversnik, 2003)."""

import numpy as np

from mge_gpu.backends.adjacency import Adjacency
from mge_gpu.backends.cpu.compress import jit
from mge_gpu.backends.cpu.neighbours import partition_of, place_of, row_of


@jit
def coreness(g: Adjacency, degree: np.ndarray) -> None:
    """Turn the undirected degrees (N,) int32 into core numbers, in place. O(N + E) time, O(N) memory."""
    n = len(degree)
    top = 0
    for v in range(n):
        top = max(top, degree[v])
    start = np.zeros(top + 2, np.int64)
    for v in range(n):
        start[degree[v] + 1] += 1
    for d in range(top + 1):
        start[d + 1] += start[d]
    spot = np.empty(n, np.int32)
    order = np.empty(n, np.int32)
    fill = start[:-1].copy()
    for v in range(n):
        spot[v] = fill[degree[v]]
        order[spot[v]] = v
        fill[degree[v]] += 1
    for k in range(n):
        v = order[k]
        d = degree[v]
        p = partition_of(g, v)
        c, x = place_of(g, p, v)
        for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
            r = row_of(g, arc, c, x)
            a = g.anchor[g.arc_position[arc] + x]
            for j in range(g.row_ptr[r], g.row_ptr[r + 1]):
                u = a + g.shifts[j]
                du = degree[u]
                if du > d:  # move u to the front of its bucket, then shrink the bucket from below
                    su, sw = spot[u], start[du]
                    w = order[sw]
                    if u != w:
                        order[su], order[sw] = w, u
                        spot[u], spot[w] = sw, su
                    start[du] += 1
                    degree[u] = du - 1
