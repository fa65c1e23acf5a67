"""Traces of operators that are only ever applied, with a standard error."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mge_gpu.errors import MetricError
from mge_gpu.linalg.basis import Vectors


def hutchinson(
    quadratic_form: Callable[[Vectors], NDArray[np.float64]],
    n: int,
    *,
    num_samples: int | None = None,
    relative_error: float | None = None,
    max_samples: int = 4096,
    batch: int = 8,
    seed: int = 0,
) -> tuple[float, float]:
    """Estimate tr(M) as the mean of zᵀ M z over random sign vectors z.

    E[zᵀ M z] = tr(M), and for symmetric M the variance of a sample is 2 (‖M‖_F² - Σ M_ii²)
    (Hutchinson, Communications in Statistics 18, 1989).

    Args:
        quadratic_form: (b, n) float64 signs -> (b,) values zᵀ M z. For tr(A⁴), A symmetric: ‖A(Az)‖².
        n: dimension.
        num_samples: how many sign vectors.
        relative_error: or draw until the standard error is this fraction of the estimate.
        max_samples: with ``relative_error``, stop here at the latest; the standard error says how far it got.
        batch: sign vectors at a time, n * batch float64.
        seed: of the private generator.

    Returns:
        the estimate and its standard error (0 where n is 0; inf after a single sample).

    Raises:
        MetricError: not exactly one of ``num_samples`` and ``relative_error``, or a form that is not finite.

    Example:
        >>> matrix = np.diag([1.0, 2.0, 3.0])  # a diagonal matrix has no variance at all
        >>> hutchinson(lambda z: ((z @ matrix) * z).sum(axis=1), 3, num_samples=4)
        (6.0, 0.0)
    """
    if (num_samples is None) == (relative_error is None) or batch < 1 or max_samples < 2:
        raise MetricError(
            f"got num_samples={num_samples}, relative_error={relative_error}, batch={batch}, max_samples="
            f"{max_samples}; expected one of the first two, batch >= 1 and max_samples >= 2"
        )
    if (num_samples is not None and num_samples < 1) or (relative_error is not None and relative_error <= 0):
        raise MetricError(
            f"got num_samples={num_samples}, relative_error={relative_error}; expected a positive value"
        )
    if n == 0:
        return 0.0, 0.0
    generator = np.random.default_rng(seed)
    limit = num_samples if num_samples is not None else max_samples
    samples = np.zeros(0)
    while True:
        count = min(batch, limit - len(samples))
        signs = generator.integers(0, 2, (count, n), np.int8).astype(np.float64)
        signs *= 2.0
        signs -= 1.0
        found = np.asarray(quadratic_form(signs), np.float64)
        if found.shape != (count,) or not np.isfinite(found).all():
            raise MetricError(
                f"the quadratic form returned shape {found.shape} for {count} vectors, or NaN or Inf; "
                f"expected ({count},) finite values"
            )
        samples = np.append(samples, found)
        estimate = float(samples.mean())
        spread = float(samples.std(ddof=1)) if len(samples) > 1 else np.inf
        error = spread / np.sqrt(len(samples))
        done = relative_error is not None and len(samples) > 1 and error <= relative_error * abs(estimate)
        if done or len(samples) >= limit:
            return estimate, float(error)


def trace_of_fourth_power(
    apply: Callable[[Vectors], Vectors],
    n: int,
    *,
    num_samples: int | None = None,
    relative_error: float | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """tr(A⁴) of a symmetric operator, that is its closed walks of length 4, from ‖A² z‖².

    Args:
        apply: (b, n) float64 -> (b, n), one vector a row.

    The other arguments, the result and the errors are those of `hutchinson`.

    Example:
        >>> path = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # eigenvalues ±√2 and 0
        >>> trace_of_fourth_power(lambda x: x @ path, 3, num_samples=2000)[0] == 8 or "8 within its error"
        '8 within its error'
    """

    def squared_norms(z: Vectors) -> NDArray[np.float64]:
        twice = apply(apply(z))
        return np.einsum("ij,ij->i", twice, twice)

    return hutchinson(squared_norms, n, num_samples=num_samples, relative_error=relative_error, seed=seed)
