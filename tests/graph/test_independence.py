"""The same product A x and A^T x by three ways that share nothing: blocks, a matrix, a dense network."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mge_gpu
from mge_gpu.graph import MultipartiteGraph
from tests.graphs import random_masks


class Pools(nn.Module):
    """Overlapping pools (3 x 3, stride 2) between convolutions, and global average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.b = nn.Conv2d(8, 12, 3, padding=1)
        self.c = nn.Conv2d(12, 12, 3)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.a(x)), 3, 2, 1)
        x = F.max_pool2d(torch.relu(self.b(x)), 3, 2)
        return self.head(torch.relu(self.c(x)).mean((2, 3)))

    def linear(self, x: list[Tensor]) -> list[Tensor]:
        """What each partition receives from those before it; a max pool becomes the sum of its window."""
        first = F.conv2d(x[0], self.a.weight, stride=2)  # x[0] holds the padding
        second = self.b(_window_sums(x[1], 3, 2, 1))
        third = self.c(_window_sums(x[2], 3, 2, 0))
        return [first, second, third, self.head(x[3].sum((2, 3)))]


def _window_sums(x: Tensor, size: int, stride: int, padding: int) -> Tensor:
    kernel = torch.ones(x.shape[1], 1, size, size, dtype=x.dtype)
    return F.conv2d(x, kernel, stride=stride, padding=padding, groups=x.shape[1])


def _resnet20_linear(model: nn.Module, x: list[Tensor]) -> list[Tensor]:
    """ResNet-20 layer by layer: each convolution reads one node set, shortcuts add into another."""
    out = [F.conv2d(x[0], model.conv1.weight)]
    at = 1  # the node set that the next block reads
    for stage in (model.layer1, model.layer2, model.layer3):
        for block in stage:
            out.append(block.conv1(x[at]))
            total = block.conv2(x[at + 1])
            if len(block.shortcut):
                total = total + block.shortcut[0](x[at])
            out.append(total)
            at += 2
    out.append(model.linear(x[at].sum((2, 3))))
    return out


def absolute(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """A float64 copy with |W| for W and no biases."""
    twin = copy.deepcopy(model).double()
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if name in masks:
                parameter.abs_().mul_(masks[name])
            elif parameter.dim() == 1:
                parameter.zero_()
    return twin.requires_grad_(False)


@cache
def network(name: str) -> tuple[MultipartiteGraph, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = mge_gpu.models.resnet20() if name == "resnet20" else Pools()
    shape = (3, 32, 32) if name == "resnet20" else (3, 37, 42)
    masks = random_masks(model, 0.9 if name == "resnet20" else 0.5)
    return mge_gpu.encode(model, shape, masks), absolute(model, masks)


def dense_pass(name: str, x: list[Tensor]) -> list[Tensor]:
    _, model = network(name)
    return model.linear(x) if isinstance(model, Pools) else _resnet20_linear(model, x)


@pytest.mark.parametrize("name", ["resnet20", "pools"])
def test_three_ways(name: str) -> None:
    graph, _ = network(name)
    blocks = [b for _, _, b in graph.blocks]
    matrix = graph.to_scipy().astype(np.float64)
    generator = np.random.default_rng(0)
    x, y = (generator.standard_normal(graph.num_nodes) for _ in range(2))
    ahead, back = graph.backend.operator(blocks, [])(x), graph.backend.operator([], blocks)(y)
    both = graph.backend.operator(blocks, blocks)(x)

    sizes = [p.size for p in graph.partitions]
    parts = [
        torch.from_numpy(piece).reshape(1, *p.shape).requires_grad_()
        for piece, p in zip(np.split(x, np.cumsum(sizes)[:-1]), graph.partitions, strict=True)
    ]
    received = dense_pass(name, parts)
    assert [tuple(r.shape[1:]) for r in received] == [p.shape for p in graph.partitions[1:]]
    dense_ahead = np.concatenate([np.zeros(sizes[0]), *(r.detach().numpy().ravel() for r in received)])
    weights = np.split(y, np.cumsum(sizes)[:-1])[1:]
    total = sum((r.ravel() * torch.from_numpy(w)).sum() for r, w in zip(received, weights, strict=True))
    gradients = torch.autograd.grad(total, parts, allow_unused=True)  # the transposed pass
    dense_back = np.concatenate(
        [np.zeros(n) if g is None else g.numpy().ravel() for g, n in zip(gradients, sizes, strict=True)]
    )

    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(ahead, matrix.T @ x, **close)
    np.testing.assert_allclose(ahead, dense_ahead, **close)
    np.testing.assert_allclose(back, matrix @ y, **close)
    np.testing.assert_allclose(back, dense_back, **close)
    np.testing.assert_allclose(both, matrix.T @ x + matrix @ x, **close)


def test_routes_that_meet_are_one_edge() -> None:
    """Where pools overlap several routes lead from node to node: one edge, with their summed weight."""
    graph, _ = network("pools")
    source, target, weight = graph.coo()
    assert graph.num_edges == len(torch.unique(source * graph.num_nodes + target))
    twice = [b for _, _, b in graph.blocks if b.overlaps]
    routes = sum(int(b.pair_count[b.tap].sum()) for _, _, b in graph.blocks)
    assert twice and routes > graph.num_edges
    assert float(weight.sum()) == pytest.approx(
        graph.backend.total_weight([b for _, _, b in graph.blocks]), rel=1e-4
    )
