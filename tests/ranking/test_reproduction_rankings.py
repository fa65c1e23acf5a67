"""Claim (c): single metrics and mixtures order methods as they should, and learn from other architectures."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mge_gpu.errors import RankingError
from mge_gpu.ranking.ranker import Ranker
from mge_gpu.ranking.reproduction.rankings import (
    BEST,
    MIXTURE,
    agreement,
    mixture_scores,
    rankings,
    settings_table,
    within_setting,
)
from mge_gpu.ranking.reproduction.tables import Tables
from mge_gpu.ranking.table import PAI_METHODS
from tests.ranking.conftest import QUICK

pytest.importorskip("lightgbm")


def build(accuracy: Callable[[np.ndarray, str], np.ndarray], models: str = "abc") -> Tables:
    """Tables whose accuracies are a function of two MGE features x and y; everything else is noise."""
    random = np.random.default_rng(0)
    rows, features = (
        [],
        {name: [] for name in ("mge", "rolled", "rolled-channel", "ramanujan", "density profile")},
    )
    for model in models:
        for sparsity in (0.6, 0.7, 0.8, 0.9):
            for method in (*PAI_METHODS, "rigl"):
                for run in range(2):
                    both = random.uniform(size=2)
                    where = {
                        "model": model,
                        "dataset": "d",
                        "sparsity": sparsity,
                        "method": method,
                        "seed": run,
                    }
                    rows.append(where | {"accuracy": float(accuracy(both, model))})
                    for name, part in features.items():
                        part.append(both if name == "mge" else random.uniform(size=2))
    frames = {name: pd.DataFrame(part, columns=["x", "y"]) for name, part in features.items()}
    frames["density"] = frames["density profile"][["x"]]
    return Tables(pd.DataFrame(rows), frames, pd.DataFrame(), ())


def figure(frame: pd.DataFrame, family: str, score: str) -> pd.Series:
    (row,) = [
        row for _, row in frame.iterrows() if row["family"] == family and row["score"].startswith(score)
    ]
    return row


def test_agreement_by_hand() -> None:
    actual = np.array([0.9, 0.8, 0.7])
    assert agreement("abc", np.array([3.0, 2, 1]), actual) == pytest.approx((1, 1))
    tau, rbo = agreement("abc", np.array([2.0, 3, 1]), actual)
    assert tau == pytest.approx(1 / 3)
    assert rbo == pytest.approx(0.9**3 + 0.1 * (0 + 0.9 + 0.81))
    assert agreement("abc", np.array([5.0, 5, 5]), actual)[0] == 0
    assert np.isnan(agreement("abc", np.full(3, np.nan), actual)).all()
    middle = agreement("abc", np.array([3.0, np.nan, 1.0]), actual)
    assert middle == pytest.approx((1, 1))


def test_a_mixture_is_needed_where_accuracy_follows_a_difference() -> None:
    tables = build(lambda both, model: 0.5 + 0.1 * (both[0] - both[1]))
    figures, gains = rankings(tables, ranker=False)
    mixture = figure(figures, "mge", MIXTURE)
    assert mixture["kendall_tau"] > 0.75
    assert mixture["settings"] == 12
    assert figure(figures, "mge", "x")["kendall_tau"] == pytest.approx(
        figure(figures, "mge", "y")["kendall_tau"], abs=0.3
    )
    gain = figure(gains.rename(columns={"rival": "score"}), "mge", BEST)
    assert gain["kendall_tau_interval"][0] > 0.2
    assert abs(figure(figures, "rolled", MIXTURE)["kendall_tau"]) < 0.4
    assert figure(figures, "ceiling", "one seed")["settings"] == 12
    assert "ranker" not in set(figures["family"])
    hindsight = figure(figures, "mge", "best single in hindsight")
    assert hindsight["kendall_tau"] >= figure(figures, "mge", BEST)["kendall_tau"]


def test_signs_come_from_the_other_architectures() -> None:
    """Where one architecture follows the opposite of the others, it is ordered wrongly, as it must be."""
    tables = build(lambda both, model: 0.5 + 0.1 * both[0] * (-1 if model == "c" else 1))
    means = settings_table(tables)
    scores = mixture_scores(means, ["mge"], "regression")
    models = means.index.get_level_values("model").to_numpy()
    accuracy = means[("accuracy", "")].to_numpy()
    within = within_setting(means, ["accuracy"])[:, 0]
    assert np.corrcoef(within[models == "c"], scores[models == "c"])[0, 1] < -0.5
    scrambled = means.copy()
    scrambled.loc[models == "c", ("accuracy", "")] = accuracy[models == "c"][::-1]
    again = mixture_scores(scrambled, ["mge"], "regression")
    assert again[models == "c"] == pytest.approx(scores[models == "c"])  # its own accuracies play no part
    assert again[models == "a"] != pytest.approx(scores[models == "a"])
    figures, _ = rankings(tables, ranker=False)
    # a and b learn from a tie between each other and c, which means plus; c learns from both.
    assert figure(figures, "mge", "x")["kendall_tau"] == pytest.approx(1 / 3)


def test_only_methods_that_prune_at_initialization_are_ordered_and_features_are_within_settings() -> None:
    tables = build(lambda both, model: both[0])
    means = settings_table(tables)
    assert set(means.index.get_level_values("method")) == set(PAI_METHODS)
    scaled = pd.DataFrame(within_setting(means, ["mge"])).groupby(
        [means.index.get_level_values(name) for name in ("model", "sparsity")]
    )
    assert scaled.mean().abs().max().max() < 1e-12
    assert scaled.std(ddof=0).stack().to_numpy() == pytest.approx(1)
    networks = tables.networks
    first = networks[
        (networks["model"] == "a") & (networks["sparsity"] == 0.6) & (networks["method"] == "snip")
    ]
    mean = means.loc[("a", "d", 0.6, "snip"), ("mge", "x")]
    assert mean == pytest.approx(tables.features["mge"].loc[first.index, "x"].mean())


def test_a_missing_metric_orders_nothing_and_leaves_the_mixture_its_others() -> None:
    tables = build(lambda both, model: both[0])
    features = {name: frame.copy() for name, frame in tables.features.items()}
    features["mge"].loc[tables.networks["model"] == "b", "y"] = np.nan
    figures, _ = rankings(replace(tables, features=features), ranker=False)
    assert figure(figures, "mge", "y")["settings"] == 8
    assert figure(figures, "mge", MIXTURE)["settings"] == 12
    assert figure(figures, "mge", MIXTURE)["kendall_tau"] > 0.9


def test_one_architecture_cannot_be_left_out() -> None:
    with pytest.raises(RankingError, match="at least 2 of them, the table has 1"):
        rankings(build(lambda both, model: both[0], models="a"), ranker=False)


def test_the_ranker_has_not_seen_what_it_orders(table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    fit = Ranker.fit.__func__  # type: ignore[attr-defined]

    def spy(cls: type[Ranker], rows: pd.DataFrame, **options: object) -> Ranker:
        seen.append(sorted(rows["model"].unique()))
        return fit(cls, rows, settings=QUICK)

    monkeypatch.setattr(Ranker, "fit", classmethod(spy))
    noise = pd.DataFrame(np.random.default_rng(0).uniform(size=(len(table), 2)), columns=["x", "y"])
    names = ("mge", "rolled", "rolled-channel", "ramanujan", "density", "density profile")
    figures, _ = rankings(Tables(table, dict.fromkeys(names, noise), pd.DataFrame(), ()))
    assert seen == [["b", "c"], ["a", "c"], ["a", "b"]]
    assert figure(figures, "ranker", "")["kendall_tau"] > 0.85
    assert figure(figures, "no topology", "mean rank")["kendall_tau"] < 0.4
