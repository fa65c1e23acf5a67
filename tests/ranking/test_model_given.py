"""Trees in which some features are known: the same predictions, and Shapley values by their definition."""

import lightgbm
import numpy as np
import pytest

from mge_gpu.ranking.model_given import given
from mge_gpu.ranking.model_text import check_model_text, compact
from tests.ranking.shapley import shapley_values

FEATURES = ["a", "b", "c", "d"]


def inputs(seed: int, rows: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 4)).round(1)
    x[random.random(x.shape) < 0.1] = np.nan
    x[random.random(x.shape) < 0.1] = 0
    return x


@pytest.fixture(scope="module", params=["nan", "zero", "none"])
def booster(request: pytest.FixtureRequest) -> lightgbm.Booster:
    """One for each way in which LightGBM treats what is missing."""
    x = inputs(0, 600)
    y = np.where(np.isnan(x), 0.7, x)
    settings = {"verbose": -1, "num_leaves": 9, "num_threads": 1, "zero_as_missing": request.param == "zero"}
    settings["use_missing"] = request.param != "none"
    target = y[:, 0] * y[:, 1] + y[:, 2] ** 2 + np.maximum(y[:, 3], y[:, 0])
    text = lightgbm.train(settings, lightgbm.Dataset(x, target, feature_name=FEATURES), 6).model_to_string()
    return lightgbm.Booster(model_str=compact(text))


@pytest.mark.parametrize("known", [(), (0,), (3,), (1, 2), (0, 1, 3), (0, 1, 2, 3)])
def test_predictions_stay_and_shap_values_are_those_given_what_is_known(
    booster: lightgbm.Booster, known: tuple[int, ...]
) -> None:
    whole = booster.model_to_string()
    for x in inputs(1, 12):
        text = given(whole, {number: x[number] for number in known})
        check_model_text(text, FEATURES)
        trees = lightgbm.Booster(model_str=text)
        same = inputs(2, 20)
        same[:, known] = x[list(known)]
        np.testing.assert_allclose(trees.predict(same), booster.predict(same), rtol=1e-12)
        found = trees.predict(x[None], pred_contrib=True)[0]
        assert (found[list(known)] == 0).all()
        np.testing.assert_allclose(found[:-1], shapley_values(booster, x, known), atol=1e-6)


def test_with_nothing_known_the_shap_values_are_those_of_the_whole_trees(booster: lightgbm.Booster) -> None:
    x = inputs(3, 50)
    trees = lightgbm.Booster(model_str=given(booster.model_to_string(), {}))
    np.testing.assert_allclose(
        trees.predict(x, pred_contrib=True), booster.predict(x, pred_contrib=True), atol=1e-6
    )


def test_a_single_leaf_stays_one() -> None:
    data = lightgbm.Dataset(np.zeros((30, 4)), np.ones(30), feature_name=FEATURES)
    settings = {"verbose": -1, "num_threads": 1, "feature_pre_filter": False}
    text = lightgbm.train(settings, data, 2).model_to_string()
    trees = lightgbm.Booster(model_str=given(text, {0: 1.0}))
    assert trees.predict(np.zeros((1, 4))).tolist() == [1.0]
