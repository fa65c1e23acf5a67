"""Pairs of candidates: what is known of them, how often one beat the other, and what follows for an order."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mge_gpu.ranking.features import (
    CONTEXT,
    FEATURES,
    LAYER_FEATURES,
    group_codes,
    group_context,
    group_medians,
    topology_features,
)
from mge_gpu.ranking.table import SETTING

if TYPE_CHECKING:
    import pandas

DIFFERENCES = (*FEATURES, "dynamic")
_DISPLACED = ("sinks", "sources", "removable_out", "removable_in", "alive", "useful_edges")
_ROBUST = tuple(name for name in DIFFERENCES if name not in _DISPLACED)
_CHANNELS = ("channel_degree", "bare_channels")

_PLACES = (*(f"first_{name}" for name in FEATURES), *(f"second_{name}" for name in FEATURES))

FEATURE_NAMES = (
    *DIFFERENCES,
    *LAYER_FEATURES,
    *CONTEXT,
    *_PLACES,
)
"""What a pair is described by: the differences of the two's features, the context that they share, and how
far each of them stands from the median of the group."""

VIEWS: Mapping[str, tuple[str, ...]] = {
    "differences": (*DIFFERENCES, *CONTEXT),
    "places": (*DIFFERENCES, *CONTEXT, *_PLACES),
    "robust": (*_ROBUST, *CONTEXT),
    "densities": (*(name for name in LAYER_FEATURES if name not in _CHANNELS), "dynamic", *CONTEXT),
    "channels": (*_CHANNELS, *_ROBUST, *CONTEXT),
}
"""The parts of `FEATURE_NAMES` that boosters learn from: one booster a view, and their mean is taken.

``robust`` does without sinks and sources, which the published table counts wrongly behind strided
convolutions. ``densities`` knows how the weights are spread over the layers and no graph at all; ``channels``
is ``robust`` with the channels of the layers. Boosters of different views err differently, and their mean
orders better than any of them, see docs/ranker.md.
"""

CERTAIN = 0.75
"""Two candidates can be told apart where one beats the other with at least this chance."""


def group_pairs(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All ordered pairs of different rows of the same group.

    Args:
        codes: (rows,) the number of each row's group.

    Returns:
        first, second: (pairs,) row numbers; each pair comes in both orders.

    >>> [part.tolist() for part in group_pairs(np.array([0, 1, 0]))]
    [[0, 2], [2, 0]]
    """
    order = np.argsort(codes, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    first, second = [], []
    for members in groups:
        a, b = np.nonzero(~np.eye(len(members), dtype=bool))
        first.append(members[a])
        second.append(members[b])
    return np.concatenate(first), np.concatenate(second)


def reversed_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:  # (pairs,) int64
    """Where each pair of `group_pairs` stands the other way round.

    >>> reversed_pairs(np.array([0, 0, 1, 1, 2, 2]), np.array([1, 2, 0, 2, 0, 1])).tolist()
    [2, 4, 0, 5, 1, 3]
    """
    reverse = np.empty(len(first), "int64")
    reverse[np.lexsort((second, first))] = np.lexsort((first, second))
    return reverse


def pair_features(
    rows: "pandas.DataFrame", group: Sequence[str], first: np.ndarray, second: np.ndarray
) -> np.ndarray:  # (pairs, features), float64
    """The features of pairs of rows, in the order of `FEATURE_NAMES`; differences are first less second."""
    codes = group_codes(rows, group)
    features = topology_features(rows)
    context = group_context(rows, features, codes).to_numpy()
    values = features.to_numpy()
    places = (features - group_medians(features, codes))[list(FEATURES)].to_numpy()
    return np.hstack([values[first] - values[second], context[first], places[first], places[second]])


def columns_of(view: str) -> list[int]:
    """The columns of `pair_features` that a view has."""
    return [FEATURE_NAMES.index(name) for name in VIEWS[view]]


def win_shares(
    table: "pandas.DataFrame", first: np.ndarray, second: np.ndarray
) -> np.ndarray:  # (pairs,), float64
    """How often the first beat the second: the share of pairs of their training runs, ties counting half.

    All seeds of a (model, data set, sparsity) count, not only those of the two rows: the target is the chance
    that one training run with the first method is more accurate than one with the second.
    """
    keys = table.groupby([*SETTING, "method"], sort=False).ngroup().to_numpy()
    accuracy = table["accuracy"].to_numpy("float64")
    runs = {key: accuracy[keys == key] for key in np.unique(keys)}
    pairs, inverse = np.unique(np.stack([keys[first], keys[second]]), axis=1, return_inverse=True)
    shares = np.array([_share(runs[a], runs[b]) for a, b in pairs.T])
    return shares[inverse.ravel()] if len(shares) else np.empty(0)


def _share(ours: np.ndarray, theirs: np.ndarray) -> float:
    difference = ours[:, None] - theirs[None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def mean_chances(count: int, first: np.ndarray, chances: np.ndarray) -> np.ndarray:  # (count,), float64
    """Each candidate's mean chance to beat another one of its group; 0.5 for one that stands alone.

    >>> mean_chances(3, np.array([0, 1]), np.array([0.75, 0.25])).tolist()
    [0.75, 0.25, 0.5]
    """
    others = np.bincount(first, minlength=count)
    total = np.bincount(first, chances, minlength=count)
    return np.where(others > 0, total / np.maximum(others, 1), 0.5)


def best_chances(matrix: np.ndarray) -> np.ndarray:  # (n, n) -> (n,), float64
    """Each candidate's chance to be the best of all, from the chances that it beats each of the others.

    Fits the strengths θ of the Bradley-Terry model, P(i beats j) = 1 / (1 + exp(θ_j − θ_i)), by maximum
    likelihood, and gives P(i is best) = exp(θ_i) / Σ exp(θ_j) (Luce 1959).

    >>> best_chances(np.array([[0.5, 0.8], [0.2, 0.5]])).round(6).tolist()
    [0.8, 0.2]
    """
    chances = np.clip(matrix, 1e-3, 1 - 1e-3)
    np.fill_diagonal(chances, 0)
    strength = np.full(len(chances), 1 / len(chances))
    for _ in range(500):  # minorise-maximise (Hunter 2004), from Σ_j P_ij = Σ_j s_i / (s_i + s_j)
        shared = 1 / (strength[:, None] + strength[None, :])
        np.fill_diagonal(shared, 0)
        new = chances.sum(1) / np.maximum(shared.sum(1), 1e-300) if len(chances) > 1 else np.ones(1)
        new /= new.sum()
        if np.abs(new - strength).max() < 1e-7:
            break
        strength = new
    return new


def tiers(matrix: np.ndarray, order: Sequence[int]) -> list[int]:
    """Which candidates cannot be told apart, going down an order: a number from 1 for each, in that order.

    A new tier begins at the first candidate that its tier's head beats with a chance of `CERTAIN` or more.

    >>> tiers(np.array([[0.5, 0.6, 0.9], [0.4, 0.5, 0.8], [0.1, 0.2, 0.5]]), [0, 1, 2])
    [1, 1, 2]
    """
    result, head = [1], order[0]
    for candidate in order[1:]:
        apart = matrix[head, candidate] >= CERTAIN
        result.append(result[-1] + bool(apart))
        if apart:
            head = candidate
    return result
