"""Helpers of the tests: a drawn network as a graph, a graph as SciPy and igraph see it."""

import warnings
from typing import Any

import igraph
import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

import mge_gpu
from mge_gpu.graph import MultipartiteGraph
from tests.oracles.networks import Case


def encoded(case: Case, **options: Any) -> MultipartiteGraph:
    """The graph of a drawn network."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using padding='same'")
        return mge_gpu.encode(case.module(), case.input_shape, **options)


def edges_of(graph: MultipartiteGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(source, target, weight) as NumPy arrays."""
    source, target, weight = graph.coo()
    return source.numpy(), target.numpy(), weight.numpy()


def directed(graph: MultipartiteGraph) -> sp.csr_array:
    """The (N, N) 0/1 int64 adjacency matrix, A[u, v] = 1 for u -> v."""
    source, target, _ = edges_of(graph)
    ones = np.ones(len(source), np.int64)
    return sp.csr_array((ones, (source, target)), shape=(graph.num_nodes, graph.num_nodes))


def undirected(graph: MultipartiteGraph) -> igraph.Graph:
    """The simple undirected graph beneath it."""
    source, target, _ = edges_of(graph)
    return igraph.Graph(n=graph.num_nodes, edges=np.stack([source, target], 1), directed=False).simplify()


def random_masks(model: nn.Module, sparsity: float, seed: int = 0) -> dict[str, Tensor]:
    """Uniform random masks, drawn without the package's pruners."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{name}.weight".lstrip("."): torch.rand(module.weight.shape, generator=generator) >= sparsity
        for name, module in model.named_modules()
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear))
    }


class Mixer(nn.Module):
    """An MLP-Mixer block on a map, a spatial gating unit on tokens, and a head: positions are mixed, too."""

    def __init__(self, channels: int, positions: int, hidden: int, wide: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(2, channels, 2, 2)
        self.up, self.down = nn.Linear(positions, hidden), nn.Linear(hidden, positions)
        self.wide, self.gate = nn.Linear(channels, wide), nn.Linear(positions, positions)
        self.narrow, self.head = nn.Linear(wide // 2, channels), nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2)
        x = (x + self.down(torch.relu(self.up(x)))).transpose(1, 2)
        u, v = self.wide(x).chunk(2, -1)
        x = x + self.narrow(u * self.gate(v.transpose(1, 2)).transpose(1, 2))
        return self.head(x.mean(1))


class DenseNet(nn.Module):
    """Every layer reads the concatenation of all before it: its nodes form cliques of four and more."""

    def __init__(self, growth: int = 2, depth: int = 4, channels: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(channels + k * growth, growth, 3, padding=1, bias=False) for k in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, torch.relu(layer(x))], 1)
        return x


TOKEN_STEPS = ("linear", "attention", "mean", "gate", "shortcut", "first", "split", "join")
"""What layers of `Tokens` do."""

_LAYERS = {"linear": "a", "mean": "a", "attention": "abc", "shortcut": "abc", "join": "abc"}


class Tokens(nn.Module):
    """Layers on (tokens, width) that treat most tokens alike, with a head on the first, their mean or all."""

    def __init__(self, steps: tuple[str, ...], head: str, width: int = 3) -> None:
        super().__init__()
        self.steps, self.head = steps, head
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(width, width, bias=False) for name in _LAYERS.get(step, "ab")})
            for step in steps
        )
        self.last = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        for step, layers in zip(self.steps, self.layers, strict=True):
            a, b, c = (layers[name] if name in layers else nn.Identity() for name in "abc")
            if step == "linear":
                x = a(x)
            elif step == "attention":
                x = torch.softmax(a(x) @ b(x).transpose(-1, -2), -1) @ c(x)
            elif step == "mean":  # a block with two kinds of taps: of a token itself, and within the mean
                x = a(x + x.mean(-2, keepdim=True))
            elif step == "gate":
                x = a(x) * b(x.amax(-2, keepdim=True))
            elif step == "shortcut":  # an odd cycle of layers
                x = b(a(x)) + c(x)
            elif step == "first":  # all read one token
                x = a(x) + b(x[..., :1, :])
            elif step == "split":  # two tokens go another way
                x = torch.cat([a(x[..., :2, :]), b(x[..., 2:, :])], -2)
            else:  # each of half of the tokens reads the whole other half
                x, y = x.tensor_split([x.shape[-2] // 2], -2)
                x = torch.cat([a(x), b(y + c(x).mean(-2, True))], -2)
        return self.last(x[..., 0, :] if self.head == "first" else x.mean(-2) if self.head == "mean" else x)
