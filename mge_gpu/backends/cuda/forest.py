"""Spanning forests: connected components, breadth-first parents, and a maximal forest of the other edges."""

from typing import Any

import numpy as np

from mge_gpu.backends.cuda.resident import Resident
from mge_gpu.backends.cuda.runtime import Runtime

SAMPLE = 1024
"""Nodes that are looked at for the label of most of them."""

EAGER = 4
"""Unseen nodes look for a parent once the frontier has more than this part (1 / EAGER) of their edges."""


def unite(runtime: Runtime, g: Resident, n: int, without: Any = None) -> tuple[Any, Any, Any]:
    """Components and a maximal forest: (smallest node of each node's component (N,) int32, edges' two ends).

    ``without`` are the parents (N,) int32 of another forest, whose edges are left out of the graph.
    """
    xp = runtime.xp
    label = xp.arange(n, dtype=np.int32)
    source, target = (xp.full(n, -1, np.int32) for _ in range(2))
    forest = label, source, target
    runtime.launch("forest", "hook_some", runtime.threads(n), g.table, without, *forest)
    runtime.launch("forest", "flatten", runtime.threads(n), label, np.int64(n))
    before, giant = _giant(runtime, label)
    runtime.launch("forest", "hook", runtime.teams(n), g.table, without, before, np.int32(giant), *forest)
    runtime.launch("forest", "flatten", runtime.threads(n), label, np.int64(n))
    hooked = xp.flatnonzero(source >= 0)
    return label, source[hooked], target[hooked]


def _giant(runtime: Runtime, label: Any) -> tuple[Any, int]:
    """(a copy of the labels, that of more than half of the nodes); (None, -1) where a sample shows none."""
    every = max(1, len(label) // SAMPLE)
    labels, count = np.unique(runtime.host(label[::every]), return_counts=True)
    if not len(count) or 2 * count.max() <= count.sum():
        return None, -1
    return label.copy(), int(labels[count.argmax()])


def breadth_first(runtime: Runtime, g: Resident, degree: Any, roots: Any) -> Any:
    """BFS parents (N,) int32 of a forest from all ``roots`` at once, one a component; -1 at roots.

    Each level goes in the cheaper of two directions (Beamer, Asanović and Patterson, SC 2012).
    """
    xp = runtime.xp
    level, parent = xp.full(len(degree), -1, np.int32), xp.full(len(degree), -1, np.int32)
    level[roots] = 0
    frontier, unseen = roots.astype(np.int32), xp.flatnonzero(level < 0).astype(np.int32)
    depth = 0
    while len(frontier) and len(unseen):
        depth += 1
        args = np.int32(depth), level, parent
        if EAGER * int(degree[frontier].sum()) > int(degree[unseen].sum()):
            count = len(unseen)
            runtime.launch("forest", "pull", runtime.threads(count), g.table, unseen, np.int64(count), *args)
        else:
            count = len(frontier)
            runtime.launch("forest", "push", runtime.teams(count), g.table, frontier, np.int64(count), *args)
        reached = level[unseen] == depth
        frontier, unseen = unseen[reached], unseen[~reached]
    return parent
