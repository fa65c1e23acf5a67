"""Core numbers by peeling in rounds: every node of the lowest degree left goes, with those that follow."""

from typing import Any

import numpy as np

from mge_gpu.backends.cuda.resident import Resident
from mge_gpu.backends.cuda.runtime import Runtime
from mge_gpu.errors import GraphError

NONE = np.iinfo(np.int32).max
"""Above all degrees."""

STATE = [0, 0, *3 * [0, 0, NONE]]
"""``struct Peeling`` of ``kernels/peel.cu`` at first; the second is what is left at the end."""


def coreness(runtime: Runtime, g: Resident, degree: Any, hubs: int) -> Any:
    """Turn undirected degrees (N,) int32 into core numbers, in place; returns them.

    A round takes one from the degree of each neighbour, never below the level, so that what has gone needs no
    mark. Hubs count their members that go, and pass their list once for all of them. All rounds are one
    launch, whose blocks wait for each other: a network has thousands, most of them with fewer nodes than a
    GPU has warps.

    Raises:
        GraphError: some nodes have no level; the degrees are not those of the graph.
    """
    xp, n = runtime.xp, len(degree)
    frontier, following = (xp.empty(n, np.int32) for _ in range(2))
    gone, touched = xp.zeros(2 * max(hubs, 1), np.int32), xp.empty(2 * max(hubs, 1), np.int32)
    state = xp.asarray(np.array(STATE, np.int64))
    runtime.launch_together("peel", "peel", g.table, degree, frontier, following, gone, touched, state)
    if left := int(state[1]):
        raise GraphError(
            f"got degrees by which {left} nodes have no core number, expected those of the graph"
        )
    return degree
