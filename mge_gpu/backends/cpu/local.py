"""What a node sees within two steps: sizes, squares, triangles."""

import numpy as np

from mge_gpu.backends.adjacency import Adjacency
from mge_gpu.backends.cpu.compress import jit
from mge_gpu.backends.cpu.neighbours import place_of, spot
from mge_gpu.backends.cpu.threads import balanced, num_threads, run


@jit
def _two_hop(
    g: Adjacency,
    owner: np.ndarray,
    node: np.ndarray,
    first: int,
    last: int,
    stamp: np.ndarray,
    fired: np.ndarray,
    out: np.ndarray,
) -> None:
    """Nodes within two directed steps of each node, itself included.

    ``stamp`` (N,) and ``fired`` (H,) are of -1: of a hub, one member's neighbours are all there is to see.
    """
    for k in range(first, last):
        v, p = node[k], owner[k]
        c, x = place_of(g, p, v)
        stamp[v] = k
        size = 1
        for arc in range(g.arc_ptr[p], g.arc_mid[p]):
            at, row = spot(g, arc, c, x, v - g.offset[p])
            q = g.arc_other[arc]
            for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
                a = np.int64(g.anchor[at]) + g.span[m]
                for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                    u = a + g.shifts[j]
                    if stamp[u] != k:
                        stamp[u] = k
                        size += 1
                    d, y = place_of(g, q, u)
                    for further in range(g.arc_ptr[q], g.arc_mid[q]):
                        to, near = spot(g, further, d, y, u - g.offset[q])
                        h = g.list_hub[near]
                        if h >= 0:
                            h += g.position_group[to]
                            if fired[h] == k:
                                continue
                            fired[h] = k
                        for n in range(g.span_ptr[further], g.span_ptr[further + 1]):
                            b = np.int64(g.anchor[to]) + g.span[n]
                            for i in range(g.list_ptr[near], g.list_ptr[near + 1]):
                                w = b + g.shifts[i]
                                if stamp[w] != k:
                                    stamp[w] = k
                                    size += 1
        out[k] = size


@jit
def _hub_path_counts(
    g: Adjacency, first: int, last: int, directed: bool, fired: np.ndarray, out: np.ndarray
) -> None:
    """Steps on from the neighbours of each hub, each further hub walked once. ``fired`` (H,) is of -1."""
    for k in range(first, last):
        arc, row = g.hub_arc[k], g.hub_list[k]
        q = g.arc_other[arc]
        end = g.arc_mid[q] if directed else g.arc_ptr[q + 1]
        n = 0
        for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
            a = np.int64(g.hub_anchor[k]) + g.span[m]
            for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                u = a + g.shifts[j]
                n += 1
                d, y = place_of(g, q, u)
                for further in range(g.arc_ptr[q], end):
                    to, near = spot(g, further, d, y, u - g.offset[q])
                    h = g.list_hub[near]
                    if h >= 0:
                        h += g.position_group[to]
                        if fired[h] == k:
                            continue
                        fired[h] = k
                    n += (g.list_ptr[near + 1] - g.list_ptr[near]) * (
                        g.span_ptr[further + 1] - g.span_ptr[further]
                    )
        out[k] = n


