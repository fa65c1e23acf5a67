"""Cut edges and cut nodes: cycles that share an edge of a tree are one block."""

import numpy as np

from mge_gpu.backends.cpu.jit import jit
from mge_gpu.backends.cpu.threads import call


@jit
def _levels(parent: np.ndarray) -> np.ndarray:
    """How far below its root each node is, (N,) int32."""
    level = np.full(len(parent), -1, np.int32)
    for v in range(len(parent)):
        u, steps = np.int64(v), 0
        while level[u] < 0 and parent[u] >= 0:
            u = np.int64(parent[u])
            steps += 1
        if level[u] < 0:
            level[u] = 0
        deepest = level[u] + steps
        u = np.int64(v)
        while level[u] < 0:
            level[u] = deepest
            deepest -= 1
            u = np.int64(parent[u])
    return level


@jit
def _top(block: np.ndarray, v: np.int64) -> np.int64:
    """The first edge of v's block; on the way there every node is linked to the one after the next."""
    while block[v] != v:
        block[v] = block[block[v]]
        v = np.int64(block[v])
    return v


@jit
def _merge(parent: np.ndarray, other: np.ndarray, level: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Make the edges of each cycle one block; returns the bridges, (N,) bool.

    The edge from v to its parent is called v. A block is a tree of edges, linked by ``block`` (N,) to the one
    (or one of those) from which all others hang. The edge from v to other[v] closes a cycle: both ways up
    from there, a block at a time, the lower one first, until they meet. Neither end is above the other, since
    their levels differ by at most one.
    """
    bridge = parent >= 0
    for v in range(len(parent)):
        if other[v] < 0:
            continue
        a, b = _top(block, v), _top(block, np.int64(other[v]))
        while a != b:
            if level[a] < level[b]:
                a, b = b, a
            up = np.int64(parent[a])
            above = b if up == parent[b] else _top(block, up)
            block[a] = above
            bridge[a] = bridge[above] = False
            a = above
    return bridge


@jit
def _cut_nodes(parent: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Nodes that a block hangs from, (N,) bool: of roots those that two hang from."""
    cut, seen = np.zeros(len(parent), np.bool_), np.zeros(len(parent), np.bool_)
    for v in range(len(parent)):
        p = parent[v]
        if p >= 0 and block[v] == v:
            if parent[p] >= 0 or seen[p]:
                cut[p] = True
            seen[p] = True
    return cut


@jit
def _marks(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    block = np.arange(len(first), dtype=np.int32)
    bridge = _merge(first, second, _levels(first), block)
    return bridge, _cut_nodes(first, block)


def cut_marks(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bridges and articulation points of the edges of two forests, each (N,) bool.

    A bridge is marked at its lower end. Blocks are merged as in Westbrook and Tarjan, "Maintaining
    bridge-connected and biconnected components on-line", Algorithmica 7 (1992).

    Args:
        first: (N,) int32 parents of a breadth-first forest, -1 at roots, one root a component.
        second: the same of a forest of other edges; none joins levels of the first more than one apart.
    """
    found: tuple[np.ndarray, np.ndarray] = call(_marks, first, second)
    return found
