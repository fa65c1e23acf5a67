"""Sums over nodes: exact over representatives, or estimated from a sample of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

BUDGET = 20_000_000_000
"""Two-step walks that an exact count may take (a minute or two on two cores) before it is estimated."""

SAMPLE = 2_000_000_000
"""Two-step walks that an estimate may take; it ends earlier where it is precise enough."""

TARGET = 0.005
"""Relative standard error at which an estimate ends."""

LIMIT = 0.007
"""Relative standard error for which an estimate may take as many walks as an exact count, `BUDGET`."""

SURE = 0.05
"""Share of ``SAMPLE`` that goes to counting the cheapest nodes, all of them: what they count varies most."""

STRATA = 32
"""The fewest strata of a round; each is drawn from twice."""

Count = Callable[[Any, Any], np.ndarray]


class Population(NamedTuple):
    """Nodes to draw from: one of each class of nodes that count the same.

    Attributes:
        nodes: (K,) their ids.
        times: (K,) how many nodes each stands for.
        cost: (K,) steps that counting takes, at least 1.
        size: (K,) a guess, up to a factor, of the absolute value that each counts; positive where that can
            be other than 0.
        part: (K,) the partition of each, nodes of which are more alike than others.
    """

    nodes: np.ndarray
    times: np.ndarray
    cost: np.ndarray
    size: np.ndarray
    part: np.ndarray


class _Round(NamedTuple):
    """Means of the strata of one round, and what their pairs say of the error."""

    strata: int
    mean: float
    variance: float  # of the mean
    square: float  # sum of the squared terms of the variance
    walks: int


def estimate(count: Count, population: Population, seed: int, base: float = 0.0) -> tuple[float, float]:
    """Estimate the sum of ``times[r] * count(r)`` over representatives r; returns it with its standard error.

    The cheapest representatives are all counted. The others are ordered by partition and cost and drawn with
    probability p_r proportional to times[r] * size[r] / sqrt(cost[r]) (the best allocation for values that
    vary in proportion to their guess), two from each of many strata of about equal probability, so that what
    varies between partitions and with the cost adds no error. The mean of times[r] count(r) / p_r is
    unbiased, whatever the guess, and the squared differences of the pairs give its variance (Cochran,
    Sampling Techniques, 1977, sections 5.5, 5A.10 and 9A.3). A second round follows where the first is not
    precise enough. Where few pairs make up the variance the stated error is widened as Student's t is at
    three standard deviations, with Satterthwaite's degrees of freedom.

    Args:
        count: (nodes (K,), cost (K,)) -> a value a node, (K,) float64.
        population: what to draw from.
        seed: of the draws.
        base: what is known exactly and will be added: the precision that is asked for is that of the sum.
    """
    nodes, times, cost, size, part = population
    generator = np.random.default_rng(seed)
    order = np.argsort(cost, kind="stable")
    sure = int(np.searchsorted(np.cumsum(cost[order]), SAMPLE * SURE, side="right"))
    surely, rest = np.split(order, [sure])
    known = float(count(nodes[surely], cost[surely]) @ times[surely]) if sure else 0.0
    rest = rest[size[rest] > 0]  # the others count nothing
    if not len(rest):
        return known, 0.0
    rest = rest[np.argsort(part[rest], kind="stable")]
    share = times[rest] * size[rest] / np.sqrt(cost[rest])
    share /= share.sum()
    typical = 2 * max(float(share @ cost[rest]), 1.0)  # expected walks of a stratum
    budget = SAMPLE - int(cost[surely].sum())

    shares = np.bincount(np.unique(part[rest], return_inverse=True)[1], share)  # of the partitions

    def draw(strata: float) -> _Round:
        # No stratum spans two partitions: the few that did would make up the variance.
        numbers = np.ceil(shares * np.clip(strata, STRATA, 1_000_000)).astype(np.int64)
        width = np.repeat(shares / numbers, numbers)
        place = np.cumsum(width)[:, None] - width[:, None] * generator.random((len(width), 2))
        picks = np.searchsorted(np.cumsum(share), place.ravel(), side="right")
        picks = np.minimum(picks, len(rest) - 1)  # the shares may add up to a little less than one
        distinct, back = np.unique(picks, return_inverse=True)
        chosen = rest[distinct]
        found = count(nodes[chosen], cost[chosen]) * times[chosen] / share[distinct]
        pairs = found[back.ravel()].reshape(-1, 2)
        terms = (width * (pairs[:, 0] - pairs[:, 1])) ** 2 / 4
        mean, walks = float(width @ pairs.mean(1)), int(cost[chosen].sum())
        return _Round(len(width), mean, float(terms.sum()), float((terms**2).sum()), walks)

    rounds = [draw(budget / 4 / typical)]
    first = rounds[0]
    total = abs(base + known + first.mean)

    def further(precision: float) -> float:
        """Strata for that relative error, and a few more: the variance is itself an estimate."""
        return first.strata * (1.3 * first.variance / max((precision * total) ** 2, 1e-300) - 1)

    if first.variance > (TARGET * total) ** 2:
        afford = (budget - first.walks) / typical
        beyond = (BUDGET - int(cost[surely].sum()) - first.walks) / typical
        strata = min(further(TARGET), max(afford, min(further(LIMIT), beyond)))
        if strata >= STRATA:
            rounds.append(draw(strata))
    weights = [r.strata / sum(r.strata for r in rounds) for r in rounds]
    value = sum(w * r.mean for w, r in zip(weights, rounds, strict=True))
    variance = sum(w**2 * r.variance for w, r in zip(weights, rounds, strict=True))
    square = sum(w**4 * r.square for w, r in zip(weights, rounds, strict=True))
    return known + value, float(np.sqrt(variance)) * _widening(variance, square)


def _widening(variance: float, square: float) -> float:
    """Student's t over the normal quantile at three standard deviations, for the variance's terms."""
    if variance == 0:
        return 1.0
    from scipy.stats import t

    freedom = max(3 * variance**2 / square - 2, 1.0)  # a squared normal variable has 3 as its mean square
    return float(t.ppf(0.99865, freedom)) / 3
