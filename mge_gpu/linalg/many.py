"""The extreme eigenvalues of many operators at once, by Lanczos in step: one launch does a thing for all."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mge_gpu.backends.cpu.serial import run_serial
from mge_gpu.backends.precision import plain
from mge_gpu.errors import MetricError
from mge_gpu.linalg import rows
from mge_gpu.linalg.lanczos import EVERY, MOST, ConvergenceWarning, products_to_see

Apply = Callable[[Tensor], Tensor]  # (R, width) -> a new (R, width), row r by operator r

SHORTEST = 1e-30
"""Size of an operator that counts as zero; the inverse of its rounding is a number in single precision."""

INSIDE = 0.5
"""Length that is left of a unit vector outside the basis where it was nothing but rounding."""


@dataclass(frozen=True)
class ManyInfo:
    """How a run went; within ``bounds`` of each value there is an eigenvalue."""

    converged: NDArray[np.bool_]  # (R,)
    products: int  # applications to one vector of each operator
    bounds: NDArray[np.float64]  # (R, k)


def largest_magnitudes(
    apply: Apply,
    operators: int,
    n: int,
    k: int,
    *,
    tol: float = 1e-6,
    max_iterations: int = 1000,
    seed: int = 0,
    basis_size: int = MOST,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> tuple[NDArray[np.float64], ManyInfo]:
    """The k eigenvalues of largest absolute value, with multiplicity, of each of R symmetric operators.

    The method, the accuracy and the random start are those of `lanczos.extreme_eigenvalues` for each operator
    alone, but that each image is made orthogonal to the whole basis. All operators are applied as often as
    the slowest of them needs, but once half of those that take steps are done their bases wait. One whose
    Krylov space is exhausted goes on with zeros, which add eigenvalues of zero to the projection and no
    others; what lies outside that space is found when copies are looked for.

    Args:
        apply: all operators on a vector each, a new tensor. Rows have ``rows.width(n)`` elements, of which
            those from n on are zero and stay so.
        operators: how many, R.
        n: dimension of each.
        k: how many eigenvalues.
        tol, seed: as there.
        max_iterations: steps after which to give up those that are not accurate, and copies of the others.
        basis_size: number of vectors kept of each operator, at least k + 2.
        dtype: float64 or float32 of the vectors.
        device: where they lie.

    Returns:
        values (R, min(k, n)) float64, largest first, and how the run went.

    Warns:
        ConvergenceWarning: the tolerance was not reached for some operators.

    Raises:
        MetricError: an operator returns NaN or Inf, or basis_size is too small.

    Example:
        >>> diagonals = torch.tensor([[3.0, -4.0, 1.0, 0.0], [2.0, 2.0, 0.5, 0.0]])
        >>> values, _ = largest_magnitudes(lambda x: diagonals * x, 2, 3, 2)
        >>> values.round(6).tolist()
        [[-4.0, 3.0], [2.0, 2.0]]
    """
    k = min(k, n)
    if basis_size < k + 2:
        raise MetricError(f"got basis_size={basis_size}, expected at least k + 2 = {k + 2}")
    if k == 0 or operators == 0:
        return np.zeros((operators, k)), ManyInfo(np.ones(operators, bool), 0, np.zeros((operators, k)))
    place = torch.device(device)
    with plain(place), torch.no_grad():
        capacity = max(min(n, basis_size), k + 2)
        basis = torch.zeros(capacity + 1, operators, rows.width(n), dtype=dtype, device=place)
        run = _InStep(apply, basis, n, k, tol, max_iterations, np.random.default_rng(seed))
        run.start()
        run.converge()
        run.find_copies()
    row_of = np.argsort(run.order)
    bounds = np.maximum(run.bounds, run.known[:, None])
    info = ManyInfo(~run.failed[row_of], run.products, bounds[row_of])
    if not info.converged.all():
        warnings.warn(
            f"eigenvalues of {(~info.converged).sum()} of {operators} operators are accurate to "
            f"{info.bounds.max():.2g} after {run.products} products, asked for {tol:g} relative; raise "
            "max_iterations or basis_size",
            ConvergenceWarning,
            stacklevel=2,
        )
    return run.values[row_of], info


class _InStep:
    """State of a run: bases, the projections on them, and in ``basis[size]`` the vectors that come next.

    Row r is operator ``order[r]``. The first ``active`` rows take steps; the others have converged, and their
    bases are their k Ritz vectors.
    """

    def __init__(
        self,
        apply: Apply,
        basis: Tensor,  # (capacity + 1, R, width)
        n: int,
        k: int,
        tol: float,
        max_iterations: int,
        generator: np.random.Generator,
    ) -> None:
        self.apply, self.basis, self.n, self.k, self.tol = apply, basis, n, k, tol
        self.max_iterations, self.generator = max_iterations, generator
        self.capacity, count = len(basis) - 1, basis.shape[1]
        self.order, self.active = np.arange(count), count
        self.operator_of: Tensor | None = None  # the order on the device, once it is another
        self.size = self.products = 0
        # column j: products of A v_j with v_0 .. v_j, and below the diagonal the length of what is left of it
        self.projected = torch.zeros(
            count, self.capacity + 1, self.capacity, dtype=torch.float64, device=basis.device
        )
        # vectors that are not zero: those beside a Krylov space that is exhausted are
        self.alive = torch.zeros(count, self.capacity + 1, dtype=torch.bool, device=basis.device)
        self.floor = 16 * torch.finfo(basis.dtype).eps
        self.scale = torch.full_like(self.projected[:, 0, 0], SHORTEST)  # largest number of each projection
        self.values, self.bounds = np.zeros((count, k)), np.full((count, k), np.inf)
        self.rounding = np.zeros(count)  # what the precision of the basis leaves uncertain in any value
        self.failed = np.zeros(count, bool)  # given up: their values are as accurate as their bounds say
        self.known = np.zeros(count)  # bounds of values whose continuation was given up for a second look
        self.least = np.zeros(count)  # steps before anybody looks

    def start(self) -> None:
        """The same random vector for all, orthogonal to what each has in its basis."""
        x = torch.zeros_like(self.basis[0, : self.active])
        x[:, : self.n] = torch.from_numpy(self.generator.standard_normal(self.n)).to(x)
        rows.normalise(x)
        if self.size:
            self._outside(x, torch.ones_like(self.scale[: self.active]))
        self.basis[self.size, : self.active] = x
        self.alive[: self.active, self.size] = x.any(1)

    def _outside(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Make x orthogonal to the basis and of length 1, in place, or zero where it lies in the basis.

        Twice, since once is not enough in floating point (Giraud, Langou and Rozložník, 2005); the second
        time at length 1, so that a short rest is orthogonal, too.

        Args:
            x: (R, width).
            scale: (R,), the largest number so far, against which a rest may be nothing but rounding; updated.

        Returns:
            what was removed (R, size), and the length of the rest (R,).
        """
        held = self.basis[: self.size, : len(x)]
        found = rows.dots(held, x)
        rows.subtract(held, found, x)
        torch.maximum(scale, torch.linalg.vector_norm(found, torch.inf, dim=1), out=scale)
        length = rows.normalise(x, self.floor * scale)
        again = rows.dots(held, x)
        rows.subtract(held, again, x)
        found += length[:, None] * again
        length *= rows.normalise(x, INSIDE)
        return found, length

    def step(self) -> None:
        """Take the next vector into the basis and apply the operators to it."""
        image, active = self._image(), slice(self.active)
        self.size, self.products = self.size + 1, self.products + 1
        found, length = self._outside(image, self.scale[active])
        self.basis[self.size, active] = image
        self.projected[active, : self.size, self.size - 1] = found
        self.projected[active, self.size, self.size - 1] = length
        self.alive[active, self.size] = length > 0

    def _image(self) -> Tensor:
        """The active operators applied to their next vectors, (active, width)."""
        x = self.basis[self.size]
        if self.operator_of is None:
            return self.apply(x)
        where = self.operator_of[: self.active]
        return self.apply(torch.zeros_like(x).index_copy_(0, where, x[: self.active]))[where]

    def converge(self) -> None:
        """Steps of the active operators: ``least`` of each, and until its values are accurate or given up."""
        due, steps = np.arange(len(self.order)) < self.active, 0
        while due.any():
            if self.size == self.capacity:
                self.restart(min(self.k + (self.size - self.k) // 2, self.capacity - 2))
            self.step()
            steps += 1
            last = steps == self.max_iterations
            ready = due & ((self.least <= steps) | last)
            if ready.any() and (last or self.size == self.capacity or steps % EVERY == 0):
                self._look(ready)
                due &= ~(ready & self.accurate())
            if last:
                self.failed |= due
                return
            if 0 < 2 * due.sum() <= self.active:
                due = self._retire(due)

    def _retire(self, due: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Only those that are due go on, in the first rows, which are marked; others keep k Ritz vectors."""
        done = (np.arange(len(due)) < self.active) & ~due
        found = self._solve(done)
        order = np.concatenate([np.flatnonzero(due), np.flatnonzero(done)])
        there = torch.from_numpy(order).to(self.basis.device)
        for vectors in self.basis[: self.size + 1]:  # one at a time: all of them may not fit twice
            vectors[: len(order)] = vectors[there]
        for tensor in (self.projected, self.scale, self.alive):
            tensor[: len(order)] = tensor[there]
        by_row = self.order, self.values, self.bounds, self.rounding, self.failed, self.known, self.least
        for array in by_row:
            array[: len(order)] = array[order]
        self.operator_of = torch.from_numpy(self.order).to(self.basis.device, copy=True)
        at, self.active = slice(int(due.sum()), self.active), int(due.sum())
        self._shrink(at, found, self.k)
        return np.arange(len(due)) < self.active

    def _shrink(self, at: slice, found: "_Ritz", kept: int) -> None:
        """Some rows' bases become their best Ritz vectors."""
        turn = torch.from_numpy(np.ascontiguousarray(found.vectors[:, :, :kept].transpose(0, 2, 1)))
        rows.rotate(self.basis[: self.size, at], turn.to(self.basis.device))
        self.projected[at] = 0
        held = torch.from_numpy(found.values[:, :kept].copy()).to(self.basis.device)
        self.projected[at, :kept, :kept] = torch.diag_embed(held)
        self.alive[at, :kept] = torch.from_numpy(found.alive[:, :kept].copy()).to(self.basis.device)

    def find_copies(self) -> None:
        """Look for copies of the values found, among what a Krylov space of one vector cannot see."""
        looking = ~self.failed
        while True:
            found = np.abs(self.values)
            needed = [products_to_see(x, self.tol, self.n) for x in found] * looking
            self.least = np.minimum(needed, min(self.products, self.max_iterations))
            looking = self.least > 0
            if not looking.any():
                return
            self.known[looking] = np.maximum(self.known, self.bounds.max(1))[looking]
            self.restart(self.k)
            self.active, row_of = len(self.order), np.argsort(self.order)
            if not looking.all():
                self._retire(looking)
            self.start()
            self.converge()
            found = found[row_of[self.order]]
            more = np.abs(self.values) > found * (1 + self.tol) + self.rounding[:, None]
            looking = np.any(more, axis=1) & ~self.failed

    def accurate(self) -> NDArray[np.bool_]:
        """Whether each operator has values with bounds of at most ``tol`` times them, or below rounding."""
        allowed = np.maximum(self.tol * np.abs(self.values), self.rounding[:, None])
        return np.all(self.bounds <= allowed, axis=1)

    def restart(self, kept: int) -> None:
        """Shrink each basis to its best Ritz vectors; the next vector stays the next."""
        active = slice(self.active)
        found = self._solve(np.arange(len(self.values)) < self.active)
        self._shrink(active, found, kept)
        self.basis[kept, active] = self.basis[self.size, active]
        self.alive[active, kept] = self.alive[active, self.size]
        self.size = kept

    def _look(self, due: NDArray[np.bool_]) -> None:
        """Values and bounds of some of the operators."""
        found = self._solve(due)
        self.values[due] = found.values[:, : self.k]
        self.bounds[due] = np.abs(found.length[:, None] * found.vectors[:, -1, : self.k])

    def _solve(self, due: NDArray[np.bool_]) -> "_Ritz":
        """The projected problems of some operators."""
        held = self.projected[:, : self.size + 1, : self.size].cpu().numpy()[due]
        if not np.isfinite(held).all():
            raise MetricError("an operator returned NaN or Inf; expected finite values")
        upper, length = held[:, :-1], held[:, -1, -1]
        matrices = np.triu(upper) + np.triu(upper, 1).transpose(0, 2, 1)
        eps = torch.finfo(self.basis.dtype).eps
        self.rounding[due] = 4 * eps * np.abs(matrices).max((1, 2))
        alive = self.alive[:, : self.size].cpu().numpy()[due]
        solved = run_serial(lambda r: _eigenpairs(matrices[r], alive[r]), len(matrices))
        theta = np.array([values for values, _ in solved]).reshape(-1, self.size)
        ritz = np.array([vectors for _, vectors in solved]).reshape(-1, self.size, self.size)
        alive = np.sort(alive, axis=1)[:, ::-1]  # as the eigenpairs are
        order = np.argsort(-np.abs(theta), axis=1, kind="stable")
        return _Ritz(
            np.take_along_axis(theta, order, 1),
            np.take_along_axis(ritz, order[:, None], 2),
            length,
            np.take_along_axis(alive, order, 1),
        )


class _Ritz(NamedTuple):
    """Ritz values of some operators, largest first."""

    values: NDArray[np.float64]  # (R, size)
    vectors: NDArray[np.float64]  # (R, size, size), in columns
    length: NDArray[np.float64]  # (R,), of what comes next
    alive: NDArray[np.bool_]  # (R, size): whether it is one of vectors that are not zero


def _eigenpairs(
    matrix: NDArray[np.float64], alive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenpairs of a projection: those on vectors that are not zero, then zeros with each of the others.

    All at once they could mix: what is left of an eigenvector of zero would then be shorter than 1.
    """
    there, gone = np.flatnonzero(alive), np.flatnonzero(~alive)
    values, vectors = torch.linalg.eigh(torch.from_numpy(matrix[np.ix_(there, there)]))
    theta, ritz = np.zeros(len(matrix)), np.zeros_like(matrix)
    theta[: len(there)] = values.numpy()
    ritz[there, : len(there)] = vectors.numpy()
    ritz[gone, np.arange(len(there), len(matrix))] = 1
    return theta, ritz
