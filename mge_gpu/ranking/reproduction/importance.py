"""Claim (b): which topometrics matter, at which sparsity and for which architecture."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu._optional import require
from mge_gpu.ranking.reproduction.intervals import bootstrap, seed_interval
from mge_gpu.ranking.reproduction.regression import fit_least_squares, fit_trees, grouped_folds, strata
from mge_gpu.ranking.reproduction.tables import TOPOMETRICS, Tables

if TYPE_CHECKING:
    import pandas

REPEATS = 5
"""Permutations of a column in each fold."""

FIGURES = ("coefficient", "permutation", "shap", "direction")

EXPECTED_SIGN = {
    "sink_nodes": 1,
    "source_nodes": 1,
    "disconnected_nodes": 1,
    "removable_out": 1,
    "removable_in": 1,
    "components": 1,
    "component_size": -1,
    "cut_edges": 1,
    "cut_nodes": 1,
    "spectral_gap": -1,
}
"""Topometric -> sign of its effect on the accuracy drop that the paper's reading implies: cut-off nodes, lost
edges and bottlenecks cost accuracy, wholeness and expansion save it. The others are divided by E, so that
fewer edges alone make them larger, and no sign follows."""


def seed_importance(features: np.ndarray, target: np.ndarray, networks: np.ndarray) -> dict[str, np.ndarray]:
    """What matters to the models of one seed's networks.

    Args:
        features: (rows, columns) float64; target: (rows,) float64; networks: (rows,) labels.

    Returns:
        Each (columns,) float64: ``coefficient``, of least squares with all columns standardised, in
        percentage points for one standard deviation; ``permutation``, by how much the trees' absolute error
        grows, out of fold, when the column is permuted; ``shap``, the mean absolute SHAP value out of fold
        (LightGBM's ``pred_contrib``); ``direction``, the correlation of the column with its SHAP values.
    """
    _, coefficients, _ = fit_least_squares(features, target)
    random = np.random.default_rng(0)
    number = features.shape[1]
    permutation, contributions = np.zeros(number), np.zeros(features.shape)
    for test in grouped_folds(networks):
        booster = fit_trees(features[~test], target[~test])
        inside, truth = features[test], target[test]
        contributions[test] = booster.predict(inside, pred_contrib=True, num_threads=1)[:, :number]
        plain = np.abs(booster.predict(inside, num_threads=1) - truth).sum()
        for column in range(number):
            shuffled = np.tile(inside, (REPEATS, 1))
            orders = [random.permutation(len(inside)) for _ in range(REPEATS)]
            shuffled[:, column] = np.concatenate([inside[order, column] for order in orders])
            errors = np.abs(booster.predict(shuffled, num_threads=1) - np.tile(truth, REPEATS))
            permutation[column] += errors.sum() / REPEATS - plain
    return {
        "coefficient": coefficients,
        "permutation": permutation / len(target),
        "shap": np.abs(contributions).mean(0),
        "direction": np.array([_correlation(features[:, c], contributions[:, c]) for c in range(number)]),
    }


def importances(
    tables: Tables, progress: Callable[[str, float], None] | None = None
) -> tuple["pandas.DataFrame", "pandas.DataFrame"]:
    """`seed_importance` of the MGE topometrics in every stratum and seed.

    Returns:
        by_seed: a row for each ``by``, ``stratum``, ``seed`` and ``metric`` with `FIGURES`; over_seeds: their
        means over seeds with ``..._interval`` (Student's t; of three seeds, so wide), and ``expected``, the
        sign of `EXPECTED_SIGN`, 0 where there is none.
    """
    pandas = require("pandas", "rank", "reproducing the paper's claims")
    keep = tables.features["mge"].notna().all(axis=1)
    networks = tables.networks[keep].reset_index(drop=True)
    features = tables.features["mge"][keep].to_numpy("float64")
    by_seed = []
    parts = [
        (*part, seed) for part in strata(networks) for seed in sorted(networks["seed"].unique().tolist())
    ]
    for done, (by, value, rows, seed) in enumerate(parts):
        inside = rows & (networks["seed"] == seed).to_numpy()
        if inside.sum() < 20:
            continue
        part = networks[inside]
        found = seed_importance(features[inside], part["drop"].to_numpy(), part["network"].to_numpy())
        for number, metric in enumerate(TOPOMETRICS):
            start: dict[str, Any] = {"by": by, "stratum": value, "seed": seed, "metric": metric}
            by_seed.append(start | {name: float(found[name][number]) for name in FIGURES})
        if progress is not None:
            progress(f"importance, {by} {value}, seed {seed}", (done + 1) / len(parts))
    frame = pandas.DataFrame(by_seed, columns=["by", "stratum", "seed", "metric", *FIGURES])
    over_seeds = []
    for (by, stratum, metric), group in frame.groupby(["by", "stratum", "metric"], sort=False):
        row = {"by": by, "stratum": stratum, "metric": metric, "expected": EXPECTED_SIGN.get(metric, 0)}
        for name in FIGURES:
            row[name], row[f"{name}_interval"] = seed_interval(group[name].tolist())
        over_seeds.append(row)
    return frame, pandas.DataFrame(over_seeds)


def agreement_of_strata(by_seed: "pandas.DataFrame", by: str, figure: str = "shap") -> dict[str, Any]:
    """Does importance differ between strata by more than between seeds?

    Spearman correlations of two lists of importances, of different seeds always: ``within`` one stratum,
    and ``between`` two. ``difference`` = within − between, 0 where strata are alike; its interval is a
    bootstrap over strata (few of them: rough).
    """
    chosen = by_seed[by_seed["by"] == by]
    lists = chosen.pivot_table(index=["stratum", "seed"], columns="metric", values=figure, sort=True)
    ranks = lists.rank(axis=1).to_numpy()
    alike = np.corrcoef(ranks) if len(ranks) > 1 else np.ones((1, 1))
    stratum = lists.index.get_level_values("stratum").to_numpy()
    seed = lists.index.get_level_values("seed").to_numpy()
    other_seed = seed[:, None] != seed[None, :]
    same = stratum[:, None] == stratum[None, :]
    names = np.unique(stratum)
    rows = []
    for name in names:
        mine = stratum == name
        within, between = alike[mine][(other_seed & same)[mine]], alike[mine][(other_seed & ~same)[mine]]
        rows.append([within.mean() if within.size else np.nan, between.mean() if between.size else np.nan])
    values = np.array(rows)
    if not np.isfinite(values).all() or len(names) < 2:
        return {"by": by, "figure": figure, "within": None, "between": None, "difference": None}
    each = np.column_stack([values[:, 0] - values[:, 1], np.ones(len(values))])
    difference, interval = bootstrap(each, names, lambda sums: sums[..., 0] / sums[..., 1])
    within, between = values.mean(0).tolist()
    return {
        "by": by,
        "figure": figure,
        "within": within,
        "between": between,
        "difference": difference,
        "difference_interval": interval,
    }


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if x.std() <= 1e-12 * max(abs(x.mean()), 1e-300) or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
