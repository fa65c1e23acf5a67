"""From a table of trained networks to models of its pairs, and the baseline that knows no topology."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu._optional import require
from mge_gpu.errors import RankingError
from mge_gpu.metrics.profile import PROFILE_KEYS
from mge_gpu.ranking.features import GROUP, group_codes
from mge_gpu.ranking.linear import PENALTY, Linear, fit_linear
from mge_gpu.ranking.model_text import compact
from mge_gpu.ranking.pairs import VIEWS, columns_of, group_pairs, pair_features, win_shares
from mge_gpu.ranking.table import SETTING

if TYPE_CHECKING:
    import pandas

PARAMETERS: Mapping[str, Any] = {
    "objective": "cross_entropy",
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    # One thread and one histogram layout: sums come in the same order, and the same table gives
    # the same trees.
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbose": -1,
}


@dataclass(frozen=True)
class Settings:
    """What may be tuned.

    Attributes:
        leaves: the largest number of leaves of a tree.
        rounds: trees in a booster.
        leaf_pairs: the smallest number of pairs in a leaf.
        views: names of `mge_gpu.ranking.pairs.VIEWS`, a booster for each; their chances are averaged.
        learning_rate, lambda_l2, feature_fraction: LightGBM's.
        linear: the weight of `mge_gpu.ranking.linear.Linear` beside the boosters, in [0, 1].
        linear_far: the same where candidates are far sparser than any that were learned from.
        penalty: the linear model's, see `mge_gpu.ranking.linear.PENALTY`.
        fallback: how much of the baseline to mix in there, in [0, 1]; see `Ranker.chances`.
    """

    leaves: int = 63
    rounds: int = 200
    leaf_pairs: int = 30
    views: tuple[str, ...] = ("densities", "channels")
    learning_rate: float = 0.05
    lambda_l2: float = 5.0
    feature_fraction: float = 0.6
    linear: float = 0.0
    linear_far: float = 0.5
    penalty: float = PENALTY
    fallback: float = 0.25


DEFAULTS = Settings()
"""The settings of the shipped ranker, chosen by leaving one architecture out of the published table."""

WITHOUT_LAYERS = Settings(views=("differences", "places", "robust"), linear=0.2)
"""The same for tables that do not know how the weights are spread over the layers."""


def default_settings(*tables: "pandas.DataFrame") -> Settings:
    """`DEFAULTS`, or `WITHOUT_LAYERS` where a table does not know the layers of all its networks."""
    for table in tables:
        if not set(PROFILE_KEYS) <= set(table.columns) or table["layer_density"].isna().any():
            return WITHOUT_LAYERS
    return DEFAULTS


def fit_pairs(table: "pandas.DataFrame", settings: Settings, seed: int) -> tuple[dict[str, str], Linear]:
    """Fit gradient-boosted trees from `pair_features` to `win_shares`, and a linear model beside them.

    Returns the trees of each view in LightGBM's text format, and the linear model.

    The loss is the cross-entropy between the predicted chance and the share of wins. Each pair is learned in
    both orders. Nothing names a method, and no level belongs to one network, so that the trees hold for other
    networks and other methods.

    Args:
        table: as `load_table` gives it.
        settings: see `Settings`.
        seed: for LightGBM's bagging.

    Raises:
        RankingError: there is nothing to learn: no group with two methods of different accuracy.
    """
    lightgbm = require("lightgbm", "rank", "fitting a ranker")
    first, second = group_pairs(group_codes(table, GROUP))
    target = win_shares(table, first, second)
    if not (target != 0.5).any():
        raise RankingError(
            "a ranker needs a group (model, dataset, sparsity, seed) with two methods of different "
            f"accuracy; the table's {len(table)} rows hold none"
        )
    features = pair_features(table, GROUP, first, second)
    parameters = {
        **PARAMETERS,
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "lambda_l2": settings.lambda_l2,
        "feature_fraction": settings.feature_fraction,
        # A small table gets smaller leaves, or LightGBM would not split at all.
        "min_data_in_leaf": max(1, min(settings.leaf_pairs, len(first) // 50)),
    }
    texts = {}
    for view in settings.views:
        data = lightgbm.Dataset(features[:, columns_of(view)], target, feature_name=list(VIEWS[view]))
        booster = lightgbm.train({**parameters, "seed": seed}, data, settings.rounds)
        texts[view] = compact(str(booster.model_to_string()))
    return texts, fit_linear(features, target, settings.penalty)


def mean_ranks(table: "pandas.DataFrame") -> dict[str, dict[str, float]]:
    """Each method's mean rank (1 is best) at each sparsity, by seed-mean accuracy over models and data sets.

    This is the baseline that knows no topology. Returns method -> sparsity (as text, for JSON) -> mean rank.
    """
    ranks = seed_means(table, "accuracy").groupby(level=list(SETTING)).rank(ascending=False)
    return _by_method(ranks)


def mean_shares(table: "pandas.DataFrame") -> dict[str, dict[str, float]]:
    """Each method's mean share of the other methods that it beats; otherwise as `mean_ranks`.

    In [0, 1], and so comparable between settings with different numbers of methods.
    """
    groups = seed_means(table, "accuracy").groupby(level=list(SETTING))
    others = groups.transform("size") - 1
    return _by_method(((groups.rank() - 1) / others)[others > 0])


def known_value(values: Mapping[str, Mapping[str, float]], method: str | None, sparsity: float) -> float:
    """A method's value at the known sparsity nearest to this one; NaN for an unknown method.

    >>> known_value({"erk": {"0.9": 2.0, "0.98": 1.5}}, "erk", 0.97)
    1.5
    """
    known = values.get(method or "")
    if not known:
        return float("nan")
    return known[min(known, key=lambda text: abs(float(text) - sparsity))]


def known_values(
    values: Mapping[str, Mapping[str, float]], rows: "pandas.DataFrame"
) -> np.ndarray:  # (rows,), float64
    """`known_value` for the method and sparsity of each row."""
    pairs = zip(rows["method"], rows["sparsity"], strict=True)
    return np.array([known_value(values, method, sparsity) for method, sparsity in pairs], "float64")


def seed_means(table: "pandas.DataFrame", column: str) -> "pandas.Series":
    """The mean of a column over seeds, indexed by model, dataset, sparsity and method."""
    return table.groupby([*SETTING, "method"])[column].mean()


def _by_method(values: "pandas.Series") -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for (method, sparsity), value in values.groupby(level=["method", "sparsity"]).mean().items():
        found.setdefault(str(method), {})[f"{sparsity:g}"] = float(value)
    return found
