"""The largest eigenvalue alone, by Lanczos with three vectors and no reorthogonalisation."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import eigh_tridiagonal

from mge_gpu.errors import MetricError
from mge_gpu.linalg import kernels
from mge_gpu.linalg.lanczos import ConvergenceWarning, LanczosInfo

CHECK = 4  # iterations between two looks at the projected problem
SETTLE = 8  # looks before a value may count as settled


def largest_eigenvalue(
    apply: Callable[[np.ndarray], np.ndarray],
    n: int,
    *,
    tol: float = 1e-5,
    max_iterations: int = 2000,
    seed: int = 0,
    start: Any = None,
    dtype: type[np.floating] = np.float64,
    like: Any = None,
) -> tuple[float, LanczosInfo]:
    """The algebraically largest eigenvalue of a symmetric operator on (n,) vectors of ``dtype``.

    The vectors are arrays of the kind of ``like`` (CuPy's, say); NumPy's by default. The first is ``start``
    (n,), which must not be orthogonal to the eigenvectors wanted, or random numbers of ``seed``. Images that
    ``apply`` returns are written to; it may write to them again, and return them, three calls later.

    Loss of orthogonality only repeats eigenvalues that have converged already, and leaves the residual
    beta_m |s_m| of the largest one true (Paige, Linear Algebra and its Applications 34, 1980). So
    nothing but three vectors is kept, and no restart slows the convergence.

    Stops when that residual is at most ``tol`` times the value; or when the value has grown by no more
    than that since half as many products. Within the residual there is an eigenvalue: the largest, unless
    the first vector has next to nothing of it (two that nearly agree, in parts of the graph that hardly
    touch), which a smaller ``tol`` makes as much less likely. The second matters where
    eigenvalues crowd at the top (a large map of equal pixels): there the value settles long before any
    one eigenvector does, with an error of at most a third of that growth where it falls like 1 / m².
    Returns 0.0 for n = 0. Warns with ConvergenceWarning if it does not get there.

    Raises:
        MetricError: the operator returns NaN or Inf.

    Example:
        >>> diagonal = np.array([3.0, -4.0, 1.0, 0.5])
        >>> round(largest_eigenvalue(lambda x: diagonal * x, 4)[0], 4)
        3.0
    """
    if n == 0:
        return 0.0, LanczosInfo(True, 0, 0, 0, np.zeros(0))
    if start is None:
        start = np.asarray(np.random.default_rng(seed).standard_normal(n, dtype), like=like)
    now = start * dtype(1 / kernels.norm(start))
    before = np.zeros(n, dtype, like=like)
    smallest = 64 * float(np.finfo(dtype).eps)
    alphas: list[float] = []
    history: list[float] = []
    betas: list[float] = []
    value, bound, beta, converged = 0.0, np.inf, 0.0, False
    while not converged and len(alphas) < max_iterations:
        image = apply(now).astype(dtype, copy=False)
        if image is now or (like is None and np.may_share_memory(image, now)):
            image = image.copy()
        alpha, beta = kernels.advance(image, beta, before, now)
        alphas.append(alpha)
        if not np.isfinite(beta):
            raise MetricError("the operator returned NaN or Inf; expected finite values")
        scale = max(map(abs, alphas))
        spent = beta <= smallest * scale or len(alphas) == n
        if spent or len(alphas) % CHECK == 0:
            last = len(alphas) - 1
            theta, vector = eigh_tridiagonal(alphas, betas, select="i", select_range=(last, last))
            value, bound = float(theta[0]), beta * abs(float(vector[-1, 0]))
            history.append(value)
            grown = value - history[len(history) // 2 - 1] if len(history) >= SETTLE else np.inf
            bound = min(bound, grown)
            converged = spent or bound <= tol * abs(value)
        betas.append(beta)
        if not converged:
            image *= dtype(1 / beta)
            before, now = now, image
    if not converged:
        warnings.warn(
            f"the largest eigenvalue is accurate to {bound:.2g} after {len(alphas)} products, asked for "
            f"{tol:g} relative; raise max_iterations",
            ConvergenceWarning,
            stacklevel=2,
        )
    return value, LanczosInfo(converged, len(alphas), len(alphas), 0, np.array([bound]))
