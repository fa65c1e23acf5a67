"""Kendall's tau and rank-biased overlap against their definitions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mge_gpu.errors import RankingError
from mge_gpu.ranking.scores import kendall_tau, rank_biased_overlap, tied_order


@given(st.permutations(list("abcdefg")), st.floats(0.05, 0.95))
def test_rbo_is_the_infinite_sum_with_the_tail_that_agrees(order: list[str], p: float) -> None:
    """RBO = (1 − p) Σ_{d≥1} p^(d−1) A_d; orders of the same items agree fully from their length on."""
    first = sorted(order)
    depths = range(1, 2000)
    agreement = [len(set(first[:d]) & set(order[:d])) / min(d, 7) for d in depths]
    expected = (1 - p) * math.fsum(p ** (d - 1) * a for d, a in zip(depths, agreement, strict=True))
    assert rank_biased_overlap(first, order, p) == pytest.approx(expected, abs=1e-9)
    assert rank_biased_overlap(order, first, p) == pytest.approx(rank_biased_overlap(first, order, p))


@pytest.mark.parametrize(
    ("first", "second", "p", "expected"),
    [
        # Published worked value: README of github.com/b4ny4n/rankmeasures.
        ("abcde", "bcdae", 0.9, 0.828),
        # By hand from equation 23: A = 1/1, 1/2, 1 and A = 0, 1/2, 1.
        ("abc", "acb", 0.5, 0.125 + 0.5 + 0.125 * 0.5 * 2 + 0.125),
        ("abc", "bca", 0.5, 0.125 + 0.5 * (0.5 * 0.5 + 0.25)),
    ],
)
def test_rbo_worked_values(first: str, second: str, p: float, expected: float) -> None:
    assert rank_biased_overlap(list(first), list(second), p) == pytest.approx(expected, abs=1e-3)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8))
def test_rbo_with_ties_is_its_definition(pairs: list[tuple[int, int]]) -> None:
    """A_d = 2 |S_d ∩ T_d| / (|S_d| + |T_d|), an item being in S_d when fewer than d others stand above it."""
    items = [f"i{number}" for number in range(len(pairs))]
    orders = [tied_order(items, [pair[side] for pair in pairs]) for side in (0, 1)]

    def agreement(depth: int) -> float:
        seen = [
            {
                item
                for number, item in enumerate(items)
                if sum(pair[side] > pairs[number][side] for pair in pairs) < depth
            }
            for side in (0, 1)
        ]
        return 2 * len(seen[0] & seen[1]) / (len(seen[0]) + len(seen[1]))

    expected = 0.1 * math.fsum(0.9 ** (depth - 1) * agreement(depth) for depth in range(1, 400))
    assert rank_biased_overlap(*orders) == pytest.approx(expected, abs=1e-9)


def test_rbo_weighs_the_top_most() -> None:
    order = list("abcdef")
    assert rank_biased_overlap(order, order) == pytest.approx(1)
    top, bottom = list("bacdef"), list("abcdfe")
    assert rank_biased_overlap(order, top) < rank_biased_overlap(order, bottom) < 1


@pytest.mark.parametrize("bad", [([], []), (["a"], ["b"]), (["a", "a"], ["a", "a"]), (["a"], ["a", "b"])])
def test_rbo_refuses_orders_of_different_items(bad: tuple[list[str], list[str]]) -> None:
    with pytest.raises(RankingError, match="same items"):
        rank_biased_overlap(*bad)


@pytest.mark.parametrize("p", [0, 1, -0.5, math.nan])
def test_rbo_refuses_a_bad_p(p: float) -> None:
    with pytest.raises(RankingError, match="between 0 and 1"):
        rank_biased_overlap(["a"], ["a"], p)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9))
def test_tau_counts_pairs(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs).T
    signs = [
        (np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in itertools.combinations(range(len(x)), 2)
    ]
    difference = sum(a * b for a, b in signs)
    untied = math.sqrt(sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs))
    found = kendall_tau(x, y)
    assert math.isnan(found) if untied == 0 else found == pytest.approx(difference / untied)
