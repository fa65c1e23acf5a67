"""Extreme eigenvalues of a large network's adjacency or Laplacian from few products with it."""

import warnings
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu.serial import spread_out
from mge_gpu.errors import MetricError
from mge_gpu.linalg.basis import Basis, Vectors
from mge_gpu.linalg.lanczos import ConvergenceWarning, LanczosInfo, lanczos_from
from mge_gpu.linalg.profiles import Edge, Floats, Layout, Profiles, multiply, principal_directions

Operator = Callable[[Sequence[Block]], Callable[[Floats], Floats]]

INNER = 0.4  # the projected problem is solved to this fraction of the residual
ENRICH = 0.4  # share of the residual (in length) that the new profiles may leave out
DROP = 0.1  # length of what is dropped from the Ritz vectors, as a share of the residual
SECOND_LOOK = 3e-3  # residual of the search for what was missed; a tenth of it where values are close
ROUNDING = 3e-6  # relative, of values from single precision vectors
INNER_VECTORS = 60
KEEP = 1 << 15  # coordinates of a partition up to which no profile is ever dropped


class Symmetric(NamedTuple):
    """diag(diagonal) + sign (A + A^T), with A given by its blocks."""

    edges: Sequence[Edge]
    apply: Callable[[Floats], Floats]  # (n,) float32 -> (n,), x -> (A + A^T) x
    operator: Operator  # makes such a function from other blocks
    sign: float = 1.0
    diagonal: Floats | None = None  # (n,) float32


