"""An orthonormal basis of a few long vectors, in double or single precision, for block Krylov methods."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mge_gpu.backends.cpu.serial import spread_out
from mge_gpu.linalg import device, kernels

Vectors = NDArray[np.float64]

CHUNK = 1 << 14  # elements of each vector of the basis that are worked on at a time


class Basis:
    """Rows ``vectors[:size]`` are orthonormal; at most ``capacity`` of them are ever held.

    Args:
        length: number of elements of a vector.
        capacity: number of vectors there is room for.
        dtype: float64, or float32 for half the memory; sums over pieces are in float64 either way.
        like: an array of the kind that holds the vectors; NumPy's by default.
    """

    def __init__(
        self, length: int, capacity: int, dtype: type[np.floating] = np.float64, like: Any = None
    ) -> None:
        self.vectors = np.empty((capacity, length), dtype, like=like)  # (capacity, length)
        self.size = 0
        self._wide = np.empty((0, length), like=like)

    def wide(self, x: NDArray[np.floating]) -> Vectors:  # (b, length)
        """A copy in float64, in the memory of the last one: long vectors take long to ask the system for."""
        if self._wide.shape != x.shape:
            self._wide = np.empty(x.shape, like=self.vectors)
        self._wide[:] = x
        return self._wide

    def remove(self, x: Vectors) -> tuple[Vectors, Vectors]:  # (b, length)
        """Make the rows of ``x`` orthogonal to the basis, in place, one by one.

        Returns:
            what was removed (size, b), and the rows' lengths then (b,).
        """
        out, lengths = np.zeros((self.size, len(x))), np.zeros(len(x))
        for column, row in enumerate(x):
            out[:, column], lengths[column] = kernels.remove(self.vectors[: self.size], row)
        return out, lengths

    def append(self, x: Vectors) -> None:  # (b, length)
        """Add rows that are orthonormal and orthogonal to the basis."""
        self.vectors[self.size : self.size + len(x)] = x
        self.size += len(x)

    def last(self, count: int) -> NDArray[np.floating]:  # (count, length)
        """A view of the vectors appended last, as they are stored."""
        return self.vectors[self.size - count : self.size]

    def rotate(self, combination: Vectors) -> None:  # (size, kept)
        """Replace the basis by the given combinations of its vectors, in place."""
        kept = combination.shape[1]
        if not isinstance(self.vectors, np.ndarray):
            device.rotate(self.vectors, self.size, combination)
            self.size = kept
            return
        turn = torch.from_numpy(np.ascontiguousarray(combination.T, self.vectors.dtype))
        held = torch.from_numpy(self.vectors)

        def piece(k: int) -> None:  # a second basis may not fit, a piece of it does
            part = slice(k * CHUNK, (k + 1) * CHUNK)
            held[:kept, part] = torch.mm(turn, held[: self.size, part])

        spread_out(piece, -(-self.vectors.shape[1] // CHUNK), self.vectors.size)
        self.size = kept


def random_vectors(generator: np.random.Generator, shape: tuple[int, ...], like: Any = None) -> Any:
    """Normal numbers in float64, the same ones on every device."""
    return np.asarray(generator.standard_normal(shape), like=like)


def orthonormalise(
    basis: Basis, x: Vectors, lengths: Vectors, scale: float, generator: np.random.Generator
) -> tuple[Vectors, Vectors]:
    """Orthonormal rows q, orthogonal to the basis, and r with x = rᵀ q up to rounding.

    A row of ``x`` that has nothing but rounding outside the basis and the rows before it is
    replaced by a random direction with coefficient 0: the Krylov space has run into an invariant
    subspace and goes on in what is left. Fewer rows come back where no direction is left.

    Args:
        x: (b, length), orthogonal to the basis already; overwritten.
        lengths: (b,), of its rows.
        scale: length of the rows before they were made orthogonal to the basis.

    Returns:
        q (b', length), the first rows of ``x``, and r (b', b), b' <= b.
    """
    b, length = x.shape
    floor = 16 * float(np.finfo(basis.vectors.dtype).eps) * scale
    room = min(b, length - basis.size)
    q, r = x[:room], np.zeros((room, b))  # a row is in its place, or goes to one that was read before
    used = 0
    for column in range(b):
        row = x[column]
        for _ in range(2 * (used > 0)):
            found = kernels.dots(q[:used], row)
            for f, other in zip(found, q[:used], strict=True):
                row -= f * other
            r[:used, column] += found
        norm = kernels.norm(row) if used else float(lengths[column])
        if norm > floor and used < room:
            r[used, column] = norm
            row /= norm
            if norm <= 1e-3 * scale:  # what rounding left inside the basis is large beside it
                _direction(basis, q[:used], row)
            if used < column:
                q[used] = row
            used += 1
    while used < room:
        q[used] = _direction(basis, q[:used], random_vectors(generator, (length,), x))
        used += 1
    return q, r


def _direction(basis: Basis, q: Vectors, x: Vectors) -> Vectors:
    """``x`` made orthogonal to the basis and to ``q``, of length 1, in place."""
    for _ in range(2):
        basis.remove(x[None])
        for other in q:
            x -= kernels.dot(other, x) * other
        x /= kernels.norm(x)
    return x
