"""How well one order of methods agrees with another: Kendall's tau and rank-biased overlap."""

from collections.abc import Sequence

import numpy as np

from mge_gpu._optional import require
from mge_gpu.errors import RankingError


def kendall_tau(predicted: Sequence[float], actual: Sequence[float]) -> float:
    """Kendall's tau-b of two lists of scores: 1 the same order, −1 the reverse.

    tau_b = (P − Q) / sqrt((P + Q + T)(P + Q + U)) with P concordant pairs, Q discordant ones, T tied in the
    first list only and U in the second only (Kendall 1945). NaN where a list is all ties, as it orders
    nothing.

    >>> round(kendall_tau([1, 2, 3], [1, 3, 2]), 6)
    0.333333
    """
    stats = require("scipy.stats", "rank", "Kendall's tau")
    return float(stats.kendalltau(np.asarray(predicted, float), np.asarray(actual, float)).statistic)


def rank_biased_overlap(first: Sequence[str], second: Sequence[str], p: float = 0.9) -> float:
    """Extrapolated rank-biased overlap of two orders of the same items, best first.

    With A_d the share of items that the first d of both have in common and k their length,
    RBO_ext = A_k p^k + (1 − p)/p Σ_{d=1..k} A_d p^d (equation 23 of Webber, Moffat and Zobel, "A similarity
    measure for indefinite rankings", ACM TOIS 2010, with X_d = d A_d). Both orders hold the same items here,
    so A_k = 1. The first places weigh most; 1 means the same order.

    Raises:
        RankingError: the orders are not of the same items, repeat one, or are empty; p is not in (0, 1).

    >>> round(rank_biased_overlap(["erk", "snip"], ["snip", "erk"]), 6)
    0.9
    """
    if not 0 < p < 1:
        raise RankingError(f"rank-biased overlap needs p between 0 and 1, got {p}")
    if not first or len(set(first)) != len(first) or len(first) != len(second) or set(first) != set(second):
        raise RankingError(
            f"rank-biased overlap compares two orders of the same items, got {first} and {second}"
        )
    total, seen_first, seen_second = 0.0, set(), set()
    for depth, (a, b) in enumerate(zip(first, second, strict=True), start=1):
        seen_first.add(a)
        seen_second.add(b)
        total += len(seen_first & seen_second) / depth * p ** (depth - 1)
    return p ** len(first) + (1 - p) * total
