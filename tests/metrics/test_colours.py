"""The first vector for the Laplacian's largest eigenvalue, against dense eigenvectors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mge_gpu
from mge_gpu.metrics import METRICS, Workspace
from mge_gpu.metrics.colours import by_colour, laplacian_signs, two_colours
from mge_gpu.metrics.expansion import _start


class Shortcut(nn.Module):
    """Partitions with an odd cycle: no two colours."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x)) + self.c(x)


def laplacian(graph: mge_gpu.MultipartiteGraph, sign: int = -1) -> np.ndarray:
    """D - A, or D + A."""
    half = graph.to_scipy().toarray().astype(np.float64)
    full = half + half.T
    return np.diag(full.sum(1)) + sign * full


def weighted(layers: list[nn.Linear], seed: int) -> nn.Sequential:
    """Weights over three orders of magnitude, half of them zero."""
    generator = np.random.default_rng(seed)
    for layer in layers:
        size = tuple(layer.weight.shape)
        drawn = 10 ** generator.uniform(-2, 1, size) * (generator.random(size) < 0.5)
        layer.weight.data = torch.from_numpy(drawn).float()
    return nn.Sequential(*layers)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(0, 10**6))
def test_signs_are_those_of_the_last_eigenvector(sizes: list[int], seed: int) -> None:
    model = weighted([nn.Linear(a, b, bias=False) for a, b in zip(sizes, sizes[1:], strict=False)], seed)
    w = Workspace(mge_gpu.encode(model, (sizes[0],)))
    assert two_colours(w) == [k % 2 == 1 for k in range(len(sizes))]
    values, vectors = np.linalg.eigh(laplacian(w.graph))
    np.testing.assert_allclose(
        values, np.linalg.eigvalsh(laplacian(w.graph, 1)), atol=1e-5 * values[-1] + 1e-12
    )
    order = np.argsort(laplacian_signs(w, np.float64) < 0, kind="stable")  # colour by colour
    strength = np.diag(laplacian(w.graph))[order]
    start = _start(w, strength)
    if values[-1] == 0:
        assert start is None
        return
    top = vectors[:, values > values[-1] * (1 - 1e-9)]
    share = np.linalg.norm(top[order].T @ start) / np.linalg.norm(start)
    assert share > 0.5 / np.sqrt(w.num_nodes)  # as a random vector has it, or more
    signs = laplacian_signs(w, np.float64)
    if top.shape[1] == 1:
        assert (top[:, 0] * signs > -1e-9).all() or (top[:, 0] * signs < 1e-9).all()
    assert METRICS["spectral_radius"](w).value == pytest.approx(values[-1], rel=1e-4)


@given(st.integers(0, 10**6))
def test_components_of_any_weight(seed: int) -> None:
    """One edge, a star and a dense part, of which any may have the largest eigenvalue."""
    generator = np.random.default_rng(seed)
    scales = 10 ** generator.uniform(-1, 1, 3)
    weight = np.zeros((12, 12))
    weight[0, 0] = scales[0]
    weight[1:5, 1] = scales[1]
    weight[5:, 5:] = scales[2] * generator.uniform(0.5, 1.5, (7, 7))
    layer = nn.Linear(12, 12, bias=False)
    layer.weight.data = torch.from_numpy(weight).float()
    w = Workspace(mge_gpu.encode(layer, (12,)))
    expected = np.linalg.eigvalsh(laplacian(w.graph))[-1]
    assert METRICS["spectral_radius"](w).value == pytest.approx(expected, rel=1e-4)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(0, 10**6))
def test_blocks_by_colour_are_the_adjacency_in_another_order(sizes: list[int], seed: int) -> None:
    model = weighted([nn.Linear(a, b, bias=False) for a, b in zip(sizes, sizes[1:], strict=False)], seed)
    w = Workspace(mge_gpu.encode(model, (sizes[0],)))
    signs = laplacian_signs(w, np.float64)
    order = np.argsort(signs < 0, kind="stable")
    half = w.graph.to_scipy().toarray().astype(np.float64)[order][:, order]
    blocks = by_colour(w)
    assert blocks.sizes == [(signs > 0).sum(), (signs < 0).sum()] and by_colour(w) is blocks
    np.testing.assert_array_equal(laplacian_signs(w, np.float64, numbered=True), signs[order])
    x, split = np.random.default_rng(seed).random(w.num_nodes), blocks.sizes[0]
    across = half + half.T
    across[split:] = 0  # from the first colour only
    ahead = w.backend.operator(blocks.ahead, blocks.back)
    np.testing.assert_allclose(ahead(np.where(np.arange(len(x)) < split, x, 0)), x @ across, atol=1e-9)
    every = w.backend.operator(blocks.every, blocks.every)
    np.testing.assert_allclose(every(x), x @ (half + half.T), rtol=1e-6, atol=1e-9)


def test_without_two_colours_the_vector_is_random() -> None:
    torch.manual_seed(0)
    graph = mge_gpu.encode(Shortcut(), (3,))
    w, other = Workspace(graph, seed=1), Workspace(graph, seed=2)
    assert two_colours(w) is None
    assert by_colour(w).sizes is None and by_colour(w).every == w.blocks
    signs = laplacian_signs(w, np.float32)
    assert signs.dtype == np.float32 and len(np.unique(signs)) == graph.num_nodes
    assert not np.array_equal(signs, laplacian_signs(other, np.float32))
    expected = np.linalg.eigvalsh(laplacian(graph))[-1]
    assert METRICS["spectral_radius"](w).value == pytest.approx(expected, rel=1e-4)
