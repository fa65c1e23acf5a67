"""Breadth-first search: components, and the two forests that certify cut edges and cut nodes.

The search goes level by level and, for each arc, in the cheaper of two directions (Beamer, Asanović and
Patterson, "Direction-optimizing breadth-first search", SC 2012): from the nodes of the last level to
their neighbours, or from nodes not yet reached to a neighbour in the last level. Every node's parent
lies in the level before its own, which the certificate of `cuts` needs.
"""

import numpy as np

from mge_gpu.backends.adjacency import Adjacency, arc_positions
from mge_gpu.backends.cpu.jit import jit_in_place
from mge_gpu.backends.cpu.neighbours import first_shift, partition_of, place_of, spot
from mge_gpu.backends.cpu.threads import call, evenly, num_threads, run

SMALL = 1 << 14
"""Nodes of a partition below which one thread is enough."""

TRIES = 16
"""Roots that are tried before what is left is searched by one thread."""

UNSEEN, ROOT = -2, -1


@jit_in_place
def _push(
    g: Adjacency,
    p: int,
    arc: int,
    frontier: np.ndarray,
    low: int,
    high: int,
    without: np.ndarray,
    fired: np.ndarray,
    depth: int,
    level: np.ndarray,
    parent: np.ndarray,
) -> None:
    """From frontier nodes of partition p to their unseen neighbours in [low, high) along an arc.

    ``fired`` (H,) marks hubs of which all neighbours have been seen.
    """
    skip = len(without) > 0
    for f in range(len(frontier)):
        v = np.int64(frontier[f])
        c, x = place_of(g, p, v)
        at, row = spot(g, arc, c, x, v - g.offset[p])
        h = g.list_hub[row]
        if h >= 0:
            h += g.position_group[at]
            if fired[h]:
                continue
        left = False
        for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
            a = np.int64(g.anchor[at]) + g.span[m]
            j = first_shift(g, g.list_ptr[row], g.list_ptr[row + 1], low - a)
            end = first_shift(g, j, g.list_ptr[row + 1], high - a)
            for i in range(j, end):
                u = a + g.shifts[i]
                if level[u] == UNSEEN:
                    if skip and (without[u] == v or without[v] == u):
                        left = True
                    else:
                        level[u] = depth
                        parent[u] = v
        if h >= 0 and not left:
            fired[h] = True


@jit_in_place
def _pull(
    g: Adjacency,
    p: int,
    arc: int,
    start: int,
    stop: int,
    without: np.ndarray,
    known: np.ndarray,
    depth: int,
    level: np.ndarray,
    parent: np.ndarray,
) -> None:
    """For unseen nodes start..stop of partition p, a neighbour of the last level along an arc.

    ``known`` (H,) holds such a neighbour of each hub, -1 where there is none, -2 where nobody has looked.
    """
    skip = len(without) > 0
    for v in range(start, stop):
        if level[v] != UNSEEN:
            continue
        c, x = place_of(g, p, v)
        at, row = spot(g, arc, c, x, v - g.offset[p])
        h = g.list_hub[row]
        if h >= 0:
            h += g.position_group[at]
            u = np.int64(known[h])
            if u == -1:
                continue
            if u >= 0 and not (skip and (without[u] == v or without[v] == u)):
                level[v] = depth
                parent[v] = u
                continue
        seen = np.int64(-1)
        for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
            a = np.int64(g.anchor[at]) + g.span[m]
            for i in range(g.list_ptr[row], g.list_ptr[row + 1]):
                u = a + g.shifts[i]
                if level[u] == depth - 1:
                    seen = u
                    if not (skip and (without[u] == v or without[v] == u)):
                        level[v] = depth
                        parent[v] = u
                        break
            if level[v] == depth:
                break
        if h >= 0:
            known[h] = seen


