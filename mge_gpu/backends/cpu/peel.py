"""Core numbers by peeling level by level.

After Kabir and Madduri, "Parallel k-core decomposition on multicore platforms" (IPDPS workshops 2017).

At level k all nodes of degree k go, with those whose degree falls to k meanwhile, in rounds. A round
takes from each neighbour's degree, never below k, so that what has gone needs no mark: its degree is
its core number. Each thread owns a range of every partition and takes from these nodes only (the lists
ascend, so its part of each is found by bisection): no atomic operations, and the same result whatever
the timing. Members of a hub that go in one round are counted, and the hub's list is passed once for all.
"""

import numpy as np

from mge_gpu.backends.adjacency import Adjacency
from mge_gpu.backends.cpu.jit import jit, jit_in_place
from mge_gpu.backends.cpu.neighbours import first_shift, partition_of, place_of, spot
from mge_gpu.backends.cpu.threads import call, run

WINDOW = 32
"""Levels that one pass over all nodes prepares for."""

ALONE = 1 << 16
"""Edges of a round below which one thread does it, and the rounds after it, without a hand-over."""


@jit_in_place
def _round(
    g: Adjacency,
    frontier: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    k: int,
    top: int,
    gone: np.ndarray,
    touched: np.ndarray,
    degree: np.ndarray,
    reached: np.ndarray,
    risen: np.ndarray,
) -> tuple[int, int]:
    """One thread's part of a round: how many nodes reached level k, and how many entered the window.

    They are written to ``reached`` and ``risen``; nodes enter the window when their degree falls below
    ``top``. ``gone`` (H,) is zero before and after; ``touched`` is scratch for the hubs it counts.
    """
    hubs, found, entered = 0, 0, 0
    for f in range(len(frontier)):
        v = np.int64(frontier[f])
        p = partition_of(g, v)
        c, x = place_of(g, p, v)
        for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
            q = g.arc_other[arc]
            at, row = spot(g, arc, c, x, v - g.offset[p])
            if g.list_hub[row] >= 0:
                h = g.list_hub[row] + g.position_group[at]
                if gone[h] == 0:
                    touched[hubs] = h
                    hubs += 1
                gone[h] += 1
                continue
            start, stop = g.list_ptr[row], g.list_ptr[row + 1]
            for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
                a = np.int64(g.anchor[at]) + g.span[m]
                j = start if low[q] <= g.offset[q] else first_shift(g, start, stop, low[q] - a)
                end = stop if high[q] >= g.offset[q + 1] else first_shift(g, j, stop, high[q] - a)
                for i in range(j, end):
                    u = a + g.shifts[i]
                    d = degree[u]
                    if d > k:
                        d -= 1
                        degree[u] = d
                        if d == k:
                            reached[found] = u
                            found += 1
                        elif d == top - 1:
                            risen[entered] = u
                            entered += 1
    for i in range(hubs):
        h = touched[i]
        less = gone[h]
        gone[h] = 0
        arc, row = g.hub_arc[h], g.hub_list[h]
        q = g.arc_other[arc]
        start, stop = g.list_ptr[row], g.list_ptr[row + 1]
        for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
            a = np.int64(g.hub_anchor[h]) + g.span[m]
            j = first_shift(g, start, stop, low[q] - a)
            end = first_shift(g, j, stop, high[q] - a)
            for s in range(j, end):
                u = a + g.shifts[s]
                d = degree[u]
                if d > k:
                    e = max(d - less, k)
                    degree[u] = e
                    if e == k:
                        reached[found] = u
                        found += 1
                    elif e < top <= d:
                        risen[entered] = u
                        entered += 1
    return found, entered


@jit_in_place
def _window(degree: np.ndarray, start: int, stop: int, k: int, top: int, out: np.ndarray) -> int:
    """Write the nodes of start..stop with k < degree < top to ``out``; returns how many."""
    n = 0
    for v in range(start, stop):
        if k < degree[v] < top:
            out[n] = v
            n += 1
    return n


@jit_in_place
def _least_above(degree: np.ndarray, k: int) -> int:
    """The smallest degree above k, or -1."""
    least = -1
    for v in range(len(degree)):
        d = degree[v]
        if d > k and (least < 0 or d < least):
            least = d
    return least


