"""The linear part of a ranker: planted coefficients, an optimum that nothing near it beats, symmetry."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mge_gpu.ranking.features import CONTEXT, GROUP, group_codes
from mge_gpu.ranking.linear import Linear, fit_linear
from mge_gpu.ranking.pairs import DIFFERENCES, FEATURE_NAMES, group_pairs, pair_features

DEGREE, SINKS, KEEP = (FEATURE_NAMES.index(name) for name in ("degree", "sinks", CONTEXT[0]))


def made_up(pairs: int = 400) -> np.ndarray:
    """Pair features of which degree, sinks and the sparsity vary."""
    generator = np.random.default_rng(0)
    features = np.zeros((pairs, len(FEATURE_NAMES)))
    features[:, [DEGREE, SINKS]] = generator.normal(size=(pairs, 2))
    features[:, KEEP] = generator.uniform(-4, -1, pairs)
    return features


def bent(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.log(1 + 3 * np.abs(x))


def test_planted_coefficients_are_found() -> None:
    """Degree counts for half as much in the middle, and the other way round where little is kept."""
    features = made_up()
    keep = features[:, KEEP]
    place = 2 * (keep - keep.min()) / (keep.max() - keep.min()) - 1
    odds = (0.5 + place) * bent(features[:, DEGREE]) - 0.8 * bent(features[:, SINKS])
    linear = fit_linear(features, 1 / (1 + np.exp(-odds)), penalty=0.0)
    np.testing.assert_allclose(linear.odds(features), odds, atol=1e-3)
    found = dict(zip(DIFFERENCES, linear.coefficients, strict=True))
    np.testing.assert_allclose(found["degree"], [0.5, 1, 0, 0], atol=1e-3)
    np.testing.assert_allclose(found["sinks"], [-0.8, 0, 0, 0], atol=1e-3)
    assert not any(found["motifs"])


def test_nothing_near_the_optimum_is_better() -> None:
    generator = np.random.default_rng(1)
    features, target = made_up(60), generator.random(60)
    linear = fit_linear(features, target, penalty=0.1)
    place = 2 * (features[:, KEEP] - linear.low[0]) / (linear.high[0] - linear.low[0]) - 1
    sizes = np.zeros(np.shape(linear.coefficients))
    for name, column in (("degree", DEGREE), ("sinks", SINKS)):
        for k, factor in enumerate((np.ones(60), place)):
            sizes[DIFFERENCES.index(name), k] = np.sqrt(((bent(features[:, column]) * factor) ** 2).mean())

    def loss(coefficients: np.ndarray) -> float:
        odds = replace(linear, coefficients=tuple(map(tuple, coefficients))).odds(features)
        entropy = np.log1p(np.exp(-odds)) * target + np.log1p(np.exp(odds)) * (1 - target)
        return float(entropy.mean() + 0.05 * ((coefficients * sizes) ** 2).sum())

    best = loss(np.array(linear.coefficients))
    for row in (DIFFERENCES.index("degree"), DIFFERENCES.index("sinks")):
        for k in (0, 1):
            for step in (-0.01, 0.01):
                moved = np.array(linear.coefficients)
                moved[row, k] += step
                assert loss(moved) > best


def test_swapping_a_pair_turns_the_sign_and_parts_add_up(table: pd.DataFrame) -> None:
    first, second = group_pairs(group_codes(table, GROUP))
    features = pair_features(table, GROUP, first, second)
    linear = fit_linear(features, np.random.default_rng(0).random(len(first)))
    odds = linear.odds(features)
    assert np.abs(odds).max() > 0.1
    np.testing.assert_allclose(odds, -linear.odds(pair_features(table, GROUP, second, first)))
    np.testing.assert_allclose(odds, linear.parts(features).sum(1))


def test_it_grows_with_a_difference_and_not_with_the_context() -> None:
    features = made_up()
    linear = fit_linear(features, (features[:, DEGREE] > 0).astype(float))
    rows = np.zeros((4, len(FEATURE_NAMES)))
    rows[:, DEGREE] = 3, 30, 30, np.nan
    rows[:, KEEP] = -4, -4, -40, -4
    small, large, beyond, unknown = linear.odds(rows)
    assert 0 < small < large and unknown == 0
    assert beyond == pytest.approx(large, rel=0.02)  # the edge of the table is a little above -4


def test_it_goes_through_json() -> None:
    features = made_up()
    linear = fit_linear(features, np.linspace(0, 1, len(features)))
    again = Linear.from_dict(json.loads(json.dumps(linear.to_dict())))
    assert again == linear


def test_no_pair_knows_its_context() -> None:
    features = made_up()
    features[:, [FEATURE_NAMES.index(name) for name in CONTEXT]] = np.nan
    odds = fit_linear(features, (features[:, DEGREE] > 0).astype(float)).odds(features)
    assert np.isfinite(odds).all() and (np.sign(odds) == np.sign(features[:, DEGREE])).mean() > 0.9
