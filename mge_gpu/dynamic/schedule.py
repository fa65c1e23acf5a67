"""When the topology changes, and how much of it."""

import math
from collections.abc import Sequence


def cosine(start: float, step: int, end: float, final: float = 0.0) -> float:
    """final + (start - final)/2 (1 + cos(π step / end)): from ``start`` at step 0 to ``final`` at ``end``.

    >>> cosine(0.3, 0, 100), round(cosine(0.3, 50, 100), 3), cosine(0.5, 100, 100, final=0.005)
    (0.3, 0.15, 0.005)
    """
    return final + (start - final) / 2 * (1 + math.cos(math.pi * min(step, end) / end))


def is_due(step: int, interval: int, end: float) -> bool:
    """Whether a step (counted from 1) is a multiple of ``interval`` and comes before ``end``.

    >>> [step for step in range(1, 10) if is_due(step, 3, 9)]
    [3, 6]
    """
    return step > 0 and step % interval == 0 and step < end


def doubled_interval(step: int, interval: int, bounds: Sequence[float]) -> int:
    """The interval in force at a step: twice as long after each bound that the step has reached.

    >>> [doubled_interval(step, 100, (200, 400)) for step in (100, 200, 399, 400)]
    [100, 200, 200, 400]
    """
    return interval * 2 ** sum(step >= bound for bound in bounds)
