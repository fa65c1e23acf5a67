"""Two-step neighbourhoods, counted once for each channel and class of positions that see the same."""

from typing import NamedTuple

import numba
import numpy as np

from mge_gpu.backends.adjacency import Adjacency, node_positions
from mge_gpu.backends.cpu.compress import jit
from mge_gpu.backends.cpu.neighbours import place_of, row_of
from mge_gpu.backends.cpu.threads import balanced, num_threads, run


class Representatives(NamedTuple):
    """Nodes that stand for all nodes: ``node`` (R,) int64 and how many each stands for, (R,) int64."""

    node: np.ndarray
    multiplicity: np.ndarray


@jit
def _reached_positions(g: Adjacency, p: int, arc: int, channels: int, first: np.ndarray, reached: np.ndarray) -> None:
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
def _signatures(g: Adjacency, p: int, positions: int, stride: int, outward: bool, reach_at: np.ndarray,
                reach_ptr: np.ndarray, reach: np.ndarray, code: np.ndarray) -> None:  # fmt: skip
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
        nodes.append((g.offset[p] + np.arange(channels)[:, None] * channel_stride + at[None] * stride).ravel())
        counts.append(np.tile(count, channels))
    return Representatives(np.concatenate(nodes or empty), np.concatenate(counts or empty))


@jit
def _two_hop(g: Adjacency, owner: np.ndarray, node: np.ndarray, times: np.ndarray, first: int, last: int,
             stamp: np.ndarray) -> int:  # fmt: skip
    total = 0
    for k in range(first, last):
        v, p = node[k], owner[k]
        c, x = place_of(g, p, v)
        stamp[v] = k
        size = 1
        for arc in range(g.arc_ptr[p], g.arc_mid[p]):
            r = row_of(g, arc, c, x)
            a = g.anchor[g.arc_position[arc] + x]
            q = g.arc_other[arc]
            for j in range(g.row_ptr[r], g.row_ptr[r + 1]):
                u = a + g.shifts[j]
                if stamp[u] != k:
                    stamp[u] = k
                    size += 1
                d, y = place_of(g, q, u)
                for further in range(g.arc_ptr[q], g.arc_mid[q]):
                    s = row_of(g, further, d, y)
                    b = g.anchor[g.arc_position[further] + y]
                    for i in range(g.row_ptr[s], g.row_ptr[s + 1]):
                        w = b + g.shifts[i]
                        if stamp[w] != k:
                            stamp[w] = k
                            size += 1
        total += size * times[k]
    return total


@jit
def _path_counts(g: Adjacency, owner: np.ndarray, node: np.ndarray, degree: np.ndarray, outdeg: np.ndarray,
                 directed: bool, cost: np.ndarray, first: int, last: int) -> None:  # fmt: skip
    """Steps that a two-step walk from each representative takes."""
    for k in range(first, last):
        v, p = node[k], owner[k]
        c, x = place_of(g, p, v)
        stop = g.arc_mid[p] if directed else g.arc_ptr[p + 1]
        n = 1
        for arc in range(g.arc_ptr[p], stop):
            r = row_of(g, arc, c, x)
            a = g.anchor[g.arc_position[arc] + x]
            for j in range(g.row_ptr[r], g.row_ptr[r + 1]):
                u = a + g.shifts[j]
                n += outdeg[u] if directed else degree[u]
        cost[k] = n