class _Search:
    """Ritz vectors in the subspace, their residuals outside it, and the profiles that come next."""

    def __init__(
        self,
        matrix: Symmetric,
        layouts: Sequence[Layout],
        k: int,
        which: str,
        generator: np.random.Generator,
        known: tuple[NDArray[np.float64], Floats] | None,
    ) -> None:
        self.matrix, self.layouts, self.k, self.which, self.generator = matrix, layouts, k, which, generator
        self.known = known  # eigenpairs that are shifted to zero
        self.products = self.iterations = self.inner = 0
        self.space = Profiles(layouts, [self._first(z) for z in layouts])
        self.coordinates: Floats | None = None
        self.theta, self.vectors = np.zeros(k), np.zeros((0, 0), np.float32)
        self.residual = np.full(k, 0.5)  # relative lengths

    def _first(self, layout: Layout) -> Floats:
        """Profiles to start with: constant, random, and the channel of the largest diagonal element."""
        columns = [np.ones(layout.channels), self.generator.standard_normal(layout.channels)]
        if self.matrix.diagonal is not None:
            peak = layout.matrix(self.matrix.diagonal).max(axis=1)
            columns.append(np.eye(1, layout.channels, int(peak.argmax()))[0])
        return _orthonormal(np.stack(columns, 1))

    def solve(self, tol: float) -> None:
        """The wanted eigenpairs of the projected operator."""
        m = self.matrix
        inner = m.operator(self.space.project(m.edges))
        diagonal = self.space.diagonal(m.diagonal) if m.diagonal is not None else None
        known = None if self.known is None else (self.known[0], self.space.restrict(self.known[1]))

        def apply(rows: Vectors) -> Vectors:
            out = np.empty(rows.shape, np.float64)
            for x, y in zip(rows.astype(np.float32), out, strict=True):
                y[:] = inner(x)
                if m.sign != 1:
                    y *= m.sign
                if diagonal is not None:
                    diagonal(x, y)
                if known is not None:
                    y -= (known[0] * (known[1] @ x)) @ known[1]
            return out

        size = self.space.size
        basis = Basis(size, min(max(INNER_VECTORS, 4 * self.k), size), np.float32)
        start = self.coordinates
        if start is None:
            start = self.generator.standard_normal((self.k, size))
        self.theta, y, products = lanczos_from(
            apply, basis, start, self.k, self.which, tol, self.generator, max_iterations=200
        )
        self.coordinates, self.inner = y, self.inner + products
        self.vectors = self.space.lift(y)

    def measure(self, chosen: Sequence[int]) -> Floats:
        """Residuals A x - theta x of some Ritz vectors, by the full operator; (chosen, n) float32."""
        m = self.matrix
        out = np.empty((len(chosen), self.vectors.shape[1]), np.float32)
        for row, i in zip(out, chosen, strict=True):
            x = self.vectors[i]
            row[:] = m.apply(x)
            if m.sign != 1:
                row *= np.float32(m.sign)
            if m.diagonal is not None:
                row += m.diagonal * x
            if self.known is not None:
                row -= (self.known[0] * (self.known[1] @ x)).astype(np.float32) @ self.known[1]
            row -= np.float32(self.theta[i]) * x
            self.products += 1
            length = float(np.sqrt(np.vdot(row, row)))
            if not np.isfinite(length):
                raise MetricError("the operator returned NaN or Inf; expected finite values")
            self.residual[i] = length / max(abs(self.theta[i]), 1e-30)
        return out

    def enrich(self, residuals: Floats, chosen: Sequence[int]) -> None:
        """Keep the profiles that the Ritz vectors use and add those that dominate their residuals."""
        assert self.coordinates is not None
        allowed = (DROP * self.residual[list(chosen)].min()) ** 2
        scale = [1 / max(float(np.sqrt(np.vdot(r, r))), 1e-30) for r in residuals]
        for r, s in zip(residuals, scale, strict=True):
            r *= np.float32(s)
        used, fresh = [], []
        for p in range(len(self.layouts)):
            if self.space.ranks[p]:
                maps = np.concatenate([self.space.maps(y, p) for y in self.coordinates], axis=1)
                energy, turn = np.linalg.eigh(multiply(maps, maps.T).astype(np.float64))
                if self.space.ranks[p] * self.layouts[p].positions <= KEEP:
                    energy[:] = np.inf
                used.append((p, energy, turn))

        def directions(p: int) -> list[tuple[int, Floats, Floats]]:
            parts = [self.layouts[p].matrix(r) for r in residuals]
            if sum(float(np.einsum("ij,ij->", x, x)) for x in parts) < ENRICH**2 / (4 * len(self.layouts)):
                return []
            return [(p, *principal_directions(parts, np.random.default_rng(p)))]

        each = spread_out(directions, len(self.layouts), residuals.size)
        fresh = [found for some in each for found in some]
        floor_used = _cut(np.concatenate([e for _, e, _ in used]), allowed)
        total = np.concatenate([e for _, e, _ in fresh]) if fresh else np.zeros(0)
        missing = max(len(residuals) - float(total.sum()), 0.0)  # what the directions leave out anyway
        floor_fresh = _cut(total, max(ENRICH**2 * len(residuals) - missing, 0.0))
        bases: list[Floats] = []
        kept: list[Floats] = []
        for z in self.layouts:
            bases.append(np.zeros((z.channels, 0), np.float32))
            kept.append(np.zeros((0, 0), np.float32))
        for p, energy, turn in used:
            kept[p] = turn[:, energy >= floor_used].astype(np.float32)
            bases[p] = self.space.bases[p] @ kept[p]
        for p, energy, new in fresh:
            bases[p] = _orthonormal(
                np.concatenate([bases[p], new[:, energy >= floor_fresh]], 1), bases[p].shape[1]
            )
        space = Profiles(self.layouts, bases)
        y = np.zeros((self.k, space.size), np.float32)
        for p, turn in enumerate(kept):
            for old, new in zip(self.coordinates, y, strict=True):
                if turn.shape[1]:
                    space.maps(new, p)[: turn.shape[1]] = turn.T @ self.space.maps(old, p)
        self.space, self.coordinates = space, y

    def run(self, tol: float, max_products: int, enough: Callable[["_Search"], bool] | None = None) -> bool:
        """Solve, measure and enrich until all residuals are below ``tol``; False on giving up."""
        while True:
            self.solve(max(0.3 * tol, INNER * float(self.residual.max())))
            chosen = [i for i in range(self.k) if self.residual[i] > tol]
            residuals = self.measure(chosen)
            self.iterations += 1
            if self.residual.max() <= tol:  # some may have been measured for an older Ritz vector
                self.measure([i for i in range(self.k) if i not in chosen])
                if self.residual.max() <= tol:
                    return True
            if enough is not None and enough(self):
                return True
            if self.products >= max_products:
                return False
            worst = [c for c, i in enumerate(chosen) if self.residual[i] > tol]
            if worst:
                self.enrich(residuals[worst], [chosen[c] for c in worst])


def _cut(energy: Floats, allowed: float) -> float:
    """The smallest energy to keep such that the smaller ones add up to at most ``allowed``."""
    ordered = np.sort(energy[np.isfinite(energy)])
    dropped = int(np.searchsorted(np.cumsum(ordered), allowed, side="right"))
    return float(ordered[dropped]) if dropped < len(ordered) else np.inf


