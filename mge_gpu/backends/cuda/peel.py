"""Core numbers by peeling in rounds: every node of the lowest degree left goes, with those that follow."""

from typing import Any

import numpy as np

from mge_gpu.backends.cuda.resident import Resident
from mge_gpu.backends.cuda.runtime import Runtime

ROUNDS = 8, 64
"""Rounds that are launched before the host looks whether nodes are left: twice as many each time."""

FIELDS = "k", "size", "next", "hubs", "left", "new_level"
"""Of ``struct Peeling`` in ``kernels/peel.cu``."""


def coreness(runtime: Runtime, g: Resident, degree: Any, hubs: int) -> Any:
    """Turn undirected degrees (N,) int32 into core numbers, in place; returns them.

    A round takes one from the degree of each neighbour, never below the level, so that what has gone needs no
    mark. Hubs count their members that go, and pass their list once for all of them. Frontiers and their
    sizes stay on the device; a round after the last finds nothing to do.
    """
    xp, n = runtime.xp, len(degree)
    frontier, following = (xp.empty(n, np.int32) for _ in range(2))
    touched, gone = xp.empty(max(hubs, 1), np.int32), xp.zeros(max(hubs, 1), np.int32)
    state, left = xp.zeros(len(FIELDS), np.int64), FIELDS.index("left")
    state[left] = (degree > 0).sum()
    rounds, most = ROUNDS
    while int(state[left]):
        for _ in range(rounds):
            runtime.launch("peel", "next_round", 1, state)
            runtime.launch(
                "peel", "level_nodes", runtime.threads(n), degree, np.int64(n), frontier, state
            )  # fmt: skip
            runtime.launch(
                "peel", "peel_nodes", runtime.teams(n), g.table, frontier, state, degree, following, gone,
                touched,
            )  # fmt: skip
            runtime.launch("peel", "peel_hubs", hubs, g.table, touched, state, gone, degree, following)
            frontier, following = following, frontier
        rounds = min(2 * rounds, most)
    return degree
