"""Extreme eigenvalues by block Lanczos with thick restart and full reorthogonalisation.

Against ARPACK: about half the products for the same accuracy, multiplicities by construction (a block
of k vectors sees k copies of an eigenvalue, a single vector sees one), and a memory that can be bounded.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mge_gpu.errors import MetricError
from mge_gpu.linalg import kernels
from mge_gpu.linalg.basis import Basis, Vectors, orthonormalise, random_vectors

Apply = Callable[[Any], Any]  # (b, n) of the basis' dtype -> (b, n), one vector a row

EVERY = 4  # steps between two looks at the projected problem

MEMORY = 1 << 28  # bytes that the basis may take before it is kept in single precision and shortened
FEWEST, MOST = 24, 96  # vectors of the basis: shorter ones take more products, longer ones more sums
LARGEST, LEAST = 1 << 32, 10  # bytes from which on it is shorter even than that, and how short


class ConvergenceWarning(UserWarning):
    """Eigenvalues are less accurate than was asked for."""


@dataclass(frozen=True)
class LanczosInfo:
    """How a run went; within ``bounds`` of each value there is an eigenvalue."""

    converged: bool
    products: int  # applications to one vector
    iterations: int  # applications to one block
    restarts: int
    bounds: NDArray[np.float64]  # (k,)


def extreme_eigenvalues(
    apply: Apply,
    n: int,
    k: int,
    *,
    which: Literal["LM", "LA"] = "LM",
    tol: float = 1e-6,
    max_iterations: int = 1000,
    seed: int = 0,
    block: int = 1,
    basis_size: int | None = None,
    dtype: type[np.floating] | None = None,
    copies: bool = True,
    like: Any = None,
) -> tuple[NDArray[np.float64], LanczosInfo]:
    """The k extreme eigenvalues, with multiplicity, of a symmetric operator.

    The matrix is projected on the block Krylov space of a random block. Within r = |A y - θ y| of a
    Ritz value θ there is an eigenvalue (Parlett, The Symmetric Eigenvalue Problem, 1998, section 4.5).
    The error is usually about r², but not in a cluster: a mixture of two eigenvectors looks converged
    to any test that trusts the distance to the next Ritz value, hence the test is on r.
    A full basis is restarted from its best Ritz vectors (Wu and Simon, SIAM J. Matrix Anal. Appl. 22, 2000).

    A block of b vectors sees at most b copies of a multiple eigenvalue. Where b < k, further copies are
    looked for from a new random vector outside the eigenvectors found, for as many products as make it
    unlikely (1 in 1,000) to miss one (Kuczyński and Woźniakowski, SIAM J. Matrix Anal. Appl. 13, 1992).

    Args:
        apply: the operator on a block of vectors, (b, n) -> (b, n), one vector a row, which it must leave as
            they are. They have the dtype of the basis; the images may have either, and may be overwritten
            by the next call.
        n: dimension.
        k: how many eigenvalues; fewer come back where n < k.
        which: "LM" largest absolute value, "LA" largest.
        tol: stop when r <= tol * |θ| for all values: their relative error is then at most about ``tol``,
            and about its square where they are not clustered.
        max_iterations: applications of the operator to a block after which to give up.
        seed: of the private generator of the random start.
        block: vectors a block. 1 needs the fewest products; k needs about two to three times as
            many, but fewer calls, and no second look for copies.
        basis_size: number of vectors kept; by default as many as fit 256 MiB, from 24 to 96, and fewer, from
            10, where those would take more than 4 GiB.
        dtype: float64 or float32 of the stored basis; float32 halves the memory and leaves the values
            a relative accuracy of about 1e-6. By default float64 where it fits 256 MiB.
        copies: look for further copies of multiple eigenvalues. False where all wanted values but the last
            are known to be simple, or copies are not to be counted.
        like: an array of the kind that the operator takes (CuPy's, say); NumPy's by default.

    Returns:
        values (k,) float64, extreme first, and how the run went.

    Warns:
        ConvergenceWarning: the tolerance was not reached; the bounds are in the message and the info.

    Raises:
        MetricError: k, block or basis_size make no sense, or the operator returns NaN, Inf or a wrong shape.

    Example:
        >>> diagonal = np.array([3.0, -4.0, 1.0, 3.0, 0.5])
        >>> values, info = extreme_eigenvalues(lambda x: x * diagonal, 5, 3)
        >>> values.round(6).tolist(), info.converged
        ([-4.0, 3.0, 3.0], True)
    """
    if n < 0 or k < 1 or which not in ("LM", "LA") or block < 1:
        raise MetricError(
            f"got n={n}, k={k}, which={which!r}, block={block}; "
            "expected n >= 0, k >= 1, 'LM' or 'LA', block >= 1"
        )
    k = min(k, n)
    if k == 0:
        return np.zeros(0), LanczosInfo(True, 0, 0, 0, np.zeros(0))
    b = min(block, n)
    capacity, dtype = basis_capacity(n, k, b, basis_size, dtype)
    run = _Lanczos(
        apply, Basis(n, capacity, dtype, like), k, which, np.random.default_rng(seed), max_iterations
    )
    run.start(b)
    converged = run.converge(tol)
    if b < k and copies:
        converged = converged and run.find_copies(tol)
    bounds = np.maximum(run.bounds, run.known_bound)
    info = LanczosInfo(converged, run.products, run.iterations, run.restarts, bounds)
    if not converged:
        warnings.warn(
            f"eigenvalues are accurate to {np.max(bounds):.2g} after {run.products} products, asked for "
            f"{tol:g} relative; raise max_iterations or basis_size",
            ConvergenceWarning,
            stacklevel=2,
        )
    return run.values, info


def basis_capacity(
    n: int, k: int, b: int, basis_size: int | None, dtype: type[np.floating] | None
) -> tuple[int, type[np.floating]]:
    """Vectors of a basis and their type, from what was asked for and what fits: see `extreme_eigenvalues`."""
    smallest = k + 2 * b
    if basis_size is None:
        wide = dtype or (np.float64 if n * FEWEST * 8 <= MEMORY else np.float32)
        vector = max(n * np.dtype(wide).itemsize, 1)
        size = min(max(MEMORY // vector, FEWEST), MOST, max(LARGEST // vector, LEAST))
        return min(n, max(smallest, size)), wide
    if basis_size < min(n, smallest):
        raise MetricError(f"got basis_size={basis_size}, expected at least k + 2 * block = {smallest}")
    return min(n, basis_size), dtype or (np.float64 if n * basis_size * 8 <= MEMORY else np.float32)


class _Lanczos:
    """State of a run: the basis, the projection of A on it, and the block that comes next."""

    def __init__(
        self,
        apply: Apply,
        basis: Basis,
        k: int,
        which: str,
        generator: np.random.Generator,
        max_iterations: int,
    ) -> None:
        self.apply, self.basis, self.k, self.which, self.generator = apply, basis, k, which, generator
        self.max_iterations = max_iterations
        self.projected = np.zeros((0, 0))  # V A Vᵀ
        self.coupling = np.zeros((0, 0))  # (next block, last block): what A leads out of the basis
        self.next = np.zeros((0, 0))
        self.values, self.bounds, self.theta = np.zeros(0), np.zeros(0), np.zeros(0)
        self.order, self.ritz = np.zeros(0, np.int64), np.zeros((0, 0))
        self.products = self.iterations = self.restarts = 0
        self.known_bound = 0.0  # of values whose continuation was given up for a second look
        self.exhausted = self.solved = False

    def start(self, b: int) -> None:
        """A random first block: every eigenvector has about the same share in it."""
        vectors = self.basis.vectors
        x = random_vectors(self.generator, (b, vectors.shape[1]), vectors)
        _, lengths = self.basis.remove(x)
        self.next, _ = orthonormalise(self.basis, x, lengths, 0.0, self.generator)

    def converge(self, tol: float) -> bool:
        """Step, restarting where the basis is full, until the values are accurate; False on giving up."""
        while self.iterations < self.max_iterations:
            self.step()
            if self.solved and (self.exhausted or self.accurate(tol)):
                return True
            self.make_room()
        if not self.solved:
            self._solve()
        return self.accurate(tol)

    def find_copies(self, tol: float) -> bool:
        """Look for copies of the values found, among what a Krylov space of one vector cannot see."""
        while not self.exhausted:
            found = np.abs(self.values)
            enough = min(products_to_see(found, tol, self.basis.vectors.shape[1]), self.products)
            self.known_bound = float(np.max(self.bounds, initial=self.known_bound))
            self.restart(self.k)  # not continued: their residuals lie outside the new Krylov space
            self.start(1)
            last = self.products + enough
            while not self.exhausted and self.products < last:
                if self.iterations >= self.max_iterations:
                    return False
                self.step()
                if self.solved and np.any(
                    np.abs(self.values) > found * (1 + tol) + self.rounding()
                ):  # a copy pushes the others down
                    if not self.exhausted and not self.accurate(tol):
                        self.make_room()
                        if not self.converge(tol):
                            return False
                    break
                self.make_room()
            else:
                return True
        return True

    def step(self) -> None:
        """Take the next block into the basis, apply the operator to it and solve the projected problem.

        In exact arithmetic the image leaves only the last two blocks (or, just after a restart, the Ritz
        vectors and the last block) without being orthogonal to them already, and rounding is amplified as
        Ritz values converge: it is made orthogonal to the whole basis. Semiorthogonality (Simon,
        Mathematics of Computation 42, 1984) would not do: Ritz vectors that a restart keeps inherit what
        is left of each other, and after ten restarts the values can be anything.
        """
        b, before = len(self.next), self.basis.size
        self.basis.append(self.next)
        block = self.basis.last(b)  # as it is stored, so that the projection is that of the basis
        found = self.apply(block)
        if found.shape != block.shape:
            raise MetricError(f"the operator returned {found.shape}, expected the shape given, {block.shape}")
        image = self.basis.wide(found)
        self.products, self.iterations = self.products + b, self.iterations + 1
        removed, lengths = self.basis.remove(image)
        if not np.isfinite(lengths).all():  # of NaN and Inf nothing else is left
            raise MetricError("the operator returned NaN or Inf; expected finite values")
        size = self.basis.size
        projected = np.zeros((size, size))
        projected[:before, :before] = self.projected
        projected[:, before:] = removed
        projected[before:] = removed.T
        projected[before:, before:] = (removed[before:] + removed[before:].T) / 2
        self.projected = projected
        scale = float(np.abs(projected).max())
        self.next, self.coupling = orthonormalise(self.basis, image, lengths, scale, self.generator)
        self.exhausted = len(self.next) == 0
        full = size + len(self.next) > self.basis.vectors.shape[0]
        self.solved = self.exhausted or full or self.iterations % EVERY == 0
        if self.solved:
            self._solve()

    def _solve(self) -> None:
        b = self.coupling.shape[1]
        theta, vectors = kernels.eigh(self.projected)
        self.order = np.argsort(-(np.abs(theta) if self.which == "LM" else theta), kind="stable")
        self.ritz = vectors[:, self.order]
        theta = theta[self.order]
        self.theta, self.values = theta, theta[: self.k]
        self.bounds = np.linalg.norm(self.coupling @ self.ritz[-b:, : self.k], axis=0)

    def accurate(self, tol: float) -> bool:
        """Whether every wanted value has an error bound below ``tol`` times itself, or below rounding."""
        if len(self.values) < self.k:
            return False
        return bool(np.all(self.bounds <= np.maximum(tol * np.abs(self.values), self.rounding())))

    def rounding(self) -> float:
        """What the precision of the basis leaves uncertain in any value."""
        return 4 * float(np.finfo(self.basis.vectors.dtype).eps) * float(np.abs(self.projected).max())

    def make_room(self) -> None:
        """Restart where the next block does not fit: keep the best Ritz vectors, which it continues."""
        capacity = self.basis.vectors.shape[0]
        if self.basis.size + len(self.next) > capacity:
            self.restart(min(self.k + (self.basis.size - self.k) // 2, capacity - 2 * len(self.next)))
            self.restarts += 1

    def restart(self, kept: int) -> None:
        """Shrink the basis to its best Ritz vectors."""
        if not self.solved:
            self._solve()
        kept = min(kept, self.basis.size)
        self.basis.rotate(self.ritz[:, :kept])
        self.projected = np.diag(self.theta[:kept])


def products_to_see(values: Vectors, tol: float, n: int) -> int:
    """Products after which a random vector has shown a copy of a value, or the copy makes no difference.

    A copy of value i would replace the last one. With δ = 1 - |λ_k| / |λ_i|, m products of A (m / 2
    of A²) leave a chance of at most 1.65 sqrt(n) exp(-(m - 1) sqrt(2 δ)) to see no more than |λ_k|.
    """
    largest = np.max(values, initial=0.0)
    if largest == 0:
        return 0
    delta = 1 - values[-1] / np.maximum(values, largest * np.finfo(np.float64).eps)
    delta = delta[delta > tol]
    if len(delta) == 0:
        return 0
    return int(np.ceil(1 + np.log(1.65 * np.sqrt(n) / 1e-3) / np.sqrt(2 * delta.min())))


def singular_values(
    apply: Apply,
    apply_t: Apply,
    shape: tuple[int, int],
    k: int,
    *,
    tol: float = 1e-6,
    max_iterations: int = 1000,
    seed: int = 0,
    block: int = 1,
    basis_size: int | None = None,
    dtype: type[np.floating] | None = None,
    copies: bool = True,
    like: Any = None,
) -> tuple[NDArray[np.float64], LanczosInfo]:
    """The k largest singular values, with multiplicity, through B Bᵀ or Bᵀ B, whichever is smaller.

    For the adjacency [[0, B], [Bᵀ, 0]] of a bipartite graph these are half its spectrum, ±σ: with
    half the length and half the number of vectors. Values below about 1e-8 of the largest are noise.

    Args:
        apply: (b, columns) -> (b, rows), x -> B x for each row x.
        apply_t: (b, rows) -> (b, columns), y -> Bᵀ y.
        shape: (rows, columns) of B.
        k: how many; fewer come back where B is smaller.

    The other arguments, warnings and errors are those of `extreme_eigenvalues`; ``info.bounds`` are
    bounds on the singular values.

    Example:
        >>> matrix = np.array([[3.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
        >>> values, _ = singular_values(lambda x: x @ matrix.T, lambda y: y @ matrix, (2, 3), 2)
        >>> values.round(6).tolist()
        [3.0, 2.0]
    """
    rows, columns = shape
    short, first, second = (rows, apply_t, apply) if rows <= columns else (columns, apply, apply_t)
    squares, info = extreme_eigenvalues(
        lambda x: second(first(x)),
        short,
        k,
        which="LA",
        tol=2 * tol,
        max_iterations=max_iterations,
        seed=seed,
        block=block,
        basis_size=basis_size,
        dtype=dtype,
        copies=copies,
        like=like,
    )
    values = np.sqrt(np.maximum(squares, 0.0))
    # an error e of σ² is one of e / (σ + sqrt(σ² - e)) of σ, at most e / σ and sqrt(e)
    bounds = np.minimum(info.bounds / np.maximum(values, np.finfo(np.float64).tiny), np.sqrt(info.bounds))
    return values, LanczosInfo(info.converged, info.products, info.iterations, info.restarts, bounds)
