"""An orthonormal basis of a few long vectors, in double or single precision, for block Krylov methods."""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]

CHUNK = 1 << 17  # elements of a vector that are converted from single to double precision at a time


class Basis:
    """Rows ``vectors[:size]`` are orthonormal; at most ``capacity`` of them are ever held.

    Args:
        length: number of elements of a vector.
        capacity: number of vectors there is room for.
        dtype: float64, or float32 for half the memory; all arithmetic is in float64 either way.
    """

    def __init__(self, length: int, capacity: int, dtype: type[np.floating] = np.float64) -> None:
        self.vectors = np.empty((capacity, length), dtype)  # (capacity, length)
        self.size = 0

    def _chunks(self) -> list[slice]:
        length = self.vectors.shape[1]
        step = length if self.vectors.dtype == np.float64 else CHUNK
        return [slice(at, at + step) for at in range(0, length, max(step, 1))]

    def coefficients(self, x: Vectors) -> Vectors:  # (b, length) -> (size, b)
        """Inner products of the basis with the rows of ``x``."""
        found = np.zeros((self.size, len(x)))
        for part in self._chunks():
            found += self.vectors[: self.size, part].astype(np.float64, copy=False) @ x[:, part].T
        return found

    def remove(self, x: Vectors) -> Vectors:  # (b, length) -> (size, b)
        """Make the rows of ``x`` orthogonal to the basis, in place; returns what was removed.

        Once is not enough in floating point, twice is (Giraud, Langou and Rozložník, 2005).
        """
        total = np.zeros((self.size, len(x)))
        for _ in range(2):
            found = self.coefficients(x)
            for part in self._chunks():
                x[:, part] -= found.T @ self.vectors[: self.size, part].astype(np.float64, copy=False)
            total += found
        return total

    def append(self, x: Vectors) -> None:  # (b, length)
        """Add rows that are orthonormal and orthogonal to the basis."""
        self.vectors[self.size : self.size + len(x)] = x
        self.size += len(x)

    def last(self, count: int) -> Vectors:  # (count, length)
        """A double precision copy of the vectors appended last."""
        return self.vectors[self.size - count : self.size].astype(np.float64)

    def rotate(self, combination: Vectors) -> None:  # (size, kept)
        """Replace the basis by the given combinations of its vectors, in place."""
        kept = combination.shape[1]
        for at in range(0, self.vectors.shape[1], CHUNK):  # in pieces: a second basis may not fit
            part = slice(at, at + CHUNK)
            self.vectors[:kept, part] = combination.T @ self.vectors[: self.size, part].astype(np.float64)
        self.size = kept


def orthonormalise(
    basis: Basis, x: Vectors, floor: float, generator: np.random.Generator
) -> tuple[Vectors, Vectors]:
    """Orthonormal rows q, orthogonal to the basis, and r with x = rᵀ q up to ``floor``.

    A row of ``x`` that has no more than ``floor`` outside the basis and the rows before it is
    replaced by a random direction with coefficient 0: the Krylov space has run into an invariant
    subspace and goes on in what is left. Fewer rows come back where no direction is left.

    Args:
        x: (b, length), orthogonal to the basis already; overwritten.

    Returns:
        q (b', length) and r (b', b), b' <= b.
    """
    b, length = x.shape
    room = min(b, length - basis.size)
    q, r = np.empty((room, length)), np.zeros((room, b))
    used = 0
    for column in range(b):
        row = x[column]
        for _ in range(2):
            found = q[:used] @ row
            row -= found @ q[:used]
            r[:used, column] += found
        norm = float(np.linalg.norm(row))
        if norm > floor and used < room:
            r[used, column] = norm
            # what rounding left inside the basis is large beside a short row: remove it once more
            row /= norm
            q[used] = _direction(basis, q[:used], row)
            used += 1
    while used < room:
        q[used] = _direction(basis, q[:used], generator.standard_normal((length,)))
        used += 1
    return q, r


def _direction(basis: Basis, q: Vectors, x: Vectors) -> Vectors:
    """``x`` made orthogonal to the basis and to ``q``, of length 1."""
    for _ in range(2):
        basis.remove(x[None])
        x -= (q @ x) @ q
        x /= np.linalg.norm(x)
    return x
