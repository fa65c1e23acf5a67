"""The two largest singular values of many matrices at once, through Gram matrices of similar size."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from mge_gpu.backends.cpu.serial import run_serial
from mge_gpu.linalg.lanczos import singular_values

LARGE = 2048
"""Length of the shorter side above which a CPU takes Lanczos on the nonzeros instead of all eigenvalues."""

TOGETHER = 1 << 23
"""Values of the Gram matrices of one batch (64 MiB)."""

TOLERANCE, BASIS = 1e-8, 300
"""Bound on Lanczos' relative residuals, and the vectors that it keeps: mostly twice as many as it needs."""


def two_largest(matrices: Sequence[Tensor], binary: Sequence[bool]) -> np.ndarray:
    """The two largest singular values of each matrix, or (``binary``) of its 0/1 pattern.

    The eigenvalues of the smaller Gram matrix, B Bᵀ or Bᵀ B, are σ². Gram matrices of similar size are
    padded with zeros, which add eigenvalues of zero, and solved as one batch, in double precision; on a
    CPU batches are shared out among the cores. The error of σ₂ is about 1e-16 σ₁² / σ₂, at most 1e-8 σ₁;
    the pattern of all ones, and no other of rank 1 without rows or columns of zeros, gives 0 exactly.

    Args:
        matrices: (rows, columns) each, all on one device; views are not copied as a whole.
        binary: for each whether its nonzeros count as ones.

    Returns:
        (matrices, 2) float64, σ₁ and σ₂; 0 where the rank is lower.

    Example:
        >>> matrix = torch.tensor([[3.0, 0.0], [0.0, -2.0], [0.0, 0.0]])
        >>> two_largest([matrix, matrix], [False, True]).tolist()
        [[3.0, 2.0], [1.0, 1.0]]
    """
    found = np.zeros((len(matrices), 2))
    sizes = [min(matrix.shape) for matrix in matrices]
    if not len(matrices):
        return found
    device = matrices[0].device
    small: list[int] = []
    large: list[int] = []
    for k, (matrix, pattern) in enumerate(zip(matrices, binary, strict=True)):
        if pattern and int(matrix.count_nonzero()) == matrix.numel():
            found[k, 0] = np.sqrt(matrix.numel())
        else:
            (large if device.type == "cpu" and sizes[k] > LARGE else small).append(k)
    batches = _batches(sorted(small, key=lambda k: -sizes[k]), sizes)

    def solve(b: int) -> None:
        side = max(2, sizes[batches[b][0]])
        grams = torch.zeros(len(batches[b]), side, side, dtype=torch.float64, device=device)
        for j, k in enumerate(batches[b]):
            grams[j, : sizes[k], : sizes[k]] = _gram(matrices[k], binary[k])
        squares = torch.linalg.eigvalsh(grams)[:, [-1, -2]]
        found[batches[b]] = squares.clamp(min=0).sqrt().cpu().numpy()

    side_by_side(solve, len(batches), device)
    for k in large:
        values = _by_lanczos(matrices[k], binary[k])
        found[k, : len(values)] = values
    return found


def side_by_side(task: Callable[[int], Any], count: int, device: torch.device) -> list[Any]:
    """Each task on a core of its own on a CPU, one after the other on a GPU."""
    return run_serial(task, count) if device.type == "cpu" else [task(k) for k in range(count)]


def _batches(order: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Runs of ``order``, largest first, in which padding adds at most a tenth to any side."""
    batches: list[list[int]] = []
    for k in order:
        side = sizes[batches[-1][0]] if batches else 0
        if batches and side <= 1.1 * sizes[k] + 2 and (len(batches[-1]) + 1) * side**2 <= TOGETHER:
            batches[-1].append(k)
        else:
            batches.append([k])
    return batches


def _gram(matrix: Tensor, pattern: bool) -> Tensor:
    """The smaller Gram matrix; counts below 2^24 are exact in single precision, whatever it multiplies in."""
    if pattern:
        exact = torch.float32 if max(matrix.shape) < 1 << 24 else torch.float64
        matrix = (matrix != 0).to(exact)
    else:
        matrix = matrix.double()
    return matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix


def _by_lanczos(matrix: Tensor, pattern: bool) -> np.ndarray:
    """Two singular values from products with the nonzeros.

    A block of two sees σ₂ = σ₁, and is made orthogonal to the whole basis in every
    step, which σ₁ ≫ σ₂ asks for.
    """
    sparse = scipy.sparse.csr_array((matrix != 0 if pattern else matrix).numpy(), dtype=np.float64)
    back = sparse.T.tocsr()
    values, _ = singular_values(
        lambda x: (sparse @ x.T).T,
        lambda y: (back @ y.T).T,
        sparse.shape,
        2,
        tol=TOLERANCE,
        block=2,
        basis_size=min(BASIS, *sparse.shape),
        dtype=np.float64,
    )
    return values