def _orthonormal(columns: Floats, done: int = 0) -> Floats:
    """Orthonormal columns with the same span, float32; the first ``done`` are kept as they are."""
    q: list[Floats] = [np.asarray(columns[:, c], np.float64) for c in range(done)]
    for c in range(done, columns.shape[1]):
        v = np.asarray(columns[:, c], np.float64)
        v = v / max(float(np.linalg.norm(v)), 1e-300)
        for _ in range(2):
            for other in q:
                v = v - (other @ v) * other
        length = float(np.linalg.norm(v))
        if length > 1e-4 and len(q) < len(v):
            q.append(v / length)
    return np.ascontiguousarray(np.stack(q, 1), np.float32) if q else np.zeros((len(columns), 0), np.float32)


def enriched_eigenvalues(
    matrix: Symmetric,
    layouts: Sequence[Layout],
    k: int,
    *,
    which: Literal["LM", "LA"] = "LM",
    tol: float = 1e-5,
    max_products: int = 150,
    seed: int = 0,
) -> tuple[NDArray[np.float64], LanczosInfo]:
    """The k extreme eigenvalues of a large layered operator from a few dozen products with it.

    An eigenvector of a convolutional network is, partition by partition, close to a few channel
    profiles times maps of the positions. The eigenproblem is solved in the subspace of all such vectors
    (`Profiles`), where a product costs a fraction; the residual A x - theta x, taken with the operator
    itself, then shows what is missing: its principal channel directions become new profiles (Davidson, J.
    Comput. Phys. 17, 1975; of low rank as in Dolgov and Savostyanov, SIAM J. Sci. Comput. 36, 2014). Crowds
    of eigenvalues on large maps, which slow Lanczos on the operator, are left to the subspace.

    The stopping test is that of `extreme_eigenvalues`, |A x - theta x| <= tol |theta| by the operator
    itself. What the starting profiles may have missed is looked for once more from others, with the
    eigenpairs found shifted to zero, until that search's residual is below 3e-3 (3e-4 where its value may
    still pass the k-th): a value above the k-th takes its place.

    Args:
        matrix: the operator and its blocks. Vectors are float32, which leaves values an accuracy of 1e-6.
        layouts: of all partitions, in the order of the vectors.
        k: how many; all partitions together must have more nodes than that.
        which: "LM" largest absolute value, "LA" largest.
        tol: of the residual, relative to the value.
        max_products: products after which to give up.
        seed: of the private generator of random profiles.

    Warns:
        ConvergenceWarning: the tolerance was not reached.

    Raises:
        MetricError: the operator returns NaN or Inf.
    """
    generator = np.random.default_rng(seed)
    search = _Search(matrix, layouts, k, which, generator, None)
    converged = search.run(tol, max_products)
    values, vectors, bounds = search.theta, search.vectors, search.residual * np.abs(search.theta)
    products, iterations = search.products, search.iterations
    del search
    while converged and products < max_products:
        other = _Search(matrix, layouts, 1, which, generator, (values, vectors))
        smallest = _rank(values, which)[k - 1] if len(values) >= k else 0.0

        def missed(s: _Search, smallest: float = smallest) -> bool:
            # a Ritz value is a lower bound: above the k-th by more than rounding it proves another eigenvalue
            return bool(_rank(s.theta, which)[0] > smallest + ROUNDING * abs(smallest))

        def enough(s: _Search, smallest: float = smallest) -> bool:
            value, r = float(_rank(s.theta, which)[0]), float(s.residual.max())
            below = value + r * abs(value) < smallest
            return missed(s) or r <= (SECOND_LOOK if below else SECOND_LOOK / 10)

        other.run(tol, max_products - products, enough)
        products, iterations = products + other.products, iterations + other.iterations
        if not missed(other):
            break
        converged = other.run(tol, max_products - other.products)
        values = np.concatenate([values, other.theta])
        vectors = np.concatenate([vectors, other.vectors])
        bounds = np.concatenate([bounds, other.residual * np.abs(other.theta)])
    order = np.argsort(-(np.abs(values) if which == "LM" else values), kind="stable")[:k]
    info = LanczosInfo(converged, products, iterations, 0, bounds[order])
    if not converged:
        warnings.warn(
            f"eigenvalues are accurate to {info.bounds.max():.2g} after {products} products, asked for "
            f"{tol:g} relative; raise max_products",
            ConvergenceWarning,
            stacklevel=2,
        )
    return values[order], info


def _rank(values: Floats, which: str) -> Floats:
    """Values by which the wanted ones are the largest, descending."""
    ordered: Floats = np.sort(np.abs(values) if which == "LM" else values)[::-1]
    return ordered
