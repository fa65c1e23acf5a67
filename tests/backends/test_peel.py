"""Core numbers on kernels: blocks that wait for each other, many teams on one list, levels without nodes."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mge_gpu
from mge_gpu.backends.cuda import CudaBackend, peel
from mge_gpu.backends.cuda.resident import resident_adjacency
from mge_gpu.errors import GraphError
from mge_gpu.graph import MultipartiteGraph
from tests.backends.test_conformance import dense_net, networks, tokens_net, wide_net
from tests.backends.test_coo import Runtimes
from tests.graphs import undirected
from tests.kernels.host_runtime import COMPILER, TOGETHER, HostRuntime

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: the CUDA kernels are not run here")


def dense_layers(*widths: int) -> MultipartiteGraph:
    """Every neuron linked to all of the next layer."""
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)]
    return mge_gpu.encode(nn.Sequential(*layers), (widths[0],))


def coreness(backend: CudaBackend, graph: MultipartiteGraph) -> list[int]:
    """Core numbers on the host."""
    found: list[int] = backend.host(backend.coreness(graph.adjacency)).tolist()
    return found


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_core_numbers_are_those_of_igraph(threads: int, runtime_of: Runtimes) -> None:
    backend = CudaBackend(runtime_of(threads))
    drawn = [graph for _, graph in networks()[: 30 if threads < 64 else 5]]
    for graph in [dense_net(), wide_net(), tokens_net(), dense_layers(3, 30, 40, 20), *drawn]:
        assert coreness(backend, graph) == undirected(graph).coreness()


class Watched(HostRuntime):
    """Counts how often the blocks of the last launch met."""

    phases = 0

    def run(self, source: str, kernel: str, blocks: int, *args: Any) -> None:
        """Run a kernel, and look at its state."""
        super().run(source, kernel, blocks, *args)
        if kernel == "peel":
            assert blocks == TOGETHER
            self.phases = int(args[-1].array[0]) // blocks


def test_levels_without_nodes_are_passed_over() -> None:
    """One look finds the lowest degree, 400, and one its nodes; all go in two rounds, through hubs."""
    runtime = Watched()
    assert coreness(CudaBackend(runtime), dense_layers(300, 400, 350)) == [400] * 1050
    assert runtime.phases == 2 + 2 * 2


def test_a_graph_without_edges_or_nodes(runtime_of: Runtimes) -> None:
    backend = CudaBackend(runtime_of(1))
    layer = nn.Linear(4, 3)
    masks = {"weight": torch.zeros(3, 4, dtype=torch.bool)}
    assert coreness(backend, mge_gpu.encode(layer, (4,), masks)) == [0] * 7


def test_degrees_of_another_graph_are_refused(runtime_of: Runtimes) -> None:
    runtime = runtime_of(1)
    graph = dense_layers(3, 4)
    degree = runtime.xp.asarray(np.array([4, 4, 4, 3, 3, 3, -1], np.int32))
    with pytest.raises(GraphError, match="1 nodes have no core number"):
        peel.coreness(runtime, resident_adjacency(runtime, graph.adjacency), degree, graph.adjacency.num_hubs)
