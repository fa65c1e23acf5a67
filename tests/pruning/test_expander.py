"""Expanders: equal degrees, simple, uniform, well connected, on every kind of layer."""

import warnings
from collections import Counter
from math import lcm

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from mge_gpu import models
from mge_gpu.pruning import InexactCountWarning, prune
from mge_gpu.pruning._regular import near_regular
from mge_gpu.pruning.expander import regular_counts


@given(right=st.integers(1, 30), left=st.integers(1, 30), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_degrees_differ_by_one_at_most(right: int, left: int, share: float, seed: int) -> None:
    edges = round(share * right * left)
    graph = near_regular(right, left, edges, np.random.default_rng(seed))
    assert graph.shape == (right, left) and graph.dtype == bool and graph.sum() == edges
    for side in (0, 1):
        degrees = graph.sum(side)
        assert degrees.max() - degrees.min() <= (0 if edges % len(degrees) == 0 else 1)


def test_all_graphs_are_equally_likely() -> None:
    """There are 90 two-regular bipartite graphs on 4 + 4 labelled nodes; blocks alone would be 18 of them."""
    generator = np.random.default_rng(1)
    found = Counter(near_regular(4, 4, 8, generator).tobytes() for _ in range(2700))
    assert len(found) == 90
    assert stats.chisquare(list(found.values())).pvalue > 1e-4


def test_the_spectral_gap_is_that_of_a_random_regular_graph() -> None:
    right, left, degree = 96, 288, 24
    graph = near_regular(right, left, right * degree, np.random.default_rng(0))
    blocky = np.kron(np.eye(12), np.ones((8, 24)))
    assert (blocky.sum(0) == graph.sum(0)).all() and (blocky.sum(1) == graph.sum(1)).all()
    ramanujan = (degree - 1) ** 0.5 + (degree / 3 - 1) ** 0.5
    first, second = np.linalg.svd(graph.astype(float), compute_uv=False)[:2]
    assert first == pytest.approx((degree * degree / 3) ** 0.5)
    assert second < 1.05 * ramanujan < 0.6 * first
    assert np.linalg.svd(blocky, compute_uv=False)[1] == pytest.approx(first)  # no gap at all


@given(
    layers=st.lists(st.tuples(st.integers(1, 64), st.integers(1, 64)), min_size=1, max_size=8),
    density=st.floats(0.01, 1),
)
def test_regular_counts_are_multiples_within_the_layer(layers: list[tuple[int, int]], density: float) -> None:
    steps, sizes = [lcm(a, b) for a, b in layers], [a * b for a, b in layers]
    total = round(density * sum(sizes))
    counts = regular_counts(steps, sizes, total)
    assert all(
        step <= count <= size and count % step == 0
        for step, count, size in zip(steps, counts, sizes, strict=True)
    )
    if density == 1:
        assert counts == sizes


def degrees(graph: torch.Tensor) -> list[list[int]]:
    """Distinct degrees of each side of a (right, left) mask."""
    return [sorted(set(graph.sum(side).tolist())) for side in (1, 0)]


class Layers(nn.Module):
    """One layer of each kind, none of which is ever run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 24, 3)
        self.grouped = nn.Conv2d(32, 64, 3, groups=4)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.up = nn.ConvTranspose2d(32, 16, (3, 2), groups=2)
        self.attention = nn.MultiheadAttention(16, 2)
        self.fc = nn.Linear(40, 60)


def as_graphs(name: str, mask: torch.Tensor) -> list[torch.Tensor]:
    """Each group's (C_out, C_in, taps), written from PyTorch's documented layouts."""
    groups = {"grouped.weight": 4, "depthwise.weight": 16, "up.weight": 2}.get(name, 1)
    parts = mask.flatten(2) if mask.ndim > 2 else mask[:, :, None]
    if name == "up.weight":  # (C_in, C_out / groups, ...)
        return [part.transpose(0, 1) for part in parts.chunk(groups)]
    return list(parts.chunk(groups))


@pytest.mark.parametrize("sparsity", [0.5, 0.75])
@pytest.mark.parametrize("unit", ["kernel", "weight"])
def test_all_degrees_of_a_side_are_equal(unit: str, sparsity: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InexactCountWarning)
        masks = prune(Layers(), "expander", sparsity, unit=unit)
    for name, mask in masks.items():
        right, left = set(), set()
        for graph in as_graphs(name, mask):
            if unit == "kernel":
                assert (graph.all(2) == graph.any(2)).all(), name  # whole kernels
                graph = graph.any(2)
            of_right, of_left = degrees(graph.flatten(1))
            right |= set(of_right)
            left |= set(of_left)
        assert len(right) == len(left) == 1, name  # over all groups, too
    assert masks["depthwise.weight"].all()
    assert 0.8 * (1 - sparsity) < masks["conv.weight"].float().mean() < 1.25 * (1 - sparsity)


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("unit", ["kernel", "weight"])
def test_exact_counts_with_nearly_equal_degrees(unit: str, sparsity: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*keeps no weight")
        masks = prune(Layers(), "expander", sparsity, unit=unit, exact=True)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round((1 - sparsity) * total)
    for name, mask in masks.items():
        assert abs(int(mask.sum()) - (1 - sparsity) * mask.numel()) < 1
        graphs = as_graphs(name, mask)
        if unit == "kernel":
            cut = sum(int((graph.any(2) & ~graph.all(2)).sum()) for graph in graphs)
            assert cut <= 1
            graphs = [graph.any(2) for graph in graphs]
        for side in (0, 1):
            found = {d for graph in graphs for d in degrees(graph.flatten(1))[side]}
            assert max(found) - min(found) <= 1, name


def test_the_count_comes_near_where_layers_are_large() -> None:
    for sparsity in (0.6, 0.8, 0.9):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InexactCountWarning)
            masks = prune(models.resnet20(), "expander", sparsity)
        kept = sum(int(mask.sum()) for mask in masks.values())
        assert abs(kept - (1 - sparsity) * 270_896) < 145  # a step of a 16 x 16 layer
