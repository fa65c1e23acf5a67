"""From a table of trained networks to a LightGBM model text: which groups it learns from, and what."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu._optional import require
from mge_gpu.errors import RankingError
from mge_gpu.ranking.features import GROUP, group_features, standardised_within
from mge_gpu.ranking.table import PAI_METHODS, SETTING

if TYPE_CHECKING:
    import pandas

SMALLEST_SUBSET = 4
"""Random subsets of a group hold at least this many candidates (or the whole group, if that is smaller)."""

WORST_TARGET = -1.5
"""Targets are cut off here: how badly a collapsed network fails tells nothing about the others' order."""

ROUNDS = 200
ROWS_PER_LEAF = 20

PARAMETERS: Mapping[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    # One thread and one histogram layout: sums come in the same order, and the same table gives
    # the same trees.
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbose": -1,
}


def fit_model_text(
    table: "pandas.DataFrame",
    metrics: Sequence[str],
    kinds: Sequence[str],
    *,
    subsets: int,
    seed: int,
) -> str:
    """Fit gradient-boosted trees from features to `targets` and give them in LightGBM's text format.

    Args:
        table: as `load_table` gives it.
        metrics: metric keys to make features of.
        kinds: how they are made relative to the group, see `group_features`.
        subsets: random subsets of each group to learn from besides the whole group, see `compositions`.
        seed: for the subsets and for LightGBM's bagging.

    Raises:
        RankingError: there is nothing to learn: no group with two methods of different accuracy.
    """
    lightgbm = require("lightgbm", "rank", "fitting a ranker")
    pandas = require("pandas", "rank", "fitting a ranker")
    parts = compositions(table, subsets, seed)
    features = pandas.concat([group_features(p, metrics, kinds=kinds) for p in parts], ignore_index=True)
    target = pandas.concat([targets(p) for p in parts], ignore_index=True)
    if not target.any():
        raise RankingError(
            "a ranker needs a group (model, dataset, sparsity, seed) with two methods of different "
            f"accuracy; the table's {len(table)} rows hold none"
        )
    # The parts repeat the same networks; a leaf still has to hold as many different ones. A small table gets
    # smaller leaves, or LightGBM would not split at all.
    leaf = max(1, min(ROWS_PER_LEAF, len(table) // 20)) * len(parts)
    parameters = {**PARAMETERS, "min_data_in_leaf": leaf, "seed": seed}
    booster = lightgbm.train(parameters, lightgbm.Dataset(features, target), ROUNDS)
    return str(booster.model_to_string(importance_type="gain"))


def targets(rows: "pandas.DataFrame") -> "pandas.Series":
    """The accuracy, standardised within the group and cut off at `WORST_TARGET`."""
    return standardised_within(rows["accuracy"], [rows[c] for c in GROUP]).clip(lower=WORST_TARGET)


def compositions(table: "pandas.DataFrame", subsets: int, seed: int) -> list["pandas.DataFrame"]:
    """The groups of candidates to learn from: whole ones, pruned-at-initialization ones, and random subsets.

    A feature says how a candidate compares with those beside it, so what a ranker learns depends on who
    stands there. Published groups hold sparse training methods, which train best and look alike; a user
    compares pruning at initialization, a few methods at a time. Learning from whole groups alone ranks such
    groups markedly worse (leave-one-architecture-out tau 0.33 instead of 0.50 for the seven).

    Returns:
        Frames with rows of ``table``: all of it; unless ``subsets`` is 0, the rows of `PAI_METHODS` where it
        also holds others; and ``subsets`` more, in which each group is a random subset of its candidates (of
        its pruned-at-initialization ones in every second frame).
    """
    parts = [table]
    at_init = table["method"].isin(PAI_METHODS).to_numpy()
    mixed = bool(at_init.any() and not at_init.all())
    if mixed and subsets:
        parts.append(table[at_init])
    groups = list(table.reset_index(drop=True).groupby(list(GROUP)).indices.values())
    random = np.random.default_rng(seed)
    for number in range(subsets):
        kept = np.zeros(len(table), bool)
        for members in groups:
            pool = members[at_init[members]] if mixed and number % 2 else members
            if len(pool):
                size = random.integers(min(SMALLEST_SUBSET, len(pool)), len(pool) + 1)
                kept[random.choice(pool, size, replace=False)] = True
        parts.append(table[kept])
    return parts


def mean_ranks(table: "pandas.DataFrame") -> dict[str, dict[str, float]]:
    """Each method's mean rank (1 is best) at each sparsity, by seed-mean accuracy over models and data sets.

    This is the baseline that knows no topology. Returns method -> sparsity (as text, for JSON) -> mean rank.
    """
    means = seed_means(table, "accuracy")
    ranks = means.groupby(level=list(SETTING)).rank(ascending=False)
    found: dict[str, dict[str, float]] = {}
    for (method, sparsity), rank in ranks.groupby(level=["method", "sparsity"]).mean().items():
        found.setdefault(str(method), {})[f"{sparsity:g}"] = float(rank)
    return found


def mean_rank(ranks: Mapping[str, Mapping[str, float]], method: str | None, sparsity: float) -> float:
    """A method's mean rank at the known sparsity nearest to this one; NaN for an unknown method.

    >>> mean_rank({"erk": {"0.9": 2.0, "0.98": 1.5}}, "erk", 0.97)
    1.5
    """
    known = ranks.get(method or "")
    if not known:
        return float("nan")
    return known[min(known, key=lambda text: abs(float(text) - sparsity))]


def seed_means(table: "pandas.DataFrame", column: str) -> "pandas.Series":
    """The mean of a column over seeds, indexed by model, dataset, sparsity and method."""
    return table.groupby([*SETTING, "method"])[column].mean()
