"""Claim (b): what accuracy follows is what matters, and its sign is right."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mge_gpu.ranking.reproduction.importance import agreement_of_strata, importances, seed_importance
from mge_gpu.ranking.reproduction.tables import load
from tests.ranking.published_folder import tables, write

pytest.importorskip("lightgbm")


def test_the_column_that_decides_is_found_by_every_figure_with_its_sign() -> None:
    random = np.random.default_rng(0)
    features = random.uniform(size=(80, 4))
    features[:, 3] = 0.5
    target = -5 * features[:, 1] + 0.1 * random.normal(size=80)
    found = seed_importance(features, target, np.arange(80))
    assert found["coefficient"][1] == pytest.approx(-5 * features[:, 1].std(), rel=0.05)
    for figure in ("permutation", "shap"):
        assert found[figure].argmax() == 1
        assert found[figure][1] > 10 * np.abs(np.delete(found[figure], 1)).max()
    assert found["direction"][1] < -0.9
    assert found["shap"][3] == found["coefficient"][3] == 0
    assert found["permutation"][3] == pytest.approx(0, abs=1e-12)
    assert np.isnan(found["direction"][3])


def test_permuting_costs_what_a_brute_force_permutation_costs() -> None:
    """The error of a model that has lost its only column is that of guessing another row's target."""
    random = np.random.default_rng(3)
    features = random.uniform(size=(200, 1))
    target = np.where(features[:, 0] > 0.5, 1.0, 0.0)
    found = seed_importance(features, target, np.arange(200))
    assert found["permutation"][0] == pytest.approx(0.5, abs=0.06)
    assert found["shap"][0] == pytest.approx(0.5, abs=0.06)


def test_strata_and_seeds(tmp_path: Path) -> None:
    by_seed, over_seeds = importances(load(write(tmp_path / "t", tables())))
    assert not len(by_seed)  # 12 networks of a seed are too few
    assert not len(over_seeds)
    content = [tables(seed) for seed in range(2)]
    for number, part in enumerate(content):
        for table in part.values():
            table["dataset"] = f"set {number}"
    joined = {name: pd.concat([part[name] for part in content]) for name in content[0]}
    by_seed, over_seeds = importances(load(write(tmp_path / "u", joined)))
    assert len(by_seed) == 4 * 3 * 16
    core = over_seeds[over_seeds["metric"] == "k_core"]
    assert len(core) == 4
    assert (core["shap"].to_numpy() == over_seeds.groupby(["by", "stratum"], sort=False)["shap"].max()).all()
    assert (by_seed.loc[by_seed["metric"] == "k_core", "coefficient"] < 0).all()
    one = by_seed[(by_seed["metric"] == "k_core") & (by_seed["stratum"] == "a")]["shap"]
    assert core.set_index("stratum").loc["a", "shap"] == pytest.approx(one.mean())


def frame(order: dict[str, list[float]], noise: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = [
        {
            "by": "model",
            "stratum": name,
            "seed": seed,
            "metric": f"m{number}",
            "shap": value + noise * random.normal(),
        }
        for name, values in order.items()
        for seed in range(3)
        for number, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_strata_that_are_alike_and_strata_that_are_not() -> None:
    alike = agreement_of_strata(frame({"a": [1, 2, 3, 4], "b": [10, 20, 30, 40]}), "model")
    assert (alike["within"], alike["between"], alike["difference"]) == pytest.approx((1, 1, 0))
    opposite = agreement_of_strata(frame({"a": [1, 2, 3, 4], "b": [4, 3, 2, 1]}), "model")
    assert (opposite["within"], opposite["between"]) == pytest.approx((1, -1))
    assert opposite["difference_interval"] == pytest.approx((2, 2))
    noisy = agreement_of_strata(frame({name: [1.0] * 30 for name in "abcdef"}, noise=1.0), "model")
    low, high = noisy["difference_interval"]
    assert low < 0 < high  # noise between seeds is no difference between strata
    assert agreement_of_strata(frame({"a": [1, 2]}), "model")["difference"] is None
    assert agreement_of_strata(frame({"a": [1, 2]}), "sparsity")["difference"] is None
