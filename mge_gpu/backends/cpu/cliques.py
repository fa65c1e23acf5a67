"""4-cliques at a node."""

import numpy as np

from mge_gpu.backends.adjacency import Adjacency
from mge_gpu.backends.cpu.jit import jit_in_place
from mge_gpu.backends.cpu.local import owners
from mge_gpu.backends.cpu.neighbours import partition_of, place_of, spot
from mge_gpu.backends.cpu.threads import balanced, num_threads, run


@jit_in_place
def _gather(
    g: Adjacency,
    v: int,
    linked: np.ndarray,
    p: int,
    wanted: int,
    mark: np.ndarray,
    stamp: np.ndarray,
    value: int,
    out: np.ndarray,
) -> int:
    """Neighbours w of v with mark[w] == wanted, in partitions that p is linked to: stamped and listed.

    With ``wanted`` 0 every neighbour counts. Returns how many.
    """
    q = partition_of(g, v)
    c, x = place_of(g, q, v)
    n = 0
    for arc in range(g.arc_ptr[q], g.arc_ptr[q + 1]):
        if wanted and not linked[p, g.arc_other[arc]]:
            continue
        at, row = spot(g, arc, c, x, v - g.offset[q])
        for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
            a = np.int64(g.anchor[at]) + g.span[m]
            for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                w = a + g.shifts[j]
                if wanted == 0 or mark[w] == wanted:
                    stamp[w] = value
                    out[n] = w
                    n += 1
    return n


@jit_in_place
def _cliques(
    g: Adjacency,
    owner: np.ndarray,
    node: np.ndarray,
    first: int,
    last: int,
    linked: np.ndarray,
    near: np.ndarray,
    both: np.ndarray,
    around: np.ndarray,
    members: np.ndarray,
    out: np.ndarray,
) -> None:
    """Six times the number of 4-cliques that each node is part of."""
    stamp = 0
    for k in range(first, last):
        v, p = node[k], owner[k]
        found = 0
        degree = _gather(g, v, linked, p, 0, near, near, k + 1, around)
        for e in range(degree):
            stamp += 1
            n = _gather(g, np.int64(around[e]), linked, p, k + 1, near, both, stamp, members)
            if n < 2:
                continue
            for m in range(n):
                w = np.int64(members[m])
                o = partition_of(g, w)
                c, x = place_of(g, o, w)
                for arc in range(g.arc_ptr[o], g.arc_ptr[o + 1]):
                    if not linked[p, g.arc_other[arc]]:
                        continue
                    at, row = spot(g, arc, c, x, w - g.offset[o])
                    for i in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
                        a = np.int64(g.anchor[at]) + g.span[i]
                        for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                            if both[a + g.shifts[j]] == stamp:
                                found += 1
        out[k] = found


def clique_counts(g: Adjacency, nodes: np.ndarray, cost: np.ndarray, max_degree: int) -> np.ndarray:
    """Six times the number of 4-cliques at each node, (R,) int64."""
    out = np.zeros(len(nodes), np.int64)
    inside = clique_partitions(g)
    if not inside.any():
        return out
    owner = owners(g, nodes)
    member: np.ndarray = inside.max(axis=0)
    some = np.flatnonzero(member[owner])
    found = np.zeros(len(some), np.int64)
    cuts = balanced(cost[some], num_threads())

    def task(k: int) -> None:
        near, both = (np.zeros(g.num_nodes, np.int64) for _ in range(2))
        around, members = (np.empty(max_degree, np.int32) for _ in range(2))
        _cliques(
            g, owner[some], nodes[some], cuts[k], cuts[k + 1], inside, near, both, around, members, found
        )

    run(task, len(cuts) - 1)
    out[some] = found
    return out


def clique_partitions(g: Adjacency) -> np.ndarray:
    """(P, P) bool: which partitions lie together in a set of four that are all linked to one another.

    Nodes of others are part of no 4-clique.
    """
    n = len(g.divisor)
    linked = [set(g.arc_other[g.arc_ptr[p] : g.arc_ptr[p + 1]].tolist()) for p in range(n)]
    inside = np.zeros((n, n), np.bool_)
    for a in range(n):
        for b in (x for x in linked[a] if x > a):
            common = linked[a] & linked[b]
            if any(linked[c] & common for c in common):
                inside[a, b] = inside[b, a] = True
    return inside
