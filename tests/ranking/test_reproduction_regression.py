"""Claim (a): least squares, folds, figures and intervals against scikit-learn and SciPy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mge_gpu.errors import RankingError
from mge_gpu.ranking.reproduction.intervals import bootstrap, mean_interval, seed_interval
from mge_gpu.ranking.reproduction.regression import (
    SETS,
    adjusted_r2,
    density_correlations,
    fit_least_squares,
    grouped_folds,
    out_of_fold,
    regressions,
)
from mge_gpu.ranking.reproduction.tables import load
from tests.ranking.published_folder import tables, write

linear_model = pytest.importorskip("sklearn.linear_model")
model_selection = pytest.importorskip("sklearn.model_selection")
metrics = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")

RANDOM = np.random.default_rng(0)


def test_adjusted_r2_is_one_less_the_ratio_of_the_unbiased_variances() -> None:
    features, target = RANDOM.normal(size=(30, 4)), RANDOM.normal(size=30)
    fit = linear_model.LinearRegression().fit(features, target)
    residual = ((fit.predict(features) - target) ** 2).sum() / (30 - 4 - 1)
    total = ((target - target.mean()) ** 2).sum() / (30 - 1)
    assert adjusted_r2(fit.score(features, target), 30, 4) == pytest.approx(1 - residual / total)


def test_least_squares_is_that_of_scikit_learn_in_standard_deviations() -> None:
    features, target = RANDOM.normal(size=(40, 3)) * [1e-2, 1.0, 1e2] + 5, RANDOM.normal(size=40)
    predict, coefficients, rank = fit_least_squares(features, target)
    fit = linear_model.LinearRegression().fit(features, target)
    other = RANDOM.normal(size=(10, 3)) * [1e-2, 1.0, 1e2] + 5
    assert predict(other) == pytest.approx(fit.predict(other), rel=1e-6)
    assert coefficients == pytest.approx(fit.coef_ * features.std(0), rel=1e-6)
    assert rank == 3


def test_constant_and_repeated_columns_are_no_more_columns() -> None:
    column, target = RANDOM.normal(size=20), RANDOM.normal(size=20)
    features = np.column_stack([column, np.full(20, 0.3), 2 * column])
    predict, coefficients, rank = fit_least_squares(features, target)
    single = fit_least_squares(column[:, None], target)
    assert rank == single[2] == 1
    assert coefficients[1] == 0
    assert coefficients[0] == pytest.approx(coefficients[2]) == pytest.approx(single[1][0] / 2)
    assert predict(features) == pytest.approx(single[0](column[:, None]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 5))
def test_folds_hold_every_row_once_and_never_split_a_network(
    groups: list[int], folds: int, seed: int
) -> None:
    labels = np.array(groups)
    if len(set(groups)) < 2:
        with pytest.raises(RankingError, match="at least 2 networks"):
            grouped_folds(labels, folds, seed)
        return
    found = grouped_folds(labels, folds, seed)
    assert (np.sum(found, axis=0) == 1).all()
    assert len(found) == min(folds, len(set(groups)))
    for fold in found:
        assert fold.any()
        assert not set(labels[fold]) & set(labels[~fold])


def test_out_of_fold_predictions_are_those_of_scikit_learn_on_the_same_folds() -> None:
    groups = np.repeat(np.arange(12), 3)
    features, target = RANDOM.normal(size=(36, 2)), RANDOM.normal(size=36)
    fold = np.argmax(grouped_folds(groups), axis=0)
    split = model_selection.PredefinedSplit(fold)
    expected = model_selection.cross_val_predict(linear_model.LinearRegression(), features, target, cv=split)
    assert out_of_fold(features, target, groups) == pytest.approx(expected)


@pytest.mark.parametrize("model", ["ols", "trees"])
def test_a_network_cannot_be_recognised_by_its_other_seeds(model: str) -> None:
    """A column that names the network predicts its other seeds perfectly, and other networks not at all."""
    pytest.importorskip("lightgbm")
    groups = np.repeat(np.arange(40), 3)
    target = RANDOM.normal(size=40)[groups]
    features = np.column_stack([groups.astype(float), RANDOM.normal(size=40)[groups]])
    assert metrics.r2_score(target, out_of_fold(features, target, groups, model)) < 0.2
    alone = out_of_fold(features, target, np.arange(120), "trees")
    assert metrics.r2_score(target, alone) > 0.5  # which is what splitting networks would have shown


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("published") / "t", tables())


def test_what_accuracy_follows_wins_everywhere_and_the_figures_are_right(folder: Path) -> None:
    pytest.importorskip("lightgbm")
    loaded = load(folder)
    figures, gains = regressions(loaded)
    assert set(zip(figures["by"], figures["stratum"], strict=True)) == {
        ("sparsity", 0.8),
        ("sparsity", 0.9),
        ("model", "a"),
        ("model", "b"),
    }
    mge = figures[(figures["features"] == "mge") & (figures["model"] == "ols")]
    assert (mge["r2"] > 0.95).all()
    noise = figures[(figures["features"] == "rolled") & (figures["model"] == "ols")]
    assert (noise["fitted_r2"] > noise["r2"]).all()
    assert figures.loc[figures["model"] == "trees", "fitted_r2"].isna().all()
    assert (mge["rows"] == 36).all()
    assert (mge["networks"] == 12).all()
    others = gains[(gains["features"] == "mge") & (gains["given"] == "nothing") & (gains["model"] == "ols")]
    assert len(others) == 4 * 5
    assert others["gain_interval"].str[0].min() > 0
    rows = (loaded.networks["sparsity"] == 0.8).to_numpy()
    part = loaded.networks[rows]
    features = loaded.features["density"][rows].to_numpy()
    predicted = out_of_fold(features, part["drop"].to_numpy(), part["network"].to_numpy())
    row = figures[(figures["stratum"] == 0.8) & (figures["features"] == "density")].iloc[0]
    assert row["r2"] == pytest.approx(adjusted_r2(metrics.r2_score(part["drop"], predicted), 36, 1))
    assert row["mae"] == pytest.approx(metrics.mean_absolute_error(part["drop"], predicted))
    assert row["mae_interval"][0] < row["mae"] < row["mae_interval"][1]


def test_sets_are_judged_on_the_same_rows(folder: Path) -> None:
    pytest.importorskip("lightgbm")
    loaded = load(folder)
    features = {name: frame.copy() for name, frame in loaded.features.items()}
    features["rolled"].iloc[:3, 0] = np.nan
    figures, _ = regressions(replace(loaded, features=features))
    assert (
        figures[figures["by"] == "sparsity"].groupby("features")["rows"].sum().loc[list(SETS)].nunique() == 1
    )
    features["rolled"].iloc[:, 0] = np.nan
    with pytest.raises(RankingError, match="fewer than 2 networks have all features"):
        regressions(replace(loaded, features=features))


def test_correlations_with_density_are_those_of_scipy(folder: Path) -> None:
    loaded = load(folder)
    layers = loaded.layers.copy()
    layers.loc[:9, "degree_bound"] = np.nan
    found = density_correlations(replace(loaded, layers=layers)).set_index(["by", "stratum", "metric"])
    row = found.loc[("all", "all", "degree_bound")]
    known = layers.iloc[10:]
    assert row["layers"] == 206
    assert row["missing"] == pytest.approx(10 / 216)
    assert row["r"] == pytest.approx(stats.pearsonr(known["degree_bound"], known["density"]).statistic)
    assert row["rho"] == pytest.approx(stats.spearmanr(known["degree_bound"], known["density"]).statistic)
    assert 0.99 < row["r_interval"][0] <= row["r"] <= row["r_interval"][1]
    gap = found.loc[("all", "all", "iterative_spectral_gap")]
    assert gap["r_interval"][0] < 0 < gap["r_interval"][1]


def test_copies_of_a_row_do_not_make_an_interval_narrower() -> None:
    values, clusters = np.random.default_rng(1).normal(size=30), np.arange(30)
    one = mean_interval(values, clusters)
    many = mean_interval(np.repeat(values, 10), np.repeat(clusters, 10))
    assert many[0] == pytest.approx(one[0])
    assert many[1] == pytest.approx(one[1])


def test_bootstrap_intervals_cover_the_mean_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(2)
    inside = 0
    for trial in range(200):
        cluster = np.repeat(np.arange(25), 3)
        values = 1 + random.normal(size=25)[cluster] + 0.1 * random.normal(size=75)
        low, high = mean_interval(values, cluster, seed=trial)[1]
        inside += low <= 1 <= high
    assert 0.87 < inside / 200 < 0.98


def test_intervals_over_seeds_are_students() -> None:
    values = [1.0, 2.5, 2.0]
    mean, interval = seed_interval(values)
    assert interval == pytest.approx(stats.t.interval(0.95, 2, mean, stats.sem(values)))
    assert seed_interval([1.0]) == (1.0, (-np.inf, np.inf))
    assert np.isnan(seed_interval([np.nan, np.nan])[0])


def test_nothing_known_has_no_interval() -> None:
    value, interval = mean_interval(np.array([np.nan]), np.array([0]))
    assert np.isnan([value, *interval]).all()
    value, interval = bootstrap(np.zeros((2, 1)), np.arange(2), lambda sums: sums[..., 0] / 0)
    assert np.isnan([value, *interval]).all()
    assert pd.isna(value)
