"""Intervals: a bootstrap over what was drawn independently, and Student's t over few seeds."""

from collections.abc import Callable, Sequence

import numpy as np

from mge_gpu._optional import require

RESAMPLES = 1000

Interval = tuple[float, float]


def draws(clusters: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """How often each cluster is drawn in each resample of the clusters with replacement.

    Args:
        clusters: (rows,) labels; rows of one cluster are drawn together.

    Returns:
        codes: (rows,) int64, the cluster of each row; counts: (resamples, clusters) float64.
    """
    codes = np.unique(clusters, return_inverse=True)[1]
    number = int(codes.max()) + 1
    random = np.random.default_rng(seed)
    counts = random.multinomial(number, np.full(number, 1 / number), size=resamples)
    return codes, counts.astype("float64")


def cluster_sums(values: np.ndarray, codes: np.ndarray) -> np.ndarray:  # (clusters, columns), float64
    """Sums of the rows of ``values`` (rows, columns) by cluster."""
    sums = np.zeros((int(codes.max()) + 1, values.shape[1]))
    np.add.at(sums, codes, values)
    return sums


def bootstrap(
    values: np.ndarray, clusters: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> tuple[float, Interval]:
    """A statistic of sums, and its 95 % percentile interval over clusters.

    Args:
        values: (rows, columns) float64, finite.
        clusters: (rows,) labels.
        statistic: from sums of columns, (..., columns), to (...,).

    >>> ones = np.ones((4, 1))
    >>> value, interval = bootstrap(ones, np.arange(4), lambda sums: sums[..., 0])
    >>> value, interval
    (4.0, (4.0, 4.0))
    """
    codes, counts = draws(clusters, seed=seed)
    sums = cluster_sums(values, codes)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = statistic(counts @ sums)
        value = float(statistic(sums.sum(0)))
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return value, (float("nan"), float("nan"))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return value, (float(low), float(high))


def mean_interval(values: np.ndarray, clusters: np.ndarray, seed: int = 0) -> tuple[float, Interval]:
    """The mean of the finite values and its 95 % bootstrap interval over clusters."""
    known = np.isfinite(values)
    if not known.any():
        return float("nan"), (float("nan"), float("nan"))
    rows = np.column_stack([values[known], np.ones(known.sum())])
    return bootstrap(rows, clusters[known], lambda sums: sums[..., 0] / sums[..., 1], seed)


def seed_interval(values: Sequence[float]) -> tuple[float, Interval]:
    """Mean and 95 % interval of Student's t over seeds; unbounded with one seed.

    >>> mean, (low, high) = seed_interval([1.0, 2.0, 3.0])
    >>> mean, round(low, 3), round(high, 3)
    (2.0, -0.484, 4.484)
    """
    known = np.asarray(values, "float64")
    known = known[np.isfinite(known)]
    if len(known) < 2:
        mean = float(known.mean()) if len(known) else float("nan")
        return mean, (-np.inf, np.inf)
    quantile = require("scipy.stats", "rank", "intervals over seeds").t.ppf(0.975, len(known) - 1)
    half = float(quantile * known.std(ddof=1) / np.sqrt(len(known)))
    return float(known.mean()), (float(known.mean()) - half, float(known.mean()) + half)
