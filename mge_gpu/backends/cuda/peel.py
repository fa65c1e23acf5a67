"""Core numbers by peeling in rounds: every node of the lowest degree left goes, with those that follow."""

from typing import Any

import numpy as np

from mge_gpu.backends.cuda.resident import Resident
from mge_gpu.backends.cuda.runtime import Runtime


def coreness(runtime: Runtime, g: Resident, degree: Any, hubs: int) -> Any:
    """Turn undirected degrees (N,) int32 into core numbers, in place; returns them.

    A round takes one from the degree of each neighbour, never below the level, so that what has gone needs no
    mark. Hubs count their members that go, and pass their list once for all of them.
    """
    xp = runtime.xp
    frontier, touched = xp.empty(len(degree), np.int32), xp.empty(max(hubs, 1), np.int32)
    following, gone = xp.empty_like(frontier), xp.zeros(max(hubs, 1), np.int32)
    counters = xp.zeros(2, np.int64)  # nodes of the next frontier, hubs touched
    left = xp.flatnonzero(degree > 0).astype(np.int32)
    while len(left):
        k = int(degree[left].min())
        here = left[degree[left] == k]
        n = len(here)
        frontier[:n] = here
        while n:
            counters[:] = 0
            runtime.launch(
                "peel", "peel_nodes", n, g.table, frontier, np.int64(n), np.int32(k), degree, following,
                counters[:1], gone, touched, counters[1:],
            )  # fmt: skip
            lost = int(counters[1]) if hubs else 0
            runtime.launch(
                "peel", "peel_hubs", lost, g.table, touched, np.int64(lost), np.int32(k), gone, degree,
                following, counters[:1],
            )  # fmt: skip
            gone[touched[:lost]] = 0
            n = int(counters[0])
            frontier, following = following, frontier
            degree[frontier[:n]] = k  # threads that came together may have taken it below
        left = left[degree[left] > k]
    return degree
