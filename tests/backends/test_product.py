"""Both engines of the product against the materialised matrix, and against each other."""

from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn

import mge_gpu
from mge_gpu.backends.cpu import product
from mge_gpu.graph import MultipartiteGraph
from tests.graphs import random_masks


class Attentive(nn.Module):
    """A complete tap: every position of the gate's output reads every position of the pooled map."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.c(x * torch.sigmoid(self.b(x.mean((2, 3), keepdim=True))))


class Mixed(nn.Module):
    """Convolutions by channel, linear layers by token, strides in between, and a table that fits neither."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 9)
        self.c, self.d = nn.Conv2d(9, 4, 3, stride=2), nn.Linear(12, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(self.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.d(self.c(x).flatten(2).reshape(1, -1, 12))


def graphs() -> list[MultipartiteGraph]:
    torch.manual_seed(0)
    models = {
        (3, 9, 8): Attentive(),
        (3, 7, 9): Mixed(),
        (4, 31, 40): nn.Sequential(
            nn.Conv2d(4, 7, (3, 5), (2, 1), 1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(7, 3, 1)
        ),
        (8, 12, 12): nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 4, 3, stride=2)),
        (6, 20): nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 5)),
        (40,): nn.Sequential(nn.Linear(40, 300), nn.Linear(300, 3)),
        (3, 64, 64): nn.Conv2d(3, 40, 3, padding=1),
    }
    return [mge_gpu.encode(m, shape, random_masks(m, 0.4)) for shape, m in models.items()]


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("engine", ["sparse", "dense", None])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_engines(engine: str | None, dtype: type, threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
    for graph in graphs():
        half = graph.to_scipy().astype(np.float64)
        blocks = [b for _, _, b in graph.blocks]
        x = np.random.default_rng(0).standard_normal(graph.num_nodes).astype(dtype)
        for forward, backward, matrix in (
            (blocks, blocks, half + half.T),
            (blocks, [], half.T),
            ([], blocks, half),
        ):
            apply = product.operator(forward, backward, dtype, engine)
            found = apply(x)
            assert found.dtype == dtype
            expected = matrix @ x.astype(np.float64)
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, atol=1e-5 * scale)
            first, room = found.copy(), np.full_like(x, np.nan)
            assert apply(-2 * x, room) is room
            np.testing.assert_allclose(room, -2 * expected, atol=2e-5 * scale)
            np.testing.assert_array_equal(apply(x, room), first)
            np.testing.assert_array_equal(found, first)
            if engine is not None:
                assert (apply.dense, apply.sparse)[engine == "sparse"] == len(blocks)


def test_vectors_of_a_product_that_broke_off_are_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C tasks under way still write to them."""
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    graph = mge_gpu.encode(nn.Conv2d(3, 40, 3, padding=1), (3, 64, 64))
    blocks, kept = [b for _, _, b in graph.blocks], dict[Any, Any]()
    apply, x = product.operator(blocks, blocks, engine="sparse", prepared=kept), np.ones(graph.num_nodes)
    expected, (before,) = apply(x), kept["spare", np.float64]
    assert apply(x) is not None and kept["spare", np.float64][0] is before
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(product.SparseBlock, "add", Mock(side_effect=KeyboardInterrupt))
        apply(x)
    assert kept["spare", np.float64] == []
    np.testing.assert_array_equal(apply(x), expected)


def test_choice_follows_density() -> None:
    """A dense layer goes through matrix products, a very sparse one and a depthwise one do not."""

    def dense(layer: nn.Module, sparsity: float) -> int:
        mask = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) >= sparsity
        graph = mge_gpu.encode(layer, (256, 14, 14), {"weight": mask})
        blocks = [b for _, _, b in graph.blocks]
        return product.operator(blocks, blocks, np.float32).dense

    assert dense(nn.Conv2d(256, 256, 1), 0.0) == 1
    assert dense(nn.Conv2d(256, 256, 1), 0.99) == 0
    assert dense(nn.Conv2d(256, 256, 3, groups=256), 0.0) == 0
