"""The sums of `kernels` for arrays of a GPU: CuPy's, through the functions of NumPy that they take over.

Vectors of a basis are widened to double precision, a piece at a time where all of them at once may not fit.
Operations are few: with vectors of a small network each takes the host longer than the GPU.
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


def _fits(rows: Any) -> bool:
    return bool(8 * rows.size <= PIECE)


def _wide(array: Any) -> Any:
    return array.astype(np.float64, copy=False)


def _dots(rows: Any, x: Any) -> Any:
    if _fits(rows):
        return _wide(rows) @ _wide(x)
    total = np.zeros(len(rows), like=x)
    for part in _pieces(rows):
        total += _wide(rows[:, part]) @ _wide(x[part])
    return total


def _subtract(factors: Any, rows: Any, x: Any) -> None:
    """x (n,) float64 less factors @ rows, in place."""
    if _fits(rows):
        x -= factors @ _wide(rows)
        return
    for part in _pieces(rows):
        x[part] -= factors @ _wide(rows[:, part])


def remove(rows: Any, x: Any) -> tuple[np.ndarray, float]:
    """Make x (n,) float64 orthogonal to orthonormal rows, in place, in two passes.

    Returns what was removed, (m,), and |x| then: all of it is read back at once.
    """
    if _fits(rows):
        rows = _wide(rows)  # for all that follows
    found = np.zeros(len(rows) + 1, like=x)
    removed = found[:-1]
    for _ in range(2 if len(rows) else 0):
        factors = _dots(rows, x)
        _subtract(factors, rows, x)
        removed += factors
    found[-1:] = _dots(x[None], x)
    there = to_host(found)
    return there[:-1], float(np.sqrt(there[-1]))


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