@jit_in_place
def _next_level(
    degree: np.ndarray, pool: np.ndarray, size: int, k: int, out: np.ndarray
) -> tuple[int, int, int]:
    """(size of the pool without what has gone, next level, nodes of that level, which ``out`` receives)."""
    least, kept = -1, 0
    for i in range(size):
        d = degree[pool[i]]
        if d > k:
            pool[kept] = pool[i]
            kept += 1
            if least < 0 or d < least:
                least = d
    n = 0
    if least >= 0:
        for i in range(kept):
            if degree[pool[i]] == least:
                out[n] = pool[i]
                n += 1
    return kept, least, n


@jit
def _alone(
    g: Adjacency,
    frontier: np.ndarray,
    n: int,
    limit: int,
    low: np.ndarray,
    high: np.ndarray,
    k: int,
    top: int,
    gone: np.ndarray,
    touched: np.ndarray,
    degree: np.ndarray,
    reached: np.ndarray,
    risen: np.ndarray,
) -> tuple[int, int]:
    """Rounds by one thread until none or more than ``limit`` nodes are left; (nodes left, nodes risen)."""
    entered = 0
    while 0 < n <= limit:
        n, more = _round(g, frontier[:n], low, high, k, top, gone, touched, degree, reached, risen[entered:])
        entered += more
        frontier[:n] = np.sort(reached[:n])
    return n, entered


class _Peeling:
    """State of a decomposition: the threads' ranges and the arrays they write to."""

    def __init__(self, g: Adjacency, degree: np.ndarray, parts: int) -> None:
        self.g, self.degree = g, degree
        n, sizes = len(degree), np.diff(g.offset)
        self.parts = parts if n > ALONE else 1
        cuts = [g.offset[:-1] + sizes * t // self.parts for t in range(self.parts + 1)]
        self.ranges = list(zip(cuts[:-1], cuts[1:], strict=True))
        self.gone = np.zeros((self.parts, g.num_hubs), np.int32)
        self.touched = np.empty((self.parts, g.num_hubs), np.int32)
        self.frontier, self.reached, self.risen, self.pool = (np.empty(n, np.int32) for _ in range(4))
        owned = np.cumsum([0] + [int((high - low).sum()) for low, high in self.ranges])
        self.own = [slice(a, b) for a, b in zip(owned[:-1], owned[1:], strict=True)]
        self.size = 0  # of the pool
        self.limit = int(ALONE / max(float(degree.mean()), 1.0)) if n else 0

    def round(self, n: int, k: int, top: int) -> int:
        """Take the first n nodes of the frontier away; the new frontier's size."""
        g, alone = self.g, n <= self.limit or self.parts == 1
        if alone:
            every = g.offset[:-1], g.offset[1:]
            limit = self.limit if self.parts > 1 else len(self.degree)
            n, entered = call(
                lambda: _alone(
                    g, self.frontier, n, limit, *every, k, top, self.gone[0], self.touched[0],
                    self.degree, self.reached, self.risen,
                )
            )  # fmt: skip
            self._keep(self.risen[:entered])
            return n
        going = np.sort(self.frontier[:n])
        counts = run(
            lambda t: _round(
                g, going, *self.ranges[t], k, top, self.gone[t], self.touched[t],
                self.degree, self.reached[self.own[t]], self.risen[self.own[t]],
            ),
            self.parts,
        )  # fmt: skip
        n = 0
        for own, (found, entered) in zip(self.own, counts, strict=True):
            self.frontier[n : n + found] = self.reached[own][:found]
            n += found
            self._keep(self.risen[own][:entered])
        return n

    def _keep(self, nodes: np.ndarray) -> None:
        self.pool[self.size : self.size + len(nodes)] = nodes
        self.size += len(nodes)


def coreness(g: Adjacency, degree: np.ndarray, parts: int) -> None:
    """Turn the undirected degrees (N,) int32 into core numbers, in place, on ``parts`` threads.

    O(N + E) time, O(N) memory.
    """
    state = _Peeling(g, degree, parts)
    k = top = 0
    while True:
        if not state.size:
            least = _least_above(degree, k)
            if least < 0:
                return
            top = least + max(WINDOW, least // 8)
            state.size = _window(degree, 0, len(degree), k, top, state.pool)
        state.size, level, n = _next_level(degree, state.pool, state.size, k, state.frontier)
        if n:
            k = level
        while n:
            n = state.round(n, k, top)
