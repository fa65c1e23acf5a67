"""Layers whose inputs come by several routes: their edges counted, and lists that memory cannot hold."""

import numpy as np
import pytest
import torch
from torch import nn

import mge_gpu
from mge_gpu.backends.cpu import compress
from mge_gpu.errors import NotEnoughMemoryError
from mge_gpu.graph import compressed
from tests.graphs import random_masks
from tests.oracles.metrics import reference_metrics


class Context(nn.Module):
    """A layer that sees each pixel by itself, within a window, and all of them as their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        near = nn.functional.avg_pool2d(x, 3, 1, 1)
        return self.b(torch.cat([x[:, :2] + near[:, :2] + x[:, :2].mean((2, 3), keepdim=True), x[:, 2:]], 1))


def brute(graph: mge_gpu.MultipartiteGraph) -> int:
    source, target, _ = (x.numpy() for x in graph.coo())
    return len(np.unique(source * graph.num_nodes + target))


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_edges_of_several_routes_count_once(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Context()
    program = mge_gpu.trace(model, (2, 6, 5))
    for seed in range(5):
        masks = random_masks(model, share, seed)
        graph = mge_gpu.encode(program, masks=masks)
        assert any(b.overlaps for _, _, b in graph.blocks)
        assert graph.num_edges == brute(graph)
        with monkeypatch.context() as patch:  # every hash collides
            patch.setattr(compress, "row_codes", lambda ptr, shifts: np.zeros(len(ptr) - 1, np.uint64))
            assert mge_gpu.encode(program, masks=masks).num_edges == graph.num_edges


def test_pairs_of_channels_with_the_same_taps_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    count = compress.count_distinct

    def watched(ptr: np.ndarray, tap: np.ndarray, cells: np.ndarray, *rest: np.ndarray) -> int:
        counted.append(len(cells))
        return count(ptr, tap, cells, *rest)

    monkeypatch.setattr(compress, "count_distinct", watched)
    graph = mge_gpu.encode(Context(), (2, 6, 5))
    assert graph.num_edges == brute(graph)
    assert counted and max(counted) <= 2  # of 20 pairs


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_another_tap_has_makes_no_classes(share: float) -> None:
    """Each pixel by itself and within the mean of all: every position sees the same."""
    torch.manual_seed(0)
    model = Context()
    for seed in range(2):
        graph = mge_gpu.encode(model, (2, 4, 3), random_masks(model, share, seed))
        _, _, block, positions = graph._placed[1]
        assert positions.by_target.count > 1
        cells = compressed._cells(block)[:3]
        left = compressed._without_covered(positions, *cells)
        assert left.by_target.count == left.by_source.count == 1
        assert left is compressed._without_covered(positions, *cells)
        sizes = [p.size for p in graph.partitions]
        expected = reference_metrics(graph.num_nodes, *graph.coo(), sizes, [len(sizes) - 1])
        report = mge_gpu.topometrics(graph)
        for key, value in expected.items():
            assert report[key] == pytest.approx(value, rel=1e-5, abs=1e-4), key


def test_lists_that_memory_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mge_gpu.graph.compressed.available_memory", lambda: 100)
    graph = mge_gpu.encode(Context(), (2, 6, 5))
    with pytest.raises(
        NotEnoughMemoryError, match=r"neighbours that the positions of layer '[ab]' see .* kB, 100 bytes"
    ):
        _ = graph.adjacency
    keys = ["edges", "one_hop", "strength", "spectral_radius", "l1_path_norm"]
    report = mge_gpu.topometrics(graph, metrics=keys)
    assert report["edges"] == graph.num_edges