@jit
def _path_counts(
    g: Adjacency,
    owner: np.ndarray,
    node: np.ndarray,
    directed: bool,
    shared: np.ndarray,
    fired: np.ndarray,
    cost: np.ndarray,
    first: int,
    last: int,
) -> None:
    """About the steps of the walks from each node: all hubs of one neighbour list are walked once.

    ``shared`` is what `_hub_path_counts` found, ``fired`` (H,) is of -1.
    """
    for k in range(first, last):
        v, p = node[k], owner[k]
        c, x = place_of(g, p, v)
        stop = g.arc_mid[p] if directed else g.arc_ptr[p + 1]
        n = 1
        for arc in range(g.arc_ptr[p], stop):
            at, row = spot(g, arc, c, x, v - g.offset[p])
            if g.list_hub[row] >= 0:
                n += shared[g.list_hub[row] + g.position_group[at]]
                continue
            q = g.arc_other[arc]
            end = g.arc_mid[q] if directed else g.arc_ptr[q + 1]
            for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
                a = np.int64(g.anchor[at]) + g.span[m]
                for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                    u = a + g.shifts[j]
                    n += 1
                    d, y = place_of(g, q, u)
                    for further in range(g.arc_ptr[q], end):
                        to, near = spot(g, further, d, y, u - g.offset[q])
                        h = g.list_hub[near]
                        if h >= 0:
                            h += g.position_group[to]
                            if fired[h] == k:
                                continue
                            fired[h] = k
                        steps = g.span_ptr[further + 1] - g.span_ptr[further]
                        n += (g.list_ptr[near + 1] - g.list_ptr[near]) * steps
        cost[k] = n


@jit
def _plain_path_counts(
    g: Adjacency,
    owner: np.ndarray,
    node: np.ndarray,
    degree: np.ndarray,
    directed: bool,
    cost: np.ndarray,
    first: int,
    last: int,
) -> None:
    """The same without hubs, from the degrees that count (out-degrees where ``directed``)."""
    for k in range(first, last):
        v, p = node[k], owner[k]
        c, x = place_of(g, p, v)
        stop = g.arc_mid[p] if directed else g.arc_ptr[p + 1]
        n = 1
        for arc in range(g.arc_ptr[p], stop):
            at, row = spot(g, arc, c, x, v - g.offset[p])
            for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
                a = np.int64(g.anchor[at]) + g.span[m]
                for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                    n += degree[a + g.shifts[j]]
        cost[k] = n


@jit
def _wedges(
    g: Adjacency,
    owner: np.ndarray,
    node: np.ndarray,
    first: int,
    last: int,
    count: np.ndarray,
    visits: np.ndarray,
    out: np.ndarray,
) -> None:
    """For each node u, in the columns of out: the sum of C(codegree(u, v), 2) over all v; the sums of
    t_uv and of C(t_uv, 2) over its neighbours v (t_uv triangles on the edge).

    ``count`` (N,) and ``visits`` (H,) are of 0. A hub's list is walked once, for all of u's neighbours in it.
    """
    capacity, room = 1024, 1024
    touched = np.empty(capacity, np.int32)
    hubs = np.empty(room, np.int64)
    for k in range(first, last):
        v, p = node[k], owner[k]
        c, x = place_of(g, p, v)
        n, visited = 0, 0
        for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
            at, row = spot(g, arc, c, x, v - g.offset[p])
            q = g.arc_other[arc]
            for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
                a = np.int64(g.anchor[at]) + g.span[m]
                for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                    u = a + g.shifts[j]
                    d, y = place_of(g, q, u)
                    for further in range(g.arc_ptr[q], g.arc_ptr[q + 1]):
                        to, near = spot(g, further, d, y, u - g.offset[q])
                        if g.list_hub[near] >= 0:
                            h = g.list_hub[near] + g.position_group[to]
                            if visits[h] == 0:
                                if visited == room:
                                    room *= 2
                                    more = np.empty(room, np.int64)
                                    more[:visited] = hubs
                                    hubs = more
                                hubs[visited] = h
                                visited += 1
                            visits[h] += 1
                            continue
                        lo, hi = g.list_ptr[near], g.list_ptr[near + 1]
                        for i in range(g.span_ptr[further], g.span_ptr[further + 1]):
                            if n + hi - lo > capacity:
                                capacity = 2 * (n + hi - lo)
                                grown = np.empty(capacity, np.int32)
                                grown[:n] = touched[:n]
                                touched = grown
                            b = np.int64(g.anchor[to]) + g.span[i]
                            for s in range(lo, hi):
                                w = b + g.shifts[s]
                                if count[w] == 0:
                                    touched[n] = w
                                    n += 1
                                count[w] += 1
        for e in range(visited):
            h = hubs[e]
            times = visits[h]
            visits[h] = 0
            further, near = g.hub_arc[h], g.hub_list[h]
            lo, hi = g.list_ptr[near], g.list_ptr[near + 1]
            for i in range(g.span_ptr[further], g.span_ptr[further + 1]):
                if n + hi - lo > capacity:
                    capacity = 2 * (n + hi - lo)
                    grown = np.empty(capacity, np.int32)
                    grown[:n] = touched[:n]
                    touched = grown
                b = np.int64(g.hub_anchor[h]) + g.span[i]
                for s in range(lo, hi):
                    w = b + g.shifts[s]
                    if count[w] == 0:
                        touched[n] = w
                        n += 1
                    count[w] += times
        count[v] = 0
        squares = 0
        for i in range(n):
            m = np.int64(count[touched[i]])
            squares += m * (m - 1) // 2
        tri, pairs = 0, 0
        for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
            at, row = spot(g, arc, c, x, v - g.offset[p])
            for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
                a = np.int64(g.anchor[at]) + g.span[m]
                for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                    t = np.int64(count[a + g.shifts[j]])
                    tri += t
                    pairs += t * (t - 1) // 2
        for i in range(n):
            count[touched[i]] = 0
        out[k, 0], out[k, 1], out[k, 2] = squares, tri, pairs


