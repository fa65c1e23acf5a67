"""Sums over nodes: exact over representatives, or estimated from a sample of them."""

from collections.abc import Callable
from typing import Any

import numpy as np

BUDGET = 20_000_000_000
"""Two-step walks that an exact count may take (a minute or two on two cores) before it is estimated."""

SAMPLE = 2_000_000_000
"""Two-step walks that an estimate may take."""


def estimate(
    count: Callable[[Any, Any], np.ndarray], nodes: np.ndarray, times: np.ndarray, cost: np.ndarray, seed: int
) -> tuple[float, float]:
    """Estimate the sum of ``times[r] * count(r)`` over representatives r; returns it with its standard error.

    Representatives are drawn with replacement with probability p_r proportional to times[r] *
    cost[r]; the mean of times[r] count(r) / p_r is unbiased, and its spread gives the standard
    error (Hansen and Hurwitz, Annals of Mathematical Statistics 14, 1943).

    Args:
        count: (nodes (K,), cost (K,)) -> a value a node, (K,) float64.
        nodes, times, cost: representatives, how many nodes each stands for, walks that counting takes.
    """
    share = times * cost.astype(np.float64)
    share /= share.sum()
    typical = float((share * cost).sum())  # expected walks of one draw
    draws = int(np.clip(SAMPLE / max(typical, 1.0), 64, 200_000))
    picks = np.random.default_rng(seed).choice(len(nodes), draws, p=share)
    distinct, back = np.unique(picks, return_inverse=True)
    values = count(nodes[distinct], cost[distinct])[back] * times[picks] / share[picks]
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(draws))
