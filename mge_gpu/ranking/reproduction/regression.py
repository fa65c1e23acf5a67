"""Claim (a): how well each set of features predicts the accuracy drop of networks that it has not seen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu._optional import require
from mge_gpu.errors import RankingError
from mge_gpu.ranking.reproduction.intervals import bootstrap, mean_interval
from mge_gpu.ranking.reproduction.tables import NETWORK, RAMANUJAN, Tables
from mge_gpu.ranking.table import SETTING

if TYPE_CHECKING:
    import pandas

FOLDS = 5

TREES: Mapping[str, Any] = {
    "objective": "regression",
    "num_leaves": 7,
    "learning_rate": 0.1,
    "min_data_in_leaf": 5,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbose": -1,
}
"""LightGBM's parameters; fixed beforehand, nothing is tuned."""

ROUNDS = 80

SETS = ("mge", "rolled", "rolled-channel", "ramanujan", "density")
"""The sets of features that the paper compares. All are judged on the same rows."""

EXTRA_SETS = ("rolled divided", "rolled-channel divided", "density profile")

RIVALS = ("rolled", "rolled-channel", "ramanujan", "density")
"""What MGE topometrics predict better than, says the paper."""

SETTING_SET = "setting"
"""The set of features without topology: which model, data set and sparsity a network is."""

_COMPARISONS = [
    *(("nothing", "mge", rival) for rival in (*RIVALS, SETTING_SET)),
    ("nothing", "ramanujan", "density"),
    *(("setting", f"{SETTING_SET} + mge", f"{SETTING_SET} + {rival}") for rival in RIVALS),
]
"""(what both know besides, a set of features, its rival)"""


def strata(networks: "pandas.DataFrame") -> Iterator[tuple[str, Any, np.ndarray]]:
    """("sparsity" or "model", its value, which rows have it), in order."""
    for column in ("sparsity", "model"):
        for value in sorted(networks[column].unique().tolist()):
            yield column, value, (networks[column] == value).to_numpy()


def grouped_folds(groups: np.ndarray, folds: int = FOLDS, seed: int = 0) -> list[np.ndarray]:
    """Rows to test on, fold by fold, (rows,) bool; a group is never in two of them.

    Raises:
        RankingError: there are fewer than two groups.

    >>> [fold.tolist() for fold in grouped_folds(np.array([7, 7, 9]), 2)]
    [[False, False, True], [True, True, False]]
    """
    codes = np.unique(groups, return_inverse=True)[1]
    number = int(codes.max()) + 1
    if number < 2:
        raise RankingError(f"cross-validation by network needs at least 2 networks, got {number}")
    order = np.random.default_rng(seed).permutation(number)
    return [np.isin(codes, part) for part in np.array_split(order, min(folds, number))]


def adjusted_r2(r2: Any, rows: Any, columns: int) -> Any:
    """1 − (1 − R²)(n − 1)/(n − p − 1), with n rows and p columns besides the constant."""
    return 1 - (1 - r2) * (rows - 1) / (rows - columns - 1)


def fit_least_squares(
    features: np.ndarray, target: np.ndarray
) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray, int]:
    """Ordinary least squares with a constant on standardised columns; the smallest of equally good ones.

    Args:
        features: (rows, columns) float64; target: (rows,) float64.

    Returns:
        The prediction of other rows; the coefficients (columns,), in units of the target for one standard
        deviation of the feature (0 for a constant one); the rank of the columns.
    """
    mean, deviation = features.mean(0), features.std(0)
    varies = deviation > 1e-12 * np.maximum(np.abs(mean), 1e-300)
    scale = np.where(varies, deviation, 1.0)

    def standardised(rows: np.ndarray) -> np.ndarray:
        return np.where(varies, (rows - mean) / scale, 0.0)

    offset = target.mean()
    coefficients, _, rank, _ = np.linalg.lstsq(standardised(features), target - offset, rcond=1e-10)
    return lambda rows: standardised(rows) @ coefficients + offset, coefficients, int(rank)


def fit_trees(features: np.ndarray, target: np.ndarray, seed: int = 0) -> Any:
    """A LightGBM booster with `TREES` and `ROUNDS`."""
    lightgbm = require("lightgbm", "rank", "reproducing the paper's claims")
    data = lightgbm.Dataset(features, target, free_raw_data=True)
    return lightgbm.train({**TREES, "seed": seed}, data, num_boost_round=ROUNDS)


def out_of_fold(
    features: np.ndarray, target: np.ndarray, groups: np.ndarray, model: str = "ols"
) -> np.ndarray:  # (rows,), float64
    """Predictions of each row by a model ("ols" or "trees") that has seen no row of its group."""
    predicted = np.empty(len(target))
    for test in grouped_folds(groups):
        if model == "ols":
            predicted[test] = fit_least_squares(features[~test], target[~test])[0](features[test])
        else:
            predicted[test] = fit_trees(features[~test], target[~test]).predict(features[test], num_threads=1)
    return predicted


def complete_rows(tables: Tables, sets: Sequence[str] = (*SETS, *EXTRA_SETS)) -> np.ndarray:  # (rows,), bool
    """Which networks have a value for every feature of all these sets."""
    return np.logical_and.reduce([tables.features[name].notna().all(axis=1).to_numpy() for name in sets])


