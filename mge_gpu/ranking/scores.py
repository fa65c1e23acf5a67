"""How alike two orders of methods are: Kendall's tau and rank-biased overlap."""

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


def rank_biased_overlap(
    first: Sequence[str | Sequence[str]], second: Sequence[str | Sequence[str]], p: float = 0.9
) -> float:
    """Extrapolated rank-biased overlap of two orders of the same items, best first, ties allowed.

    With S_d the items of one order down to depth d, a tied group counting as soon as it begins, and
    A_d = 2 |S_d ∩ T_d| / (|S_d| + |T_d|), the two orders' agreement there,
    RBO_ext = A_k p^k + (1 − p)/p Σ_{d=1..k} A_d p^d (equations 23 and 30 of Webber, Moffat and Zobel, "A
    similarity measure for indefinite rankings", ACM TOIS 2010). Both orders hold the same k items here, so
    A_k = 1. The first places weigh most; 1 means the same order.

    Args:
        first, second: an item, or a sequence of items that tie, for each place.
        p: how slowly the weight of a place falls, in (0, 1).

    Raises:
        RankingError: the orders are not of the same items, repeat one, or are empty; p is not in (0, 1).

    >>> round(rank_biased_overlap(["erk", "snip"], ["snip", "erk"]), 6)
    0.9
    >>> round(rank_biased_overlap([("erk", "snip")], ["snip", "erk"]), 6)
    0.966667
    """
    if not 0 < p < 1:
        raise RankingError(f"rank-biased overlap needs p between 0 and 1, got {p}")
    tops, others = _seen(first), _seen(second)
    if not tops or len(tops) != len(others) or tops[-1] != others[-1] or len(tops[-1]) != len(tops):
        raise RankingError(
            f"rank-biased overlap compares two orders of the same items, got {first} and {second}"
        )
    agreement = [2 * len(a & b) / (len(a) + len(b)) for a, b in zip(tops, others, strict=True)]
    return p ** len(tops) + (1 - p) * sum(a * p**d for d, a in enumerate(agreement))


def tied_order(items: Sequence[str], scores: Sequence[float]) -> list[tuple[str, ...]]:
    """The items by score, highest first; those of equal score together.

    >>> tied_order(["a", "b", "c"], [1.0, 2.0, 1.0])
    [('b',), ('a', 'c')]
    """
    places: dict[float, list[str]] = {}
    for item, score in zip(items, scores, strict=True):
        places.setdefault(float(score), []).append(item)
    return [tuple(sorted(places[score])) for score in sorted(places, reverse=True)]


def _seen(order: Sequence[str | Sequence[str]]) -> list[set[str]]:
    """The items seen at each depth from 1 to the number of items."""
    seen: set[str] = set()
    result: list[set[str]] = []
    for place in order:
        items = [place] if isinstance(place, str) else list(place)
        seen = seen | set(items)
        result += [seen] * len(items)
    return result
