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
