"""The largest eigenvalue of many operators at once, by Lanczos with three vectors each, in step."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

from mge_gpu.backends.precision import plain
from mge_gpu.errors import MetricError
from mge_gpu.linalg import rows
from mge_gpu.linalg.lanczos import ConvergenceWarning
from mge_gpu.linalg.largest import CHECK, SETTLE
from mge_gpu.linalg.many import Apply, ManyInfo


def largest_of_each(
    apply: Apply,
    operators: int,
    n: int,
    *,
    tol: float = 1e-5,
    max_iterations: int = 2000,
    seed: int = 0,
    start: torch.Tensor | None = None,  # (R, width)
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> tuple[NDArray[np.float64], ManyInfo]:
    """The algebraically largest eigenvalue of each of R symmetric operators.

    The method, the start (a row each, or one random vector for all) and the moment at which an operator's
    value is taken are those of `largest.largest_eigenvalue` for each alone; they take steps until the last of
    them is done. The other arguments are those of `many.largest_magnitudes`.

    Returns:
        values (R,) float64, 0.0 for n = 0, and how the run went.

    Warns:
        ConvergenceWarning: some values are less accurate than asked for.

    Raises:
        MetricError: an operator returns NaN or Inf.

    Example:
        >>> diagonals = torch.tensor([[3.0, -4.0, 1.0, 0.5], [-1.0, -2.0, -3.0, -4.0]])
        >>> largest_of_each(lambda x: diagonals * x, 2, 4)[0].round(4).tolist()
        [3.0, -1.0]
    """
    looks = [_Look(n, tol, 64 * torch.finfo(dtype).eps) for _ in range(operators)]
    products = 0
    if n and operators:
        place = torch.device(device)
        with plain(place), torch.no_grad():
            if start is None:
                numbers = np.random.default_rng(seed).standard_normal(n, _numpy(dtype))
                start = torch.zeros(operators, rows.width(n), dtype=dtype, device=place)
                start[:, :n] = torch.from_numpy(numbers).to(place)
            products = _run(apply, start.clone(), looks, min(n, max_iterations))
    values = np.array([look.value for look in looks])
    bounds = np.array([look.bound for look in looks]).reshape(-1, 1)
    info = ManyInfo(np.array([look.done for look in looks], bool), products, bounds)
    if products and not info.converged.all():
        warnings.warn(
            f"the largest eigenvalues of {(~info.converged).sum()} of {operators} operators are accurate to "
            f"{bounds.max():.2g} after {products} products, asked for {tol:g} relative; raise max_iterations",
            ConvergenceWarning,
            stacklevel=2,
        )
    return values, info


def _numpy(dtype: torch.dtype) -> type[np.floating]:
    return np.float64 if dtype is torch.float64 else np.float32


class _Look:
    """What is known of one operator: its value, a bound on the error, and the values at earlier looks."""

    def __init__(self, n: int, tol: float, smallest: float) -> None:
        self.n, self.tol, self.smallest = n, tol, smallest
        self.value, self.bound, self.done = 0.0, 0.0, n == 0
        self.history: list[float] = []

    def take(self, alphas: NDArray[np.float64], betas: NDArray[np.float64]) -> None:
        """Look at the projection after some steps: alphas on the diagonal, betas beside it and last."""
        scale = np.maximum.accumulate(np.abs(alphas))
        spent = np.flatnonzero(betas <= self.smallest * scale)
        count = int(spent[0]) + 1 if len(spent) else len(alphas)  # what came after is nothing but rounding
        top = (count - 1, count - 1)
        theta, vector = eigh_tridiagonal(alphas[:count], betas[: count - 1], select="i", select_range=top)
        self.value, self.bound = float(theta[0]), float(betas[count - 1] * abs(vector[-1, 0]))
        self.history.append(self.value)
        if len(self.history) >= SETTLE:
            self.bound = min(self.bound, self.value - self.history[len(self.history) // 2 - 1])
        exhausted = bool(len(spent)) or count == self.n
        self.done = exhausted or self.bound <= self.tol * abs(self.value)


def _run(apply: Apply, now: torch.Tensor, looks: list[_Look], most: int) -> int:
    """Lanczos steps from the rows of ``now`` until all are done; how many."""
    rows.normalise(now)
    before, beta = torch.zeros_like(now), now.new_zeros(len(now), dtype=torch.float64)
    projections: list[torch.Tensor] = []
    for steps in range(1, most + 1):
        image = apply(now)
        image.addcmul_(before, beta.to(now.dtype)[:, None], value=-1)
        alpha = rows.dots(now[None], image)[:, 0]
        image.addcmul_(now, alpha.to(now.dtype)[:, None], value=-1)
        beta = rows.normalise(image)
        projections.append(torch.stack((alpha, beta)))
        before, now = now, image
        if steps % CHECK == 0 or steps == most:
            found = torch.stack(projections).cpu().numpy()  # (steps, 2, R)
            if not np.isfinite(found).all():
                raise MetricError("an operator returned NaN or Inf; expected finite values")
            for r, look in enumerate(looks):
                if not look.done:
                    look.take(found[:, 0, r], found[:, 1, r])
            if all(look.done for look in looks):
                return steps
    return most
