"""Bases of many operators side by side: row r of each vector belongs to operator r, and all go together.

Tensors of torch on any device. What is done with a basis takes the same few launches however many operators
there are. Rows are cut into pieces: products are summed in the vectors' precision within a piece, and in
double precision over the pieces.
"""

import torch
from torch import Tensor

PIECE = 1 << 12
"""Elements of a piece at most."""

CHUNKS = 8
"""Parts of a basis that are rotated one after the other: a second basis may not fit."""


def width(n: int) -> int:
    """Elements that a row of n has in memory: pieces of equal size, a multiple of four; the rest is zero.

    >>> width(0), width(10), width(10_001)
    (4, 12, 10008)
    """
    pieces = max(1, -(-n // PIECE))
    return pieces * max(1, -(-n // (4 * pieces))) * 4


def _pieces(x: Tensor) -> tuple[int, int]:
    """(pieces of all rows, elements of a piece) of (..., R, width)."""
    count = -(-x.shape[-1] // PIECE)
    return x.shape[-2] * count, x.shape[-1] // count


def _cut(vectors: Tensor) -> Tensor:
    """(m, R, width) -> (pieces, m, elements), a view."""
    return vectors.view(len(vectors), *_pieces(vectors)).transpose(0, 1)


def _for_pieces(factors: Tensor, like: Tensor) -> Tensor:
    """(R, a, b) of each row -> (pieces, a, b) of each piece, in the vectors' precision."""
    count = _pieces(like)[0] // len(factors)
    given = factors.to(like.dtype)[:, None].expand(-1, count, -1, -1)
    return given.reshape(-1, *factors.shape[1:])


def dots(vectors: Tensor, x: Tensor) -> Tensor:
    """Products of each row of x (R, width) with the rows of m vectors (m, R, width), (R, m) float64.

    >>> vectors = torch.tensor([[[3.0, 4, 0, 0], [1, 0, 0, 0]]])
    >>> dots(vectors, torch.tensor([[1.0, 1, 0, 0], [5, 1, 0, 0]])).tolist()
    [[7.0], [5.0]]
    """
    pieces, size = _pieces(x)
    found = torch.bmm(_cut(vectors), x.view(pieces, size, 1))
    return found.view(len(x), -1, len(vectors)).sum(1, dtype=torch.float64)


def subtract(vectors: Tensor, factors: Tensor, x: Tensor) -> None:
    """x (R, width) less the vectors (m, R, width), each row by factors (R, m), in place."""
    pieces, size = _pieces(x)
    x.view(pieces, 1, size).baddbmm_(_for_pieces(factors[:, None], x), _cut(vectors), alpha=-1)


def normalise(x: Tensor, shortest: Tensor | float = 0.0) -> Tensor:
    """Rows of length 1, in place, and zero where they were no longer than that; the lengths, (R,) float64.

    >>> x = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    >>> normalise(x, 2.0).tolist(), x[1].tolist()
    ([5.0, 0.0], [0.0, 0.0])
    """
    length = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
    length *= length > shortest
    inverse = length.reciprocal().nan_to_num_(nan=torch.nan, posinf=0.0)
    x *= inverse.to(x.dtype)[:, None]
    return length


def rotate(vectors: Tensor, turn: Tensor) -> None:
    """The first ``kept`` of (m, R, width) become combinations of all, row by row, turn (R, kept, m)."""
    cut, turn = _cut(vectors), _for_pieces(turn, vectors)
    step = -(-len(cut) // CHUNKS)
    for at in range(0, len(cut), step):
        part = slice(at, at + step)
        cut[part, : turn.shape[1]] = torch.bmm(turn[part], cut[part])