def owners(g: Adjacency, nodes: np.ndarray) -> np.ndarray:
    return np.searchsorted(g.offset, nodes, side="right") - 1


def path_counts(
    g: Adjacency, nodes: np.ndarray, degree: np.ndarray, outdeg: np.ndarray, directed: bool
) -> np.ndarray:
    """About the steps that the counts below take from each node, (R,) int64, at least 1."""
    owner = owners(g, nodes)
    cost = np.empty(len(nodes), np.int64)
    parts = 4 * num_threads()
    cuts = balanced(np.ones(len(cost)), parts)
    if not g.num_hubs:
        ends = outdeg if directed else degree
        run(lambda k: _plain_path_counts(g, owner, nodes, ends, directed, cost, cuts[k], cuts[k + 1]), parts)
        return cost
    shared = np.empty(g.num_hubs, np.int64)
    hubs = balanced(np.ones(len(shared)), parts)

    def fresh() -> np.ndarray:
        return np.full(g.num_hubs, -1, np.int64)

    run(lambda k: _hub_path_counts(g, hubs[k], hubs[k + 1], directed, fresh(), shared), parts)
    run(lambda k: _path_counts(g, owner, nodes, directed, shared, fresh(), cost, cuts[k], cuts[k + 1]), parts)
    return cost


def two_hop_sizes(g: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Nodes within two directed steps of each node, itself included, (R,) int64."""
    owner, out = owners(g, nodes), np.empty(len(nodes), np.int64)
    cuts = balanced(cost, num_threads())

    def task(k: int) -> None:
        stamp, fired = np.full(g.num_nodes, -1, np.int32), np.full(g.num_hubs, -1, np.int64)
        _two_hop(g, owner, nodes, cuts[k], cuts[k + 1], stamp, fired, out)

    run(task, len(cuts) - 1)
    return out


def wedge_counts(g: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Squares and triangles at each node, (R, 3) int64.

    Columns: sum of C(codegree(u, v), 2) over all v; sum of t_uv over neighbours v; sum of C(t_uv, 2).
    """
    owner, out = owners(g, nodes), np.empty((len(nodes), 3), np.int64)
    cuts = balanced(cost, num_threads())

    def task(k: int) -> None:
        count, visits = np.zeros(g.num_nodes, np.int32), np.zeros(g.num_hubs, np.int32)
        _wedges(g, owner, nodes, cuts[k], cuts[k + 1], count, visits, out)

    run(task, len(cuts) - 1)
    return out