def regressions(
    tables: Tables, progress: Callable[[str, float], None] | None = None
) -> tuple["pandas.DataFrame", "pandas.DataFrame"]:
    """Every set of features in every stratum, by least squares and by trees.

    Returns:
        figures: a row for each ``by`` ("sparsity", "model"), ``stratum``, ``features`` and ``model``, with
        ``rows``, ``networks``, ``columns``, ``fitted_r2`` (adjusted, on the rows that were fitted; None for
        trees), ``r2`` (adjusted, out of fold) and ``mae`` (percentage points, out of fold) with
        ``..._interval``. differences: ``gain``, the mean absolute error of ``rival`` less that of
        ``features`` on the same rows, with its interval; where ``given`` is "setting", both know
        the setting besides. Intervals are bootstraps over networks.
    """
    pandas = require("pandas", "rank", "reproducing the paper's claims")
    keep = complete_rows(tables)
    networks = tables.networks[keep].reset_index(drop=True)
    if networks["network"].nunique() < 2:
        raise RankingError("fewer than 2 networks have all features; nothing can be regressed")
    features = {name: tables.features[name][keep].to_numpy("float64") for name in (*SETS, *EXTRA_SETS)}
    dummies = pandas.get_dummies(networks[list(SETTING)].astype(str).agg("/".join, axis=1)).to_numpy(
        "float64"
    )
    features[SETTING_SET] = dummies
    features |= {f"{SETTING_SET} + {name}": np.hstack([dummies, features[name]]) for name in SETS}
    figures, differences = [], []
    parts = list(strata(networks))
    for done, (by, value, rows) in enumerate(parts):
        target, groups = networks.loc[rows, "drop"].to_numpy(), networks.loc[rows, "network"].to_numpy()
        if len(np.unique(groups)) < 2 * FOLDS:
            continue
        for model in ("ols", "trees"):
            errors = {}
            for name, columns in features.items():
                if model == "trees" and name not in (*SETS, SETTING_SET):
                    continue  # checks of the linear model
                inside = columns[rows]
                predicted = out_of_fold(inside, target, groups, model)
                errors[name] = np.abs(predicted - target)
                start = {"by": by, "stratum": value, "features": name, "model": model}
                figures.append(start | _figures(inside, target, predicted, groups, model))
            for given, ours, rival in _COMPARISONS:
                if ours in errors and rival in errors:
                    gain, interval = mean_interval(errors[rival] - errors[ours], groups)
                    names = {"features": ours, "rival": rival}
                    names = {key: name.removeprefix(f"{SETTING_SET} + ") for key, name in names.items()}
                    start = {"by": by, "stratum": value, "model": model, "given": given} | names
                    differences.append(start | {"gain": gain, "gain_interval": interval})
        if progress is not None:
            progress(f"regression, {by} {value}", (done + 1) / len(parts))
    return pandas.DataFrame(figures), pandas.DataFrame(differences)


def _figures(
    features: np.ndarray, target: np.ndarray, predicted: np.ndarray, groups: np.ndarray, model: str
) -> dict[str, Any]:
    fit, _, rank = fit_least_squares(features, target)
    spread = ((target - target.mean()) ** 2).sum()
    fitted = adjusted_r2(1 - ((fit(features) - target) ** 2).sum() / spread, len(target), rank)
    error = predicted - target
    sums = np.column_stack([np.ones(len(target)), target, target**2, error**2, np.abs(error)])

    def r2(total: np.ndarray) -> np.ndarray:
        rows = total[..., 0]
        around = total[..., 2] - total[..., 1] ** 2 / rows
        return adjusted_r2(1 - total[..., 3] / around, rows, rank)

    value, interval = bootstrap(sums, groups, r2)
    mae, mae_interval = bootstrap(sums, groups, lambda total: total[..., 4] / total[..., 0])
    return {
        "rows": len(target),
        "networks": len(np.unique(groups)),
        "columns": rank,
        "fitted_r2": float(fitted) if model == "ols" else None,
        "r2": value,
        "r2_interval": interval,
        "mae": mae,
        "mae_interval": mae_interval,
    }


def density_correlations(tables: Tables) -> "pandas.DataFrame":
    """Each Ramanujan metric against the density of its layer, over layers.

    Returns:
        A row for each ``by`` ("all", "sparsity", "model"), ``stratum`` and ``metric``: ``layers`` with a
        value, ``missing`` (their share without), Pearson's ``r`` and Spearman's ``rho`` with
        ``..._interval``, bootstraps over networks (with all their seeds).
    """
    pandas = require("pandas", "rank", "reproducing the paper's claims")
    layers = tables.layers.reset_index(drop=True)
    groups = layers.groupby(list(NETWORK)).ngroup().to_numpy()
    found = []
    for by, value, rows in [("all", "all", np.ones(len(layers), bool)), *strata(layers)]:
        for metric in RAMANUJAN:
            pair = layers.loc[rows, [metric, "density"]]
            known = pair.notna().all(axis=1).to_numpy()
            start = {"by": by, "stratum": value, "metric": metric, "layers": int(known.sum())}
            start["missing"] = float(1 - known.mean())
            if known.sum() > 2:
                inside = groups[rows][known]
                r, r_interval = _correlation(pair[known].to_numpy("float64"), inside)
                rho, rho_interval = _correlation(pair[known].rank().to_numpy("float64"), inside)
                start |= {"r": r, "r_interval": r_interval, "rho": rho, "rho_interval": rho_interval}
            found.append(start)
    return pandas.DataFrame(found)


def _correlation(pair: np.ndarray, groups: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Pearson's correlation of two columns, centred first so that the sums cancel little."""
    x, y = (pair - pair.mean(0)).T
    sums = np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y])

    def pearson(total: np.ndarray) -> np.ndarray:
        n, sx, sy, sxx, syy, sxy = np.moveaxis(total, -1, 0)
        return (n * sxy - sx * sy) / np.sqrt((n * sxx - sx**2) * (n * syy - sy**2))

    return bootstrap(sums, groups, pearson)
