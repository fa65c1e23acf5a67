"""The sums of `kernels` for arrays of a GPU: CuPy's, through the functions of NumPy that they take over.

Vectors of a basis are widened to double precision, a piece at a time where all of them at once may not fit.
"""

from typing import Any

import numpy as np

PIECE = 1 << 28
"""Bytes of a basis that are widened at a time."""


def to_host(array: Any) -> np.ndarray:
    """The array in NumPy, a copy where it lies on a GPU."""
    if isinstance(array, np.ndarray):
        return array
    copied: np.ndarray = array.get()
    return copied


def _pieces(rows: Any) -> list[slice]:
    width = max(1, PIECE // (8 * max(len(rows), 1)))
    return [slice(at, at + width) for at in range(0, rows.shape[1], width)]


def dots(rows: Any, x: Any) -> np.ndarray:
    """rows @ x, (m, n) and (n,) -> (m,) float64 on the host."""
    return to_host(_dots(rows, x)) if len(rows) else np.zeros(0)


def _dots(rows: Any, x: Any) -> Any:
    total = np.zeros(len(rows), like=x)
    for part in _pieces(rows):
        total += rows[:, part].astype(np.float64, copy=False) @ x[part].astype(np.float64, copy=False)
    return total


def remove(rows: Any, x: Any) -> tuple[np.ndarray, float]:
    """Make x orthogonal to orthonormal rows, in place, in two passes; what was removed, (m,), and |x| then.

    All of it is read back at once.
    """
    if len(_pieces(rows)) == 1:
        rows = rows.astype(np.float64, copy=False)  # once, not for each of the sums
    found = np.zeros(len(rows) + 1, like=x)
    for _ in range(2 if len(rows) else 0):
        factors = _dots(rows, x)
        for part in _pieces(rows):
            x[part] -= factors @ rows[:, part].astype(np.float64, copy=False)
        found[:-1] += factors
    found[-1:] = _dots(x[None], x)
    removed = to_host(found)
    return removed[:-1], float(np.sqrt(removed[-1]))


def advance(image: Any, beta: float, before: Any, now: Any) -> tuple[float, float]:
    """`kernels.advance`: both numbers are read back at once."""
    image -= image.dtype.type(beta) * before
    found = np.zeros(2, like=image)
    found[:1] = _dots(now[None], image)
    image -= found[:1].astype(image.dtype) * now
    found[1:] = _dots(image[None], image)
    alpha, square = to_host(found).tolist()
    return alpha, float(np.sqrt(square))


def rotate(vectors: Any, size: int, combination: np.ndarray) -> None:
    """The first rows become combinations (size, kept) of the first ``size`` rows, in place."""
    turn = np.asarray(np.ascontiguousarray(combination.T, vectors.dtype), like=vectors)
    for part in _pieces(vectors):
        vectors[: len(turn), part] = turn @ vectors[:size, part]
