"""Values with powers of two beside them: neither 2^1000 paths nor products of small weights leave float64.

A set of nodes has one exponent for each row of values and each network, so that in a union of networks none
is lost beside one whose values are larger by hundreds of binary orders. On a device all of this stays there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mge_gpu.backends import Backend
from mge_gpu.backends.cpu.scaled import NOTHING


class Scaled(NamedTuple):
    """values * 2^exponent; the values are finite, none below zero."""

    values: Any  # (rows, before, networks, behind) float64: node (before, network, behind) of a set
    exponent: Any  # (rows, networks) int64


def added(parts: Sequence[Scaled], backend: Backend) -> Scaled:
    """The sum; its values are at most the number of parts. The last two rows have the same exponents.

    A part without a value does not count, whatever its exponents are.
    """
    return Scaled(*backend.scaled_sum([x.values for x in parts], [x.exponent for x in parts]))


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
