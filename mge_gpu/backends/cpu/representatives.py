"""Nodes that stand for all: one a channel and class of positions with equal two-step surroundings."""

import weakref
from typing import NamedTuple

import numba
import numpy as np

from mge_gpu.backends.adjacency import OWN, Adjacency, arc_partitions, node_positions
from mge_gpu.backends.cpu.cliques import clique_partitions
from mge_gpu.backends.cpu.jit import jit, jit_in_place
from mge_gpu.backends.cpu.kinds import arc_kinds
from mge_gpu.backends.cpu.neighbours import place_of, spot
from mge_gpu.backends.cpu.threads import run


class Representatives(NamedTuple):
    """Nodes that stand for all nodes: ``node`` (R,) int64 and how many each stands for, (R,) int64."""

    node: np.ndarray
    multiplicity: np.ndarray


@jit_in_place
def _reached_positions(
    g: Adjacency, p: int, arc: int, channels: int, first: np.ndarray, reached: np.ndarray
) -> None:
    """Mark reached[class, position - anchor position] for all neighbours along an arc."""
    other = g.arc_other[arc]
    for k in range(g.arc_classes[arc]):
        a = np.int64(g.anchor[g.arc_position[arc] + first[k]])
        _, base = place_of(g, other, a)
        for c in range(channels):
            _, row = spot(g, arc, c, first[k], 0)
            for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
                for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                    _, x = place_of(g, other, a + g.span[m] + g.shifts[j])
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
    whole: np.ndarray,
    reach_at: np.ndarray,
    reach_ptr: np.ndarray,
    reach: np.ndarray,
    code: np.ndarray,
) -> None:
    """Two 64-bit hashes of what each position of partition p sees in two steps, up to shifts.

    An arc to all positions of a partition (``whole``) looks the same from everywhere. What it leads to
    differs only where it meets what is near: hence the classes of all that is near count as well.
    """
    n_parts = len(g.divisor)
    ref = np.zeros(n_parts, np.int64)
    seen = np.full(n_parts, -1, np.int64)
    one, two = np.uint64(1099511628211), np.uint64(0x9E3779B97F4A7C15)
    stop = g.arc_mid[p] if outward else g.arc_ptr[p + 1]
    far = False
    for arc in range(g.arc_ptr[p], stop):
        far |= whole[arc]
    for x in range(positions):
        h, i = np.uint64(14695981039346656037), np.uint64(88172645463325252)
        seen[p] = x
        ref[p] = g.offset[p] + x * stride
        if far:
            for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
                kind = np.int64(g.position_class[g.arc_position[arc] + x])
                h, i = _mix(h, kind, one), _mix(i, kind, two)
        for arc in range(g.arc_ptr[p], stop):
            q = g.arc_other[arc]
            k = g.position_class[g.arc_position[arc] + x]
            a = np.int64(g.anchor[g.arc_position[arc] + x])
            row = reach_at[arc] + k
            if whole[arc] or reach_ptr[row] == reach_ptr[row + 1]:  # the anchor means nothing
                for word in (np.int64(arc), np.int64(k)):
                    h, i = _mix(h, word, one), _mix(i, word, two)
                continue
            if seen[q] != x:
                seen[q] = x
                ref[q] = a
            for word in (np.int64(arc), np.int64(k), a - ref[q]):
                h, i = _mix(h, word, one), _mix(i, word, two)
            _, base = place_of(g, q, a)
            end = g.arc_mid[q] if outward else g.arc_ptr[q + 1]
            for j in range(reach_ptr[row], reach_ptr[row + 1]):
                y = base + reach[j]
                if far:
                    for further in range(g.arc_ptr[q], g.arc_ptr[q + 1]):
                        kind = np.int64(g.position_class[g.arc_position[further] + y])
                        h, i = _mix(h, kind, one), _mix(i, kind, two)
                for further in range(g.arc_ptr[q], end):
                    kind = np.int64(g.position_class[g.arc_position[further] + y])
                    place = reach_at[further] + kind
                    if whole[further] or reach_ptr[place] == reach_ptr[place + 1]:
                        for word in (np.int64(further), kind):
                            h, i = _mix(h, word, one), _mix(i, word, two)
                        continue
                    s = g.arc_other[further]
                    b = np.int64(g.anchor[g.arc_position[further] + y])
                    if seen[s] != x:
                        seen[s] = x
                        ref[s] = b
                    for word in (np.int64(further), kind, b - ref[s]):
                        h, i = _mix(h, word, one), _mix(i, word, two)
                    if far:
                        _, start = place_of(g, s, b)
                        for m in range(reach_ptr[place], reach_ptr[place + 1]):
                            z = start + reach[m]
                            for third in range(g.arc_ptr[s], g.arc_ptr[s + 1]):
                                last = z  # along an arc of another view each position may differ from all
                                if g.arc_view[third] == OWN:
                                    last = np.int64(g.position_class[g.arc_position[third] + z])
                                h, i = _mix(h, last, one), _mix(i, last, two)
        code[x, 0], code[x, 1] = h, i


