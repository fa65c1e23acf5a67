"""Random numbers that go on afterwards as if nothing had been drawn, and begin at a seed."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def preserved(devices: Iterable[torch.device | int] = ()) -> Iterator[list[int]]:
    """Restores the states of the generators of Python, NumPy and torch afterwards.

    Args:
        devices: the GPUs whose states are restored, too, by number or as torch's devices; those of the host
            are left out. No other GPU is touched: to ask one that nobody has used for its state would
            start it, and take memory there.

    Yields:
        The numbers of these GPUs.

    >>> before = random.getstate()
    >>> with preserved():
    ...     drawn = random.random()
    >>> random.getstate() == before
    True
    """
    gpus = sorted({_number(d) for d in devices if isinstance(d, int) or d.type == "cuda"})
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=gpus, device_type="cuda"):
            yield gpus
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def seeded(seed: int, devices: Iterable[torch.device | int] = ()) -> Iterator[None]:
    """Within it the generators of Python, NumPy and torch begin at ``seed``; all states are restored.

    Args:
        seed: any whole number; NumPy takes its lowest 32 bits.
        devices: as for `preserved`; their generators are seeded, too.

    >>> with seeded(0):
    ...     first = torch.rand(1)
    >>> with seeded(0):
    ...     bool(torch.rand(1) == first)
    True
    """
    with preserved(devices) as gpus:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        # torch.manual_seed seeds every accelerator, torch.cuda.manual_seed whichever is the current one.
        torch.default_generator.manual_seed(seed)
        for number in gpus:
            torch.cuda.default_generators[number].manual_seed(seed)
        yield


def _number(device: torch.device | int) -> int:
    index = device if isinstance(device, int) else device.index
    return torch.cuda.current_device() if index is None else index
