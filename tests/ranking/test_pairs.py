"""Pairs of candidates against loops over all of them, and chances against what they have to add up to."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mge_gpu.ranking.features import CONTEXT, GROUP, group_codes
from mge_gpu.ranking.pairs import (
    FEATURE_NAMES,
    VIEWS,
    best_chances,
    columns_of,
    group_pairs,
    mean_chances,
    pair_features,
    tiers,
    win_shares,
)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_every_ordered_pair_of_a_group_once(codes: list[int]) -> None:
    first, second = group_pairs(np.array(codes))
    expected = [(a, b) for a, b in itertools.permutations(range(len(codes)), 2) if codes[a] == codes[b]]
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == sorted(expected)


def test_swapping_a_pair_turns_the_signs_of_its_differences_and_leaves_its_context(
    table: pd.DataFrame,
) -> None:
    first, second = group_pairs(group_codes(table, GROUP))
    one = pair_features(table, GROUP, first, second)
    two = pair_features(table, GROUP, second, first)
    for number, name in enumerate(FEATURE_NAMES):
        if name in CONTEXT:
            np.testing.assert_array_equal(one[:, number], two[:, number])
        elif name.startswith("first_"):
            other = FEATURE_NAMES.index(name.replace("first_", "second_"))
            np.testing.assert_array_equal(one[:, number], two[:, other])
        elif not name.startswith("second_"):
            np.testing.assert_array_equal(one[:, number], -two[:, number])


def test_places_are_distances_from_the_median_of_the_group(table: pd.DataFrame) -> None:
    group = table[(table["model"] == "a") & (table["sparsity"] == 0.9) & (table["seed"] == 0)]
    first, second = group_pairs(np.zeros(len(group), int))
    found = pair_features(group, (), first, second)[:, FEATURE_NAMES.index("second_core")]
    core = np.log(group["k_core"] * group["edges"]).to_numpy()
    np.testing.assert_allclose(found, core[second] - np.median(core))


def test_views_are_parts_of_the_features() -> None:
    for view, names in VIEWS.items():
        assert [FEATURE_NAMES[column] for column in columns_of(view)] == list(names)
    assert not {"sinks", "sources", "alive", "removable_in"} & set(VIEWS["robust"])


def test_shares_of_wins_by_hand() -> None:
    runs = {"good": [0.9, 0.8, 0.7], "bad": [0.75, 0.7, 0.1], "once": [0.8]}
    rows = [
        {"model": "m", "dataset": "d", "sparsity": 0.9, "seed": seed, "method": method, "accuracy": accuracy}
        for method, accuracies in runs.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    table = pd.DataFrame(rows)
    first, second = group_pairs(group_codes(table, GROUP))
    found = {
        (table["method"][a], table["method"][b]): share
        for a, b, share in zip(first, second, win_shares(table, first, second), strict=True)
    }
    assert found["good", "bad"] == pytest.approx(7.5 / 9)
    assert found["bad", "good"] == pytest.approx(1.5 / 9)
    assert found["good", "once"] == pytest.approx(1.5 / 3)
    assert found["once", "bad"] == 1


def test_the_mean_chance_of_a_candidate() -> None:
    first = np.array([0, 0, 1, 1, 2, 2])
    found = mean_chances(4, first, np.array([0.9, 0.7, 0.1, 0.4, 0.3, 0.6]))
    assert found.tolist() == pytest.approx([0.8, 0.25, 0.45, 0.5])


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=9))
def test_chances_to_be_best_recover_the_strengths_that_made_them(strengths: list[float]) -> None:
    theta = np.array(strengths)
    found = best_chances(1 / (1 + np.exp(theta[None, :] - theta[:, None])))
    np.testing.assert_allclose(found, np.exp(theta) / np.exp(theta).sum(), atol=2e-3)


def test_chances_to_be_best_of_sure_losers_and_winners_are_finite() -> None:
    matrix = np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    found = best_chances(matrix)
    assert found.sum() == pytest.approx(1)
    assert found[0] > 0.99
    assert found[1] == pytest.approx(found[2])
    assert matrix[0, 0] == 0.5  # what is given stays


def test_a_tier_ends_where_its_head_is_surely_better() -> None:
    matrix = np.full((4, 4), 0.5)
    matrix[2, 3] = matrix[0, 1] = 0.8
    assert tiers(matrix, [2, 0, 3, 1]) == [1, 1, 2, 2]
    assert tiers(matrix, [0]) == [1]
