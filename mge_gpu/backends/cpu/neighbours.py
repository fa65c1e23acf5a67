"""The neighbour iterator of the compressed adjacency, and what needs list lengths or one pass only.

The loop "for each neighbour of v along an arc" is written out wherever it is needed (numba inlines no
generator without cost):

    at, row = spot(g, arc, c, x, v - g.offset[p])
    for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
        a = g.anchor[at] + g.span[m]
        for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
            u = a + g.shifts[j]

Where only some u matter, those in [low, high), `first_shift` finds where they begin: lists ascend.
"""

import numba
import numpy as np

from mge_gpu.backends.adjacency import CROSSED, FLAT, Adjacency
from mge_gpu.backends.cpu.jit import jit_in_place


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
def spot(g: Adjacency, arc: int, channel: int, position: int, local: int) -> tuple[int, int]:
    """(index into the arrays of positions, list) of a node, number ``local`` of its partition."""
    view = g.arc_view[arc]
    if view == FLAT:
        at = g.arc_position[arc] + local
        return at, g.row_list[g.arc_row[arc] + g.position_class[at]]
    if view == CROSSED:
        channel, position = position, channel
    at = g.arc_position[arc] + position
    return at, g.row_list[g.arc_row[arc] + channel * g.arc_classes[arc] + g.position_class[at]]


@numba.njit(inline="always")
def first_shift(g: Adjacency, low: int, high: int, bound: int) -> int:
    """The first j in [low, high) with shifts[j] >= bound, or high."""
    while low < high:
        mid = (low + high) // 2
        if g.shifts[mid] < bound:
            low = mid + 1
        else:
            high = mid
    return low


@jit_in_place
def degrees(g: Adjacency, start: int, stop: int, indeg: np.ndarray, outdeg: np.ndarray) -> None:
    """List lengths of nodes start..stop, (N,) int32 each."""
    p = partition_of(g, start)
    for v in range(start, stop):
        while v >= g.offset[p + 1]:
            p += 1
        c, x = place_of(g, p, v)
        out, total = np.int64(0), np.int64(0)
        for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
            if arc == g.arc_mid[p]:
                out = total
            _, row = spot(g, arc, c, x, v - g.offset[p])
            total += (g.list_ptr[row + 1] - g.list_ptr[row]) * (g.span_ptr[arc + 1] - g.span_ptr[arc])
        if g.arc_mid[p] == g.arc_ptr[p + 1]:
            out = total
        outdeg[v] = out
        indeg[v] = total - out


@jit_in_place
def hub_sums(g: Adjacency, x: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
    """Sum of x over the neighbours of hubs start..stop."""
    for h in range(start, stop):
        arc, row = g.hub_arc[h], g.hub_list[h]
        if row < 0:
            continue
        total = 0
        for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
            a = np.int64(g.hub_anchor[h]) + g.span[m]
            for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                total += x[a + g.shifts[j]]
        out[h] = total


@jit_in_place
def neighbour_sums(
    g: Adjacency, x: np.ndarray, shared: np.ndarray, start: int, stop: int, out: np.ndarray
) -> None:
    """Sum of x over the out-neighbours of nodes start..stop; ``shared`` is what `hub_sums` wrote."""
    p = partition_of(g, start)
    for v in range(start, stop):
        while v >= g.offset[p + 1]:
            p += 1
        c, pos = place_of(g, p, v)
        total = 0
        for arc in range(g.arc_ptr[p], g.arc_mid[p]):
            at, row = spot(g, arc, c, pos, v - g.offset[p])
            if g.list_hub[row] >= 0:
                total += shared[g.list_hub[row] + g.position_group[at]]
                continue
            for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
                a = np.int64(g.anchor[at]) + g.span[m]
                for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                    total += x[a + g.shifts[j]]
        out[v] = total
