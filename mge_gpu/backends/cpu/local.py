"""What a node sees within two steps: sizes, squares, triangles, cliques."""

import numpy as np

from mge_gpu.backends.adjacency import Adjacency
from mge_gpu.backends.cpu.compress import jit
from mge_gpu.backends.cpu.neighbours import place_of, row_of
from mge_gpu.backends.cpu.threads import balanced, num_threads, run


@jit
def _two_hop(
    g: Adjacency,
    owner: np.ndarray,
    node: np.ndarray,
    first: int,
    last: int,
    stamp: np.ndarray,
    out: np.ndarray,
) -> None:
    """Nodes within two directed steps of each node, itself included. ``stamp`` is (N,) of -1."""
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
        out[k] = size


@jit
def _path_counts(
    g: Adjacency,
    owner: np.ndarray,
    node: np.ndarray,
    degree: np.ndarray,
    outdeg: np.ndarray,
    directed: bool,
    cost: np.ndarray,
    first: int,
    last: int,
) -> None:
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
def _wedges(
    g: Adjacency,
    owner: np.ndarray,
    node: np.ndarray,
    first: int,
    last: int,
    count: np.ndarray,
    out: np.ndarray,
) -> None:
    """For each node u, in the columns of out: the sum of C(codegree(u, v), 2) over all v; the sums of
    t_uv and of C(t_uv, 2) over its neighbours v (t_uv triangles on the edge). ``count`` is (N,) of 0."""
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
        out[k, 0], out[k, 1], out[k, 2] = squares, tri, pairs


@jit
def _cliques(
    g: Adjacency,
    owner: np.ndarray,
    node: np.ndarray,
    first: int,
    last: int,
    near: np.ndarray,
    both: np.ndarray,
    members: np.ndarray,
    out: np.ndarray,
) -> None:
    """Six times the number of 4-cliques that each node is part of."""
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
        out[k] = found


def _owners(g: Adjacency, nodes: np.ndarray) -> np.ndarray:
    return np.searchsorted(g.offset, nodes, side="right") - 1


def path_counts(
    g: Adjacency, nodes: np.ndarray, degree: np.ndarray, outdeg: np.ndarray, directed: bool
) -> np.ndarray:
    """Two-step walks from each node plus one, (R,) int64: the cost of the counts below."""
    owner = _owners(g, nodes)
    cost = np.empty(len(nodes), np.int64)
    cuts = balanced(np.ones(len(cost)), 4 * num_threads())
    run(
        lambda k: _path_counts(g, owner, nodes, degree, outdeg, directed, cost, cuts[k], cuts[k + 1]),
        len(cuts) - 1,
    )
    return cost


def two_hop_sizes(g: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Nodes within two directed steps of each node, itself included, (R,) int64."""
    owner, out = _owners(g, nodes), np.empty(len(nodes), np.int64)
    cuts = balanced(cost, num_threads())

    def task(k: int) -> None:
        _two_hop(g, owner, nodes, cuts[k], cuts[k + 1], np.full(g.num_nodes, -1, np.int32), out)

    run(task, len(cuts) - 1)
    return out


def wedge_counts(g: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Squares and triangles at each node, (R, 3) int64.

    Columns: sum of C(codegree(u, v), 2) over all v; sum of t_uv over neighbours v; sum of C(t_uv, 2).
    """
    owner, out = _owners(g, nodes), np.empty((len(nodes), 3), np.int64)
    cuts = balanced(cost, num_threads())

    def task(k: int) -> None:
        _wedges(g, owner, nodes, cuts[k], cuts[k + 1], np.zeros(g.num_nodes, np.int32), out)

    run(task, len(cuts) - 1)
    return out


def clique_counts(g: Adjacency, nodes: np.ndarray, cost: np.ndarray, max_degree: int) -> np.ndarray:
    """Six times the number of 4-cliques at each node, (R,) int64."""
    out = np.zeros(len(nodes), np.int64)
    if not has_partition_clique(g):
        return out
    owner = _owners(g, nodes)
    cuts = balanced(cost, num_threads())

    def task(k: int) -> None:
        near, both = (np.zeros(g.num_nodes, np.int64) for _ in range(2))
        members = np.empty(max_degree, np.int32)
        _cliques(g, owner, nodes, cuts[k], cuts[k + 1], near, both, members, out)

    run(task, len(cuts) - 1)
    return out


def has_partition_clique(g: Adjacency) -> bool:
    """Whether four partitions are mutually linked, without which there is no 4-clique of nodes."""
    n = len(g.divisor)
    linked = [set(g.arc_other[g.arc_ptr[p] : g.arc_ptr[p + 1]].tolist()) for p in range(n)]
    for a in range(n):
        for b in (x for x in linked[a] if x > a):
            common = {x for x in linked[a] & linked[b] if x > b}
            if any(linked[c] & common for c in common):
                return True
    return False
