"""Cut edges and cut nodes: low points on the edges of two forests."""

import numpy as np

from mge_gpu.backends.cpu.compress import jit
from mge_gpu.backends.cpu.threads import call, evenly, num_threads, run

SLICES = 8
"""Parts of the components for each thread: one part holds more nodes than another."""

DONE = -1
"""In place of where a node's list goes on: it has come to its end."""


@jit
def _lists(first: np.ndarray, second: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The neighbours v - parent[v] in two edge-disjoint forests, one list a node; the last of each as ~u.

    ``at`` (N + 1,), zeros before, says where each list begins, `DONE` where there is none. Lists are walked
    with nothing but that: it is moved on, and an end is seen as it is read.
    """
    n = len(first)
    for v in range(n):
        for u in (first[v], second[v]):
            if u >= 0:
                at[v] += 1
                at[u] += 1
    for v in range(n):
        at[v + 1] += at[v]
    neighbour = np.empty(at[n], np.int32)
    for v in range(n):
        for u in (first[v], second[v]):
            if u >= 0:
                at[v] -= 1
                neighbour[at[v]] = u
                at[u] -= 1
                neighbour[at[u]] = v
    for v in range(n):
        last = at[v + 1] - 1
        if at[v] > last:
            at[v] = DONE
        else:
            neighbour[last] = ~neighbour[last]
    return neighbour


@jit
def _low_points(
    at: np.ndarray,
    neighbour: np.ndarray,
    roots: np.ndarray,
    order: np.ndarray,
    low: np.ndarray,
    up: np.ndarray,
    bridge: np.ndarray,
    cut: np.ndarray,
) -> None:
    """Mark bridges at their lower ends, and articulation points, in the components of some roots (Tarjan)."""
    for r in range(len(roots)):
        root = np.int64(roots[r])
        clock = 1
        order[root] = low[root] = clock
        children, v = 0, root
        while True:
            k = at[v]
            if k != DONE:
                u = np.int64(neighbour[k])
                if u < 0:
                    u = ~u
                    at[v] = DONE
                else:
                    at[v] = k + 1
                if order[u] == 0:
                    clock += 1
                    order[u] = low[u] = clock
                    up[u] = v
                    if v == root:
                        children += 1
                    v = u
                elif u != up[v]:
                    low[v] = min(low[v], order[u])
            else:
                if v == root:
                    break
                u = np.int64(up[v])
                low[u] = min(low[u], low[v])
                if low[v] > order[u]:
                    bridge[v] = True
                if u != root and low[v] >= order[u]:
                    cut[u] = True
                v = u
        if children > 1:
            cut[root] = True


def cut_marks(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bridges and articulation points of the edges of two forests, each (N,) bool.

    A bridge is marked at one of its ends, another one for each. Some components a thread.

    Args:
        first: (N,) int32 parents, -1 at roots, one root a component.
        second: the same of a forest of other edges.
    """
    n, roots = len(first), np.flatnonzero(first < 0)
    at = np.zeros(n + 1, np.int32 if 4 * n < 1 << 31 else np.int64)
    neighbour = call(_lists, first, second, at)
    del second  # it is not needed any more, and large
    order, low, up = np.zeros(n, np.int32), np.zeros(n, np.int32), np.full(n, -1, np.int32)
    bridge, cut = (np.zeros(n, np.bool_) for _ in range(2))
    parts = max(1, min(len(roots), SLICES * num_threads()))
    ends = evenly(len(roots), parts)

    def task(k: int) -> None:
        _low_points(at, neighbour, roots[ends[k] : ends[k + 1]], order, low, up, bridge, cut)

    run(task, parts)
    return bridge, cut
