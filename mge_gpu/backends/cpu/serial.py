"""Torch's matrix products on the package's own threads."""

from collections.abc import Callable
from typing import Any

import torch

from mge_gpu.backends.cpu.threads import run

SMALL = 1 << 18  # values to work on below which other threads are not worth the hand-over


def spread_out(task: Callable[[int], Any], count: int, work: int) -> list[Any]:
    """`run_serial` where there is work enough, else one task after the other on this thread."""
    return run_serial(task, count) if work > SMALL else [task(k) for k in range(count)]


def run_serial(task: Callable[[int], Any], count: int) -> list[Any]:
    """`run`, with each matrix product inside a task on the task's core alone.

    Torch would start threads of its own for each product, and a machine of a few cores then spends its
    time waiting for them. The caller's number of torch threads is left as it was.
    """
    threads = torch.get_num_threads()

    def alone(k: int) -> Any:
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        return task(k)

    try:
        return run(alone, count)
    finally:
        torch.set_num_threads(threads)