class _Search:
    """A breadth-first forest in the making: ``level`` (N,) int32 and ``parent`` (N,) int32.

    Each tree's levels go on where those of the last one ended: a level's nodes are found by its number.
    """

    def __init__(self, g: Adjacency, without: np.ndarray, level: np.ndarray, parent: np.ndarray) -> None:
        self.g, self.without, self.level, self.parent = g, without, level, parent
        self.fired = np.zeros((num_threads(), g.num_hubs), np.bool_)
        self.known = np.empty((num_threads(), g.num_hubs), np.int32)
        self.deepest = 0
        ends = g.offset
        self.unseen = np.array([(level[a:b] == UNSEEN).sum() for a, b in zip(ends, ends[1:], strict=False)])
        self.length = np.array([self._mean(p, a) for p in range(len(g.divisor)) for a in self._arcs(p)])

    def _arcs(self, p: int) -> range:
        return range(self.g.arc_ptr[p], self.g.arc_ptr[p + 1])

    def _mean(self, p: int, arc: int) -> float:
        """Mean number of neighbours along an arc, all classes of positions alike."""
        g = self.g
        channels, _ = arc_positions(g, p, arc)
        row = int(g.arc_row[arc])
        lists = g.row_list[row : row + channels * int(g.arc_classes[arc])]
        entries = float((g.list_ptr[lists + 1] - g.list_ptr[lists]).sum())
        return entries / max(len(lists), 1) * float(g.span_ptr[arc + 1] - g.span_ptr[arc])

    def from_root(self, root: int) -> None:
        """Reach all that is connected with ``root``."""
        g, depth = self.g, self.deepest + 1
        self.level[root], self.parent[root] = depth, ROOT
        p = int(partition_of(g, root))
        self.unseen[p] -= 1
        frontier = {p: np.array([root], np.int32)}
        while frontier:
            depth += 1
            near = sorted({int(g.arc_other[a]) for p in frontier for a in self._arcs(p)})
            for q in near:
                if self.unseen[q]:
                    for arc in self._arcs(q):
                        p = int(g.arc_other[arc])
                        if p in frontier:
                            self._along(q, arc, p, frontier[p], depth)
            frontier = {q: new for q in near if len(new := self._reached(q, depth))}
        self.deepest = depth

    def _along(self, q: int, arc: int, p: int, frontier: np.ndarray, depth: int) -> None:
        """Reach unseen nodes of q by ``arc``, which leads from q to the frontier's partition p."""
        g = self.g
        size = int(g.offset[p + 1] - g.offset[p])
        pull = (
            self.unseen[q] * min(self.length[arc], size / len(frontier)) + (g.offset[q + 1] - g.offset[q]) / 8
        )
        back = self._opposite(p, q, arc)
        push = len(frontier) * self.length[back]
        parts = self._parts(q)
        cuts = g.offset[q] + evenly(int(g.offset[q + 1] - g.offset[q]), parts)
        if push <= pull:
            run(
                lambda t: _push(
                    g, p, back, frontier, cuts[t], cuts[t + 1], self.without, self.fired[t], depth,
                    self.level, self.parent,
                ),
                parts,
            )  # fmt: skip
            return
        self.known[:] = -2
        run(
            lambda t: _pull(
                g, q, arc, cuts[t], cuts[t + 1], self.without, self.known[t], depth, self.level, self.parent
            ),
            parts,
        )

    def _parts(self, q: int) -> int:
        """Threads that share partition q: always the same, since ``fired`` is about a thread's nodes."""
        return len(self.fired) if self.g.offset[q + 1] - self.g.offset[q] > SMALL else 1

    def _opposite(self, p: int, q: int, arc: int) -> int:
        """The arc from p that holds the same edges as ``arc`` from q."""
        g = self.g
        rank = [a for a in self._arcs(q) if g.arc_other[a] == p].index(arc)
        return [a for a in self._arcs(p) if g.arc_other[a] == q][rank]

    def _reached(self, q: int, depth: int) -> np.ndarray:
        if not self.unseen[q]:
            return np.zeros(0, np.int32)
        start = int(self.g.offset[q])
        new = start + np.flatnonzero(self.level[start : int(self.g.offset[q + 1])] == depth)
        self.unseen[q] -= len(new)
        return new.astype(np.int32)


@jit_in_place
def _rest(
    g: Adjacency, without: np.ndarray, queue: np.ndarray, level: np.ndarray, parent: np.ndarray
) -> None:
    """Trees of all that is still unseen, by one thread."""
    skip = len(without) > 0
    for root in range(len(parent)):
        if level[root] != UNSEEN:
            continue
        level[root] = 0
        parent[root] = ROOT
        queue[0] = root
        head, tail = 0, 1
        while head < tail:
            v = np.int64(queue[head])
            head += 1
            p = partition_of(g, v)
            c, x = place_of(g, p, v)
            for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
                at, row = spot(g, arc, c, x, v - g.offset[p])
                for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
                    a = np.int64(g.anchor[at]) + g.span[m]
                    for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                        u = a + g.shifts[j]
                        if level[u] != UNSEEN:
                            continue
                        if skip and (without[u] == v or without[v] == u):
                            continue
                        level[u] = level[v] + 1
                        parent[u] = v
                        queue[tail] = u
                        tail += 1


@jit_in_place
def _root(level: np.ndarray, degree: np.ndarray) -> int:
    """The first of the unseen nodes of the largest degree."""
    found = -1
    for v in range(len(level)):
        if level[v] == UNSEEN and (found < 0 or degree[v] > degree[found]):
            found = v
    return found


def forest(g: Adjacency, degree: np.ndarray, without: np.ndarray | None = None) -> np.ndarray:
    """BFS parents (N,) int32 of a maximal forest of the undirected graph, -1 at roots.

    Args:
        degree: (N,) of the undirected graph.
        without: parents of another forest, whose edges are left out of the graph.
    """
    n = len(degree)
    level = np.where(degree == 0, np.int32(0), np.int32(UNSEEN))
    parent = np.full(n, ROOT, np.int32)
    other = np.zeros(0, np.int32) if without is None else without
    search = _Search(g, other, level, parent)
    for _ in range(TRIES):  # large trees level by level; one is small if its root's edges are in ``without``
        if search.unseen.sum() <= SMALL:
            break
        search.from_root(_root(level, degree))
    call(_rest, g, other, np.empty(max(search.unseen.sum(), 1), np.int32), level, parent)
    return parent
