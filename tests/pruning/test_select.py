"""Exact counts: top-k by index, largest remainders, random masks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mge_gpu.errors import PruningError
from mge_gpu.pruning._select import allot, kept_count, random_masks, top, top_masks


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.data())
def test_top_is_a_stable_sort_cut_at_the_count(values: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    kept = top(torch.tensor(values, dtype=torch.float32), count)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    assert kept.nonzero().flatten().tolist() == sorted(expected)


def test_ties_never_overshoot_and_go_to_the_first() -> None:
    scores = {"a": torch.ones(2, 3), "b": torch.ones(4), "c": torch.tensor([2.0])}
    masks = top_masks(scores, 3)
    assert masks["a"].flatten().tolist() == [True, True] + [False] * 4
    assert not masks["b"].any() and masks["c"].all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nonfinite_scores_name_the_layer(bad: float) -> None:
    with pytest.raises(PruningError, match="b: the pruning scores are not finite"):
        top_masks({"a": torch.ones(2), "b": torch.tensor([1.0, bad])}, 1)


def test_scores_that_are_all_zero_rank_nothing() -> None:
    with pytest.raises(PruningError, match="every weight scores zero"):
        top_masks({"a": torch.zeros(3), "b": torch.zeros(2)}, 2)


def test_scores_that_are_all_negative_rank_like_others() -> None:
    masks = top_masks({"a": torch.tensor([-3.0, -1.0]), "b": torch.tensor([-2.0, -4.0])}, 2)
    assert masks["a"].tolist() == [False, True] and masks["b"].tolist() == [True, False]


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1)), min_size=1, max_size=12))
def test_allotment_is_exact_within_one_of_the_quota_and_never_more_than_a_layer(
    layers: list[tuple[int, float]],
) -> None:
    sizes = [size for size, _ in layers]
    quotas = [size * density for size, density in layers]
    total = round(sum(quotas))
    counts = allot(quotas, sizes, total)
    assert sum(counts) == total
    for count, quota, size in zip(counts, quotas, sizes, strict=True):
        assert 0 <= count <= size and abs(count - quota) <= 1 + 1e-6


def test_allotment_gives_the_rest_to_the_largest_fractions() -> None:
    assert allot([0.2, 0.7, 0.6, 0.5], [5] * 4, 2) == [0, 1, 1, 0]
    assert allot([0.5, 0.5], [1, 1], 1) == [1, 0]
    assert allot([3.0, 3.0], [3, 3], 6) == [3, 3]
    assert allot([0.1 * 30], [30], 3) == [3]
    with pytest.raises(PruningError, match="cannot keep 9 of 4"):
        allot([2.0, 2.0], [2, 2], 9)


def test_random_masks_have_the_counts_and_cover_all_positions() -> None:
    weights = {"a": torch.zeros(3, 4), "b": torch.zeros(10)}
    hits = torch.zeros(3, 4)
    for seed in range(400):
        masks = random_masks(weights, [3, 10], seed)
        assert int(masks["a"].sum()) == 3 and masks["b"].all()
        hits += masks["a"]
    # 400 draws at density 1/4: five standard deviations about the mean of 100
    assert (hits - 100).abs().max() < 5 * (400 * 0.25 * 0.75) ** 0.5


def test_kept_count_rounds() -> None:
    assert [kept_count(268336, s) for s in (0.0, 0.6, 0.9, 0.98)] == [268336, 107334, 26834, 5367]
