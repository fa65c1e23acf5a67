"""Sums of values with powers of two beside them."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

NOTHING = -(1 << 40)
"""The exponent of a row of zeros."""


def _times(x: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """x * 2^exponent, (rows, before, networks, behind) and (rows, networks)."""
    here = x
    while True:  # 2^1100 is no float64, though x times it may be one
        step = np.clip(exponent, -1000, 1000)
        here = here * np.ldexp(1.0, step.astype(np.int32))[:, None, :, None]
        exponent = np.clip(exponent - step, -2000, 2000)  # more makes nothing of any value
        if not exponent.any():
            return here


def scaled_sum(
    values: Sequence[np.ndarray], exponents: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """See `Backend.scaled_sum`."""
    if not values[0].size:
        return values[0], exponents[0]
    largest = [x.max((1, 3)) for x in values]
    tops = [
        np.where(most > 0, exponent + np.frexp(most)[1], NOTHING)
        for most, exponent in zip(largest, exponents, strict=True)
    ]
    top = reduce(np.maximum, tops)
    top[-2:] = top[-2:].max(0)
    total: Any = None
    for x, most, exponent in zip(values, largest, exponents, strict=True):
        here = _times(x, np.where(most > 0, exponent - top, 0))
        total = here if total is None else np.add(total, here, out=total)
    return total, top
