"""The neighbour iterator of the compressed adjacency, and what needs row lengths only."""

import numba
import numpy as np

from mge_gpu.backends.adjacency import Adjacency
from mge_gpu.backends.cpu.compress import jit


@numba.njit(inline="always")
def partition_of(g: Adjacency, v: int) -> int:
    """The partition that holds node v."""
    low, high = 0, len(g.divisor)
    while high - low > 1:
        mid = (low + high) // 2
        if g.offset[mid] <= v:
            low = mid
        else:
            high = mid
    return low


@numba.njit(inline="always")
def place_of(g: Adjacency, p: int, v: int) -> tuple[int, int]:
    """(channel, position) of node v of partition p."""
    local = np.uint32(v - g.offset[p])
    d = np.uint32(g.divisor[p])
    q = local // d
    r = local - q * d
    if g.channel_first[p]:
        return np.int64(q), np.int64(r)
    return np.int64(r), np.int64(q)


@numba.njit(inline="always")
def row_of(g: Adjacency, arc: int, channel: int, position: int) -> int:
    """The row of an arc that lists the neighbours of (channel, position)."""
    at = g.arc_position[arc] + position
    return g.arc_row[arc] + channel * g.arc_classes[arc] + g.position_class[at]


@jit
def degrees(g: Adjacency, indeg: np.ndarray, outdeg: np.ndarray) -> None:
    """Row lengths of each node, (N,) int64 each."""
    for p in range(len(g.divisor)):
        for v in range(g.offset[p], g.offset[p + 1]):
            c, x = place_of(g, p, v)
            n = 0
            for arc in range(g.arc_ptr[p], g.arc_mid[p]):
                r = row_of(g, arc, c, x)
                n += g.row_ptr[r + 1] - g.row_ptr[r]
            outdeg[v] = n
            n = 0
            for arc in range(g.arc_mid[p], g.arc_ptr[p + 1]):
                r = row_of(g, arc, c, x)
                n += g.row_ptr[r + 1] - g.row_ptr[r]
            indeg[v] = n


@jit
def neighbour_sums(g: Adjacency, x: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
    """Sum of x over the out-neighbours of nodes start..stop."""
    p = partition_of(g, start)
    for v in range(start, stop):
        while v >= g.offset[p + 1]:
            p += 1
        c, pos = place_of(g, p, v)
        total = 0
        for arc in range(g.arc_ptr[p], g.arc_mid[p]):
            r = row_of(g, arc, c, pos)
            a = g.anchor[g.arc_position[arc] + pos]
            for j in range(g.row_ptr[r], g.row_ptr[r + 1]):
                total += x[a + g.shifts[j]]
        out[v] = total
