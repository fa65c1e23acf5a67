"""Many masks of one network as one graph: each primitive of each backend, against each graph alone."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mge_gpu
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.graph.union import union
from mge_gpu.metrics import METRICS, expansion
from mge_gpu.metrics.together import Together
from tests.backends.test_conformance import backend, local_counts, pytest_generate_tests, two_hop_sizes
from tests.graphs import DenseNet, random_masks

__all__ = ["backend", "pytest_generate_tests"]


class Pooled(nn.Module):
    """A stride, a pool that overlaps, nodes that share their neighbours, a layer without closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(4, 4, 1), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(torch.max_pool2d(torch.relu(self.a(x)), 3, 2, 1))
        return self.c(x.flatten(1).t().reshape(-1, 6))


def values(backend: Any, graph: MultipartiteGraph) -> list[np.ndarray]:
    """What primitives say of each node."""
    g, nodes = graph.adjacency, np.arange(graph.num_nodes)
    parent = backend.components(g)[1]
    indeg, outdeg = backend.degrees(g)
    sums = backend.neighbour_sums(g, indeg)
    cut = backend.cut_marks(g, parent)[1]
    return [
        *(indeg, outdeg, sums, cut, backend.coreness(g), two_hop_sizes(backend, graph, nodes)),
        *local_counts(backend, graph, nodes).T,
    ]


def marks(backend: Any, graph: MultipartiteGraph) -> list[np.ndarray]:
    """Marks of which only the number is the graph's: roots, and ends of bridges."""
    parent = backend.components(graph.adjacency)[1]
    return [parent < 0, backend.cut_marks(graph.adjacency, parent)[0]]


@pytest.mark.parametrize("model, shape", [(DenseNet(), (2, 3, 4)), (Pooled(), (2, 12, 8))])
def test_a_union_is_its_networks_side_by_side(model: nn.Module, shape: tuple[int, ...], backend: Any) -> None:
    program = mge_gpu.trace(model, shape)
    graphs = [mge_gpu.encode(program, masks=random_masks(model, s)) for s in (0.9, 0.0, 0.5)]
    together = union(graphs)
    found = backend.within_memory(lambda: values(backend, together.graph))
    for whole, *alone in zip(found, *(values(backend, g) for g in graphs), strict=True):
        assert together.rows(whole).tolist() == [x.tolist() for x in alone]
    blocks = [[block for _, _, block in g.blocks] for g in (together.graph, *graphs)]
    x = np.random.default_rng(0).standard_normal(together.graph.num_nodes)
    vectors = [np.asarray(v, like=backend.prototype()) for v in (x, *together.rows(x))]
    whole, *alone = (backend.host(backend.operator(b, b)(v)) for b, v in zip(blocks, vectors, strict=True))
    np.testing.assert_allclose(together.rows(whole), alone, rtol=1e-9, atol=1e-9)
    for whole, *alone in zip(*(marks(backend, g) for g in (together.graph, *graphs)), strict=True):
        assert together.rows(whole).sum(1).tolist() == [int(x.sum()) for x in alone]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("single", [False, True])
def test_spectra_of_a_union(single: bool, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All eigenvalues of each network are known; one of them has no edges."""
    monkeypatch.setattr(expansion, "FINE_NODES", 0 if single else 1 << 14)
    program = mge_gpu.trace(Pooled(), (2, 9, 7))
    masks = [random_masks(Pooled(), s, seed=k) for k, s in enumerate((0.3, 0.0, 0.6))]
    masks.append({name: torch.zeros_like(mask) for name, mask in masks[0].items()})
    graphs = [mge_gpu.encode(program, masks=m) for m in masks]
    w = Together(union(graphs))
    w.backend = getattr(backend, "inner", backend)  # whose arrays stay on the device
    with w.backend.active():
        gap, radius = (METRICS[key](w) for key in ("spectral_gap", "spectral_radius"))
    for k, graph in enumerate(graphs):
        half = graph.to_scipy().toarray().astype(np.float64)
        full = half + half.T
        magnitude = np.sort(np.abs(np.linalg.eigvalsh(full)))[::-1]
        largest = np.linalg.eigvalsh(np.diag(full.sum(0)) - full)[-1]
        near = (1e-5 if single else 1e-7) * magnitude[0]
        assert gap.value[k] == pytest.approx(magnitude[0] - magnitude[2], abs=near)
        assert radius.value[k] == pytest.approx(largest, rel=1e-5, abs=1e-12)
        assert "Lanczos" in gap.how[k] and "converged" not in gap.how[k]