def _irregular(g: Adjacency, whole: np.ndarray) -> np.ndarray:
    """(P,) bool: partitions whose nodes stand for themselves only.

    Those with an arc of another view, or next to one; and those whose 4-cliques may use an arc to all
    positions.
    """
    n = len(g.divisor)
    arcs = [slice(g.arc_ptr[p], g.arc_ptr[p + 1]) for p in range(n)]
    other = np.array([(g.arc_view[a] != OWN).any() for a in arcs], np.bool_)
    near = np.array([other[g.arc_other[a]].any() for a in arcs], np.bool_)
    inside = clique_partitions(g)
    wide = np.zeros((n, n), np.bool_)
    for p in range(n):
        wide[p, g.arc_other[arcs[p]][whole[arcs[p]]]] = True
    wide &= inside
    tied = wide.any(1) | wide.any(0)
    tied |= inside[:, tied].any(1)
    return other | near | tied


class _Surroundings(NamedTuple):
    """What does not depend on the direction."""

    whole: np.ndarray  # (A,) bool
    irregular: np.ndarray  # (P,) bool
    reach: tuple[np.ndarray, np.ndarray, np.ndarray]  # first row of each arc, row pointers, positions


_last: list[tuple[weakref.ref[np.ndarray], _Surroundings]] = []
"""Of the adjacency that was asked for last, as long as it lives: two metrics ask, each for its direction."""


def _surroundings(g: Adjacency) -> _Surroundings:
    for known, found in _last:
        if known() is g.shifts:
            return found
    whole = arc_kinds(g).whole
    irregular = _irregular(g, whole)
    found = _Surroundings(whole, irregular, _reach(g, irregular, whole))
    _last[:] = [(weakref.ref(g.shifts, lambda _: _last.clear()), found)]
    return found


def representatives(g: Adjacency, outward: bool) -> Representatives:
    """One node a channel and class of positions with the same two-step neighbourhood up to a shift.

    With ``outward`` along directed edges, else in the undirected graph.
    """
    whole, irregular, reach = _surroundings(g)

    def task(p: int) -> Representatives:
        channels, positions = node_positions(g, p)
        if irregular[p] or not channels * positions:
            nodes = np.arange(g.offset[p], g.offset[p + 1])
            return Representatives(nodes, np.ones(len(nodes), np.int64))
        first_fast = bool(g.channel_first[p])
        stride = 1 if first_fast else channels
        code = np.empty((positions, 2), np.uint64)
        _signatures(g, p, positions, stride, outward, whole, *reach, code)
        at, count = _classes(code)
        channel_stride = positions if first_fast else 1
        nodes = g.offset[p] + np.arange(channels)[:, None] * channel_stride + at[None] * stride
        return Representatives(nodes.ravel(), np.tile(count, channels))

    found = run(task, len(g.divisor))
    empty = [np.zeros(0, np.int64)]
    nodes, counts = ([r[k] for r in found] or empty for k in range(2))
    return Representatives(np.concatenate(nodes), np.concatenate(counts))


def _classes(code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the first position of each class, how many it has), by their signatures (positions, 2).

    Should two agree in the first hash alone, a class may come in several parts, which is right, too.
    """
    order = np.argsort(code[:, 0])
    start = np.flatnonzero(np.r_[True, (np.diff(code[order], axis=0) != 0).any(1)])
    return np.minimum.reduceat(order, start), np.diff(np.r_[start, len(order)])


def _reach(
    g: Adjacency, irregular: np.ndarray, whole: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions that each class of each arc reaches: (first row of each arc, row pointers, positions)."""
    start = np.zeros(len(g.arc_other) + 1, np.int64)
    start[1:] = np.cumsum(g.arc_classes)
    owner = arc_partitions(g)
    passed = ~irregular  # by the two steps from a regular partition
    passed[g.arc_other[passed[owner]]] = True

    def task(arc: int) -> tuple[np.ndarray, np.ndarray]:
        p = int(owner[arc])
        if whole[arc] or not passed[p]:  # not looked at
            return np.zeros(g.arc_classes[arc], np.int64), np.zeros(0, np.int64)
        channels, positions = node_positions(g, p)
        classes = g.position_class[g.arc_position[arc] : g.arc_position[arc] + positions]
        first = np.zeros(g.arc_classes[arc], np.int64)
        first[classes[::-1]] = np.arange(positions)[::-1]
        reached = np.zeros((len(first), node_positions(g, g.arc_other[arc])[1]), np.bool_)
        _reached_positions(g, p, arc, channels, first, reached)
        return reached.sum(1), np.nonzero(reached)[1]

    lengths, values = zip((np.zeros(1, np.int64), np.zeros(0, np.int64)), *run(task, len(owner)), strict=True)
    return start, np.cumsum(np.concatenate(lengths)), np.concatenate(values)
