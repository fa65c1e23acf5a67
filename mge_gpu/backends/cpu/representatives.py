"""Nodes that stand for all: one a channel and class of positions with equal two-step surroundings."""

from typing import NamedTuple

import numba
import numpy as np

from mge_gpu.backends.adjacency import Adjacency, node_positions
from mge_gpu.backends.cpu.compress import jit
from mge_gpu.backends.cpu.neighbours import place_of, row_of


class Representatives(NamedTuple):
    """Nodes that stand for all nodes: ``node`` (R,) int64 and how many each stands for, (R,) int64."""

    node: np.ndarray
    multiplicity: np.ndarray


@jit
def _reached_positions(
    g: Adjacency, p: int, arc: int, channels: int, first: np.ndarray, reached: np.ndarray
) -> None:
    """Mark reached[class, position - anchor position] for all shifts of an arc."""
    other = g.arc_other[arc]
    for k in range(g.arc_classes[arc]):
        a = g.anchor[g.arc_position[arc] + first[k]]
        _, base = place_of(g, other, a)
        for c in range(channels):
            r = row_of(g, arc, c, first[k])
            for j in range(g.row_ptr[r], g.row_ptr[r + 1]):
                _, x = place_of(g, other, a + g.shifts[j])
                reached[k, x - base] = True


@numba.njit(inline="always")
def _mix(h: np.uint64, x: int, prime: np.uint64) -> np.uint64:
    h = (h ^ np.uint64(x)) * prime
    return h ^ (h >> np.uint64(31))


@jit
def _signatures(
    g: Adjacency,
    p: int,
    positions: int,
    stride: int,
    outward: bool,
    reach_at: np.ndarray,
    reach_ptr: np.ndarray,
    reach: np.ndarray,
    code: np.ndarray,
) -> None:
    """Two 64-bit hashes of what each position of partition p sees in two steps, up to shifts."""
    n_parts = len(g.divisor)
    ref = np.zeros(n_parts, np.int64)
    seen = np.full(n_parts, -1, np.int64)
    one, two = np.uint64(1099511628211), np.uint64(0x9E3779B97F4A7C15)
    for x in range(positions):
        h, i = np.uint64(14695981039346656037), np.uint64(88172645463325252)
        seen[p] = x
        ref[p] = g.offset[p] + x * stride
        stop = g.arc_mid[p] if outward else g.arc_ptr[p + 1]
        for arc in range(g.arc_ptr[p], stop):
            q = g.arc_other[arc]
            k = g.position_class[g.arc_position[arc] + x]
            a = np.int64(g.anchor[g.arc_position[arc] + x])
            if seen[q] != x:
                seen[q] = x
                ref[q] = a
            for word in (np.int64(arc), np.int64(k), a - ref[q]):
                h, i = _mix(h, word, one), _mix(i, word, two)
            _, base = place_of(g, q, a)
            row = reach_at[arc] + k
            end = g.arc_mid[q] if outward else g.arc_ptr[q + 1]
            for j in range(reach_ptr[row], reach_ptr[row + 1]):
                y = base + reach[j]
                for further in range(g.arc_ptr[q], end):
                    s = g.arc_other[further]
                    b = np.int64(g.anchor[g.arc_position[further] + y])
                    if seen[s] != x:
                        seen[s] = x
                        ref[s] = b
                    kind = np.int64(g.position_class[g.arc_position[further] + y])
                    for word in (np.int64(further), kind, b - ref[s]):
                        h, i = _mix(h, word, one), _mix(i, word, two)
        code[x, 0], code[x, 1] = h, i


def representatives(g: Adjacency, outward: bool) -> Representatives:
    """One node a channel and class of positions with the same two-step neighbourhood up to a shift.

    With ``outward`` along directed edges, else in the undirected graph.
    """
    arcs = len(g.arc_other)
    reach_at = np.zeros(arcs + 1, np.int64)
    reach_at[1:] = np.cumsum(g.arc_classes)
    lengths, values = [], []
    for p in range(len(g.divisor)):
        channels, positions = node_positions(g, p)
        for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
            classes = g.position_class[g.arc_position[arc] : g.arc_position[arc] + positions]
            first = np.zeros(g.arc_classes[arc], np.int64)
            first[classes[::-1]] = np.arange(positions)[::-1]
            reached = np.zeros((len(first), node_positions(g, g.arc_other[arc])[1]), np.bool_)
            _reached_positions(g, p, arc, channels, first, reached)
            lengths.append(reached.sum(1))
            values.append(np.nonzero(reached)[1])
    empty = [np.zeros(0, np.int64)]
    reach_ptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths or empty))]).astype(np.int64)
    reach = np.concatenate(values or empty)
    nodes, counts = [], []
    for p in range(len(g.divisor)):
        channels, positions = node_positions(g, p)
        if not channels * positions:
            continue
        first_fast = bool(g.channel_first[p])
        stride = 1 if first_fast else channels
        code = np.empty((positions, 2), np.uint64)
        _signatures(g, p, positions, stride, outward, reach_at, reach_ptr, reach, code)
        _, at, count = np.unique(code, axis=0, return_index=True, return_counts=True)
        channel_stride = positions if first_fast else 1
        nodes.append(
            (g.offset[p] + np.arange(channels)[:, None] * channel_stride + at[None] * stride).ravel()
        )
        counts.append(np.tile(count, channels))
    return Representatives(np.concatenate(nodes or empty), np.concatenate(counts or empty))
