"""Ranges of work on all cores; the numba kernels release the GIL."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


def num_threads() -> int:
    """Cores that this process may use (NUMBA_NUM_THREADS, if set, is the upper bound)."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, int(os.environ.get("NUMBA_NUM_THREADS", available))))


def run(task: Callable[[int], Any], count: int) -> list[Any]:
    """``task(0) .. task(count - 1)`` on all cores; results in order."""
    workers = min(num_threads(), count)
    if workers <= 1:
        return [task(k) for k in range(count)]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(task, range(count)))


def balanced(cost: np.ndarray, parts: int) -> np.ndarray:
    """Cut items of the given costs into ``parts`` consecutive ranges of about equal cost.

    >>> balanced(np.array([4, 1, 1, 2]), 2).tolist()
    [0, 1, 4]
    """
    total = np.concatenate([[0], np.cumsum(cost, dtype=np.float64)])
    cuts = np.searchsorted(total, total[-1] * np.arange(1, parts) / parts)
    cuts = np.clip(cuts, 0, len(cost))
    return np.concatenate([[0], cuts, [len(cost)]]).astype(np.int64)
