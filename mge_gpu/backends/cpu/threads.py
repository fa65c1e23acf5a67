"""Ranges of work on all cores; the numba kernels release the GIL."""

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np

_here = threading.local()


def alone(task: Callable[[], Any]) -> Any:
    """``task()`` with everything inside it on this thread only: for one problem a core."""
    before, _here.alone = getattr(_here, "alone", False), True
    try:
        return task()
    finally:
        _here.alone = before


def num_threads() -> int:
    """Cores that this process may use (NUMBA_NUM_THREADS, if set, is the upper bound)."""
    if getattr(_here, "alone", False):
        return 1
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, int(os.environ.get("NUMBA_NUM_THREADS", available))))


_pools: dict[int, ThreadPoolExecutor] = {}  # by number of threads; a fork takes none of them along
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


def run(task: Callable[[int], Any], count: int) -> list[Any]:
    """``task(0) .. task(count - 1)`` on all cores, this thread among them; results in order.

    Threads are kept between calls: starting them takes longer than a small product.
    """
    helpers = min(num_threads(), count) - 1
    if helpers < 1:
        return [task(k) for k in range(count)]
    results: list[Any] = [None] * count
    numbers = itertools.count()

    def work() -> None:
        while (k := next(numbers)) < count:
            results[k] = task(k)

    if helpers not in _pools:
        _pools[helpers] = ThreadPoolExecutor(helpers, "mge_gpu")
    waiting = [_pools[helpers].submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        running = [f for f in waiting if not f.cancel()]
        wait(running)
    for future in running:
        future.result()
    return results


def balanced(cost: np.ndarray, parts: int) -> np.ndarray:
    """Cut items of the given costs into ``parts`` consecutive ranges of about equal cost.

    >>> balanced(np.array([4, 1, 1, 2]), 2).tolist()
    [0, 1, 4]
    """
    total = np.concatenate([[0], np.cumsum(cost, dtype=np.float64)])
    cuts = np.searchsorted(total, total[-1] * np.arange(1, parts) / parts)
    cuts = np.clip(cuts, 0, len(cost))
    return np.concatenate([[0], cuts, [len(cost)]]).astype(np.int64)
