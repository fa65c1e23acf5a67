"""Bridges and articulation points, from the numbers of a breadth-first forest: a launch or two a level."""

from typing import Any

import numpy as np

from mge_gpu.backends.cuda.flags import counts
from mge_gpu.backends.cuda.forest import unite
from mge_gpu.backends.cuda.resident import Resident
from mge_gpu.backends.cuda.runtime import Runtime


def cut_marks(runtime: Runtime, g: Resident, parent: Any) -> tuple[Any, Any]:
    """(bridges, articulation points), each (N,) bool, given the BFS parents (N,) int32.

    On a certificate of at most 2 (N - 1) edges, the forest and a maximal forest of the rest, by the algorithm
    of Tarjan and Vishkin (SIAM J. Comput. 14, 1985): see ``kernels/cuts.cu``. A bridge is marked at its lower
    end.
    """
    xp, n = runtime.xp, len(parent)
    _, source, target = unite(runtime, g, n, parent)
    edges = source, target, np.int64(len(source))
    levels = _levels(runtime, parent)
    roots, below = levels[0], [(nodes, np.int64(len(nodes)), parent) for nodes in levels[1:]]

    def launch(kernel: str, count: int, *args: Any) -> None:
        runtime.launch("cuts", kernel, runtime.threads(count), *args)

    size = xp.ones(n, np.int32)
    for level in reversed(below):
        launch("count_below", int(level[1]), *level, size)
    first, following = xp.zeros(n, np.int32), xp.zeros(n, np.int32)
    first[roots] = xp.cumsum(size[roots]).astype(np.int32) - size[roots]
    following[roots] = first[roots] + 1
    for level in below:
        launch("number", int(level[1]), *level, size, first, following)
    low, high = first.copy(), first.copy()
    launch("see_across", len(source), *edges, first, low, high)
    for level in reversed(below):
        launch("see_below", int(level[1]), *level, low, high)

    label = xp.arange(n, dtype=np.int32)
    whole, tree = np.int64(n), (parent, first, size, low, high)
    launch("unite_branches", len(source), *edges, first, size, label)
    launch("unite_upwards", n, whole, *tree, label)
    runtime.launch("forest", "flatten", runtime.threads(n), label, whole)
    bridge, cut = xp.zeros(n, np.bool_), xp.zeros(n, np.bool_)
    launch("mark_cuts", n, whole, *tree, label, xp.full(n, -1, np.int32), bridge, cut)
    return bridge, cut


def _levels(runtime: Runtime, parent: Any) -> list[Any]:
    """The nodes of each level of a forest, int32, roots first; one empty level where there are no nodes."""
    xp = runtime.xp
    above = xp.where(parent < 0, xp.arange(len(parent), dtype=np.int32), parent)
    depth = (parent >= 0).astype(np.int32)
    while True:  # the way to the root that is known is twice as long each time
        depth += depth[above]
        further = above[above]
        if not int(counts(further != above)):
            break
        above = further
    order = xp.argsort(depth).astype(np.int32)
    if not len(order):
        return [order]
    levels = xp.arange(1, int(depth.max()) + 2, dtype=np.int32)
    ends = runtime.host(xp.searchsorted(depth[order], levels)).tolist()  # bincount asks for any: see `counts`
    return [order[a:b] for a, b in zip([0, *ends], ends, strict=False)]