@jit
def _wedges(g: Adjacency, owner: np.ndarray, node: np.ndarray, times: np.ndarray, degree: np.ndarray, first: int,
            last: int, count: np.ndarray, out: np.ndarray) -> None:  # fmt: skip
    """Sums over representatives u of: C(codegree(u, v), 2) over all v; t_uv and C(t_uv, 2) over
    neighbours v (t_uv triangles on the edge); t_u (d_u - 2). ``count`` is a zero int32 array."""
    capacity = 1024
    touched = np.empty(capacity, np.int32)
    for k in range(first, last):
        v, p = node[k], owner[k]
        c, x = place_of(g, p, v)
        n = 0
        for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
            r = row_of(g, arc, c, x)
            a = g.anchor[g.arc_position[arc] + x]
            q = g.arc_other[arc]
            for j in range(g.row_ptr[r], g.row_ptr[r + 1]):
                d, y = place_of(g, q, a + g.shifts[j])
                for further in range(g.arc_ptr[q], g.arc_ptr[q + 1]):
                    s = row_of(g, further, d, y)
                    b = g.anchor[g.arc_position[further] + y]
                    lo, hi = g.row_ptr[s], g.row_ptr[s + 1]
                    if n + hi - lo > capacity:
                        capacity = 2 * (n + hi - lo)
                        grown = np.empty(capacity, np.int32)
                        grown[:n] = touched[:n]
                        touched = grown
                    for i in range(lo, hi):
                        w = b + g.shifts[i]
                        if count[w] == 0:
                            touched[n] = w
                            n += 1
                        count[w] += 1
        count[v] = 0
        squares = 0
        for i in range(n):
            m = np.int64(count[touched[i]])
            squares += m * (m - 1) // 2
        tri, pairs = 0, 0
        for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
            r = row_of(g, arc, c, x)
            a = g.anchor[g.arc_position[arc] + x]
            for j in range(g.row_ptr[r], g.row_ptr[r + 1]):
                t = np.int64(count[a + g.shifts[j]])
                tri += t
                pairs += t * (t - 1) // 2
        for i in range(n):
            count[touched[i]] = 0
        out[0] += squares * times[k]
        out[1] += tri * times[k]
        out[2] += pairs * times[k]
        out[3] += (tri // 2) * (degree[v] - 2) * times[k]


@jit
def _cliques(g: Adjacency, owner: np.ndarray, node: np.ndarray, times: np.ndarray, first: int, last: int,
             near: np.ndarray, both: np.ndarray, members: np.ndarray) -> int:  # fmt: skip
    """24 times the number of 4-cliques, summed over representatives."""
    total = 0
    stamp = 0
    for k in range(first, last):
        v, p = node[k], owner[k]
        c, x = place_of(g, p, v)
        for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
            r = row_of(g, arc, c, x)
            a = g.anchor[g.arc_position[arc] + x]
            for j in range(g.row_ptr[r], g.row_ptr[r + 1]):
                near[a + g.shifts[j]] = k + 1
        found = 0
        for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
            r = row_of(g, arc, c, x)
            a = g.anchor[g.arc_position[arc] + x]
            q = g.arc_other[arc]
            for j in range(g.row_ptr[r], g.row_ptr[r + 1]):
                u = a + g.shifts[j]
                stamp += 1
                n = 0
                d, y = place_of(g, q, u)
                for further in range(g.arc_ptr[q], g.arc_ptr[q + 1]):
                    s = row_of(g, further, d, y)
                    b = g.anchor[g.arc_position[further] + y]
                    for i in range(g.row_ptr[s], g.row_ptr[s + 1]):
                        w = b + g.shifts[i]
                        if near[w] == k + 1:
                            both[w] = stamp
                            members[n] = w
                            n += 1
                if n < 2:
                    continue
                for m in range(n):
                    w = np.int64(members[m])
                    o = 0
                    while w >= g.offset[o + 1]:
                        o += 1
                    e, z = place_of(g, o, w)
                    for third in range(g.arc_ptr[o], g.arc_ptr[o + 1]):
                        s = row_of(g, third, e, z)
                        b = g.anchor[g.arc_position[third] + z]
                        for i in range(g.row_ptr[s], g.row_ptr[s + 1]):
                            if both[b + g.shifts[i]] == stamp:
                                found += 1
        total += found * times[k]
    return total


def _owners(g: Adjacency, nodes: np.ndarray) -> np.ndarray:
    return np.searchsorted(g.offset, nodes, side="right") - 1


def path_counts(g: Adjacency, reps: Representatives, outdeg: np.ndarray, degree: np.ndarray,
                directed: bool) -> np.ndarray:  # fmt: skip
    """Steps of a two-step walk from each representative, (R,) int64: the cost of the counts below."""
    owner = _owners(g, reps.node)
    cost = np.empty(len(reps.node), np.int64)
    cuts = balanced(np.ones(len(cost)), 4 * num_threads())
    run(lambda k: _path_counts(g, owner, reps.node, degree, outdeg, directed, cost, cuts[k], cuts[k + 1]), len(cuts) - 1)
    return cost


def two_hop_total(g: Adjacency, reps: Representatives, cost: np.ndarray) -> int:
    """Sum over all nodes of the nodes within two directed steps, themselves included."""
    owner = _owners(g, reps.node)
    cuts = balanced(cost, num_threads())

    def task(k: int) -> int:
        stamp = np.full(g.num_nodes, -1, np.int32)
        return int(_two_hop(g, owner, reps.node, reps.multiplicity, cuts[k], cuts[k + 1], stamp))

    return sum(run(task, len(cuts) - 1))


def wedge_sums(g: Adjacency, reps: Representatives, cost: np.ndarray, degree: np.ndarray) -> tuple[int, int, int, int]:
    """(4-cycles, triangles, diamonds, paws), non-induced, of the undirected graph."""
    owner = _owners(g, reps.node)
    cuts = balanced(cost, num_threads())

    def task(k: int) -> np.ndarray:
        count = np.zeros(g.num_nodes, np.int32)
        out = np.zeros(4, np.int64)
        _wedges(g, owner, reps.node, reps.multiplicity, degree, cuts[k], cuts[k + 1], count, out)
        return out

    squares, corners, pairs, paws = (int(x) for x in sum(run(task, len(cuts) - 1)))
    return squares // 4, corners // 6, pairs // 2, paws


def clique_count(g: Adjacency, reps: Representatives, cost: np.ndarray, max_degree: int) -> int:
    """4-cliques of the undirected graph; zero at once where no four partitions are mutually linked."""
    if not _has_partition_clique(g):
        return 0
    owner = _owners(g, reps.node)
    cuts = balanced(cost, num_threads())

    def task(k: int) -> int:
        near, both = (np.zeros(g.num_nodes, np.int64) for _ in range(2))
        members = np.empty(max_degree, np.int32)
        return int(_cliques(g, owner, reps.node, reps.multiplicity, cuts[k], cuts[k + 1], near, both, members))

    return sum(run(task, len(cuts) - 1)) // 24


def _has_partition_clique(g: Adjacency) -> bool:
    n = len(g.divisor)
    linked = [set(g.arc_other[g.arc_ptr[p] : g.arc_ptr[p + 1]].tolist()) for p in range(n)]
    for a in range(n):
        for b in (x for x in linked[a] if x > a):
            common = {x for x in linked[a] & linked[b] if x > b}
            if any(linked[c] & common for c in common):
                return True
    return False
