"""Values with powers of two beside them: neither 2^1000 paths nor products of small weights leave float64.

A set of nodes has one exponent for each row of values and each network, so that in a union of networks none
is lost beside one whose values are larger by hundreds of binary orders. On a device all of this stays there.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from mge_gpu.backends import Backend

NOTHING = -(1 << 40)
"""The exponent of a row of zeros."""


class Scaled(NamedTuple):
    """values * 2^exponent; the values are finite, none below zero."""

    values: Any  # (rows, before, networks, behind) float64: node (before, network, behind) of a set
    exponent: Any  # (rows, networks) int64


def _power(exponent: Any) -> Any:
    """2^exponent, (rows, 1, networks, 1) float64; 0 below its range, at most 2^1022."""
    within = np.minimum(np.maximum(exponent, -1100), 1022)
    found = np.ldexp(np.ones_like(within, np.float64), within.astype(np.int32))
    return found[:, None, :, None]


def added(parts: Sequence[Scaled]) -> Scaled:
    """The sum; its values are at most the number of parts. The last two rows have the same exponents.

    A part without a value does not count, whatever its exponents are.
    """
    if not parts[0].values.size:
        return parts[0]
    tops = []
    for x in parts:
        most = x.values.max((1, 3))
        shift = np.maximum(np.frexp(most)[1], -1000)  # 2^1074 is no float64
        tops.append(np.where(most > 0, x.exponent + shift, NOTHING))
    top = reduce(np.maximum, tops)
    top[-2:] = top[-2:].max(0)
    total = None
    for x in parts:
        here = x.values * _power(x.exponent - top)
        total = here if total is None else np.add(total, here, out=total)
    return Scaled(total, top)


def log_totals(parts: Sequence[Scaled], rows: int, networks: int, backend: Backend) -> np.ndarray:
    """Natural logarithms of the sums of all values of all parts, (rows, networks); -inf for 0.

    >>> import mge_gpu
    >>> part = Scaled(np.array([0.5, 0.25]).reshape(1, 1, 1, 2), np.array([[3]]))
    >>> log_totals([part], 1, 1, mge_gpu.backends.get_backend("cpu")).tolist() == [[np.log(6)]]
    True
    """
    if not parts:
        return np.full((rows, networks), -np.inf)
    values = backend.host(np.stack([x.values.sum((1, 3)) for x in parts]))
    fraction, shift = np.frexp(values)
    exponent = backend.host(np.stack([x.exponent for x in parts])) + shift
    top = np.where(values > 0, exponent, NOTHING).max(0)
    total = np.ldexp(fraction, np.clip(exponent - top, -1100, 0)).sum(0)
    with np.errstate(divide="ignore"):
        found: np.ndarray = np.where(total > 0, np.log(total) + top * np.log(2), -np.inf)
    return found
