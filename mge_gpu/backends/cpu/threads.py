"""Ranges of work on all cores; the numba kernels release the GIL.

The calling thread waits while threads of ours work, since Python delivers Ctrl-C to the main thread between
two steps of its own code and never inside a kernel, which may run for minutes.
"""

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

LOOK_UP = 0.1
"""Seconds after which a waiting thread looks for signals where the system does not wake it for them."""

_here = threading.local()  # .worker: whether this thread is one of ours; .alone: whether it spreads no work


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


class _Job:
    """The tasks of one call of `run`: whoever is free takes the next number."""

    def __init__(self, task: Callable[[int], Any], count: int) -> None:
        self.task = task
        self.count, self.begun, self.ended = count, 0, 0
        self.results: list[Any] = [None] * count
        self.error: BaseException | None = None
        self.lock, self.done = threading.Lock(), threading.Lock()
        self.done.acquire()

    def work(self) -> None:
        """Take tasks until none is left."""
        while True:
            with self.lock:
                if self.begun >= self.count:
                    return
                k = self.begun
                self.begun += 1
            error: BaseException | None = None
            try:
                self.results[k] = self.task(k)
            except BaseException as caught:  # whatever it was, it is the caller's
                error = caught
            with self.lock:
                self.ended += 1
                if error is not None:
                    self.error = self.error or error
                    self.count = self.begun
                if self.ended == self.begun == self.count:
                    self.done.release()

    def drop(self) -> None:
        """Begin no more tasks."""
        with self.lock:
            self.count = self.begun


class _Pool:
    """Daemon threads that wait for jobs: they end with the interpreter, whatever they are doing."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        for _ in range(size):
            threading.Thread(target=self._serve, name="mge_gpu", daemon=True).start()

    def _serve(self) -> None:
        _here.worker = True
        while (job := self.jobs.get()) is not None:
            job.work()
            del job  # or what the tasks hold would stay alive until the next job

    def close(self) -> None:
        """Let each thread end as soon as it is free."""
        for _ in range(self.size):
            self.jobs.put(None)


_pools: dict[int, _Pool] = {}  # by number of threads; a fork takes none of them along
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


def run(task: Callable[[int], Any], count: int, short: bool = False) -> list[Any]:
    """``task(0) .. task(count - 1)`` on all cores; results in order.

    Threads are kept between calls: starting them takes longer than a small product. An exception in a task
    drops the tasks that have not begun and is raised when those under way have ended. An exception in the
    calling thread, which is what Ctrl-C is, is raised at once: tasks under way are abandoned, finish in the
    background and write into arrays that nobody else may use again.

    Args:
        task: called with its number, on a thread of ours; it may call `run`, which then does not spread.
        count: number of tasks.
        short: no task takes longer than a few milliseconds. The calling thread then works with the others,
            which saves handing over, and Ctrl-C waits for its task.

    >>> run(lambda k: k * k, 4)
    [0, 1, 4, 9]
    """
    threads = min(num_threads(), count)
    if count < 1 or getattr(_here, "worker", False) or (short and threads == 1):
        return [task(k) for k in range(count)]
    helpers = threads - short
    pool = _pools.get(helpers)
    if pool is None:
        pool = _pools[helpers] = _Pool(helpers)
    job = _Job(task, count)
    try:
        for _ in range(helpers):
            pool.jobs.put(job)
        if short:
            job.work()
        while not job.done.acquire(timeout=LOOK_UP):
            pass
    except BaseException:
        job.drop()
        _pools.pop(helpers, None)
        pool.close()
        raise
    if job.error is not None:
        raise job.error
    return job.results


def call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """``function(*args, **kwargs)`` on a thread of ours, so that Ctrl-C does not wait for it.

    For kernels that run on one core and may take longer than a second. After an interruption the kernel
    runs on in the background: what it writes to must not be used again.

    >>> call(divmod, 7, 2)
    (3, 1)
    """
    result: R = run(lambda _: function(*args, **kwargs), 1)[0]
    return result


def balanced(cost: np.ndarray, parts: int) -> np.ndarray:
    """Cut items of the given costs into ``parts`` consecutive ranges of about equal cost.

    >>> balanced(np.array([4, 1, 1, 2]), 2).tolist()
    [0, 1, 4]
    """
    total = np.concatenate([[0], np.cumsum(cost, dtype=np.float64)])
    cuts = np.searchsorted(total, total[-1] * np.arange(1, parts) / parts)
    cuts = np.clip(cuts, 0, len(cost))
    return np.concatenate([[0], cuts, [len(cost)]]).astype(np.int64)


def evenly(count: int, parts: int) -> np.ndarray:
    """Cut so many items into ``parts`` consecutive ranges of about equal length.

    >>> evenly(8, 3).tolist()
    [0, 2, 5, 8]
    """
    return count * np.arange(parts + 1) // parts
