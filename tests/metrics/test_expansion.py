"""Spectral metrics: many graphs in a batch, and networks that SciPy can check."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import eigsh
from torch import nn

import mge_gpu
from mge_gpu.errors import MetricError
from mge_gpu.metrics import METRICS, Workspace, colours, expansion
from tests.graphs import random_masks

KEYS = ["spectral_gap", "spectral_radius"]


def small_graphs() -> list[mge_gpu.MultipartiteGraph]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 4, 1))
    return [
        mge_gpu.encode(model, (3, 10, 10), random_masks(model, s, k)) for k, s in enumerate((0.3, 0.6, 0.9))
    ]


class Network(nn.Module):
    """Strides, a pool that overlaps; with a shortcut the partitions have an odd cycle."""

    def __init__(self, shortcut: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 24, 3, padding=1)
        self.c, self.d = nn.Conv2d(24, 24, 1), nn.Conv2d(16, 24, 1) if shortcut else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(self.a(x), 3, 2, 1)
        y = self.c(self.b(x))
        return y if self.d is None else y + self.d(x)


@pytest.mark.parametrize("limit", [None, 1])
def test_a_batch_has_the_values_of_one_by_one(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if limit is not None:  # all of them count as large
        monkeypatch.setattr(expansion, "LARGE", limit)
    graphs, threads = small_graphs(), torch.get_num_threads()
    together = expansion.measure_batch([Workspace(g) for g in graphs], KEYS)
    for graph, found in zip(graphs, together, strict=True):
        assert list(found) == KEYS
        scale = found["spectral_radius"].value
        for key in KEYS:
            alone = METRICS[key](Workspace(graph)).value
            assert found[key].value == pytest.approx(alone, rel=1e-5, abs=1e-5 * scale)
    assert torch.get_num_threads() == threads
    assert expansion.measure_batch([], KEYS) == []
    with pytest.raises(MetricError, match="'k_core'"):
        expansion.measure_batch([], ["k_core"])


@pytest.mark.parametrize("limit", [1, 1 << 19])
@pytest.mark.parametrize("shortcut", [False, True])
def test_networks_agree_with_scipy(shortcut: bool, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gap, a small difference of large values, and the radius; with and without two colours."""
    monkeypatch.setattr(expansion, "LARGE", limit)
    torch.manual_seed(0)
    model = Network(shortcut)
    graph = mge_gpu.encode(model, (3, 40, 40), random_masks(model, 0.7))
    half = graph.to_scipy().astype(np.float64)
    full = sp.csr_array(half + half.T)
    start = np.random.default_rng(0).standard_normal(graph.num_nodes)
    values = np.sort(np.abs(eigsh(full, 6, tol=1e-10, v0=start, return_eigenvectors=False)))[::-1]
    laplacian = sp.csr_array(sp.diags_array(np.asarray(full.sum(axis=1)).ravel()) - full)
    radius = eigsh(laplacian, 1, which="LA", tol=1e-10, v0=start, return_eigenvectors=False)[0]
    w = Workspace(graph)
    assert (colours.two_colours(w) is None) == shortcut
    gap = METRICS["spectral_gap"](w)
    assert gap.value == pytest.approx(values[0] - values[2], abs=1e-5 * values[0])
    assert "Lanczos" in gap.how and "sparse" in gap.how
    assert METRICS["spectral_radius"](w).value == pytest.approx(radius, rel=1e-5)


@pytest.mark.parametrize("shortcut", [False, True])
def test_a_rough_gap_says_how_rough(shortcut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Network(shortcut)
    graph = mge_gpu.encode(model, (3, 20, 20), random_masks(model, 0.7))
    sure = METRICS["spectral_gap"](Workspace(graph))
    assert graph.num_nodes <= expansion.FINE_NODES and "certain" not in sure.how
    monkeypatch.setattr(expansion, "FINE", 0.1)
    rough = METRICS["spectral_gap"](Workspace(graph))
    within = float(rough.how.split("certain to within ")[1].split(";")[0])
    assert 0 < abs(rough.value - sure.value) <= 1.05 * within  # two digits are given
    assert expansion.ROUGH * rough.value < 1.05 * within


def test_the_larger_of_two_radii_that_nearly_agree() -> None:
    """Two networks side by side, one 0.4 % lighter: a first vector can have little of the heavier one."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.c = (nn.Conv1d(2, 2, 20, groups=2) for _ in range(2))
            self.b = nn.Conv1d(2, 2, 1, groups=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x)) + self.c(x)

    torch.manual_seed(0)
    model = Pair()
    for layer in (model.a, model.b, model.c):
        nn.init.normal_(layer.weight[:1])
        layer.weight.data[1] = 0.996 * layer.weight[0]
    graph = mge_gpu.encode(model, (2, 20), pad_input=False)
    src, dst, weight = (x.numpy() for x in graph.coo())
    adjacency = np.zeros((graph.num_nodes, graph.num_nodes))
    adjacency[src, dst] = weight
    adjacency += adjacency.T
    radius = np.linalg.eigvalsh(np.diag(adjacency.sum(0)) - adjacency)[-1]
    found = {seed: METRICS["spectral_radius"](Workspace(graph, seed=seed)).value for seed in range(300)}
    assert {s: x for s, x in found.items() if x != pytest.approx(radius, rel=1e-6)} == {}
