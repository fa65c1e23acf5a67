"""Graphs of the masks of one network as one graph: the edges of each and no other, renumbered."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import mge_gpu
from mge_gpu.errors import GraphError
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.graph.union import Union, union
from tests.graphs import DenseNet, edges_of, random_masks
from tests.oracles.networks import Case
from tests.oracles.strategies import cases

SPARSITIES = (0.3, 0.9, 0.0, 1.1)  # one mask keeps all weights, one none
Edges = list[tuple[int, int, float]]


def graphs_of(model: nn.Module, shape: tuple[int, ...], **options: str) -> list[MultipartiteGraph]:
    program = mge_gpu.trace(model, shape)
    masks = [random_masks(model, s, seed=k) for k, s in enumerate(SPARSITIES)]
    return [mge_gpu.encode(program, masks=m, **options) for m in masks]


def edges_by_network(together: Union) -> list[Edges]:
    """Edges of each network, its nodes numbered as in its own graph."""
    source, target, weight = edges_of(together.graph)
    number = np.empty(together.graph.num_nodes, np.int64)
    ids = together.rows(np.arange(together.graph.num_nodes))
    number[ids] = np.arange(ids.shape[1])
    here, there = together.network_of(source), together.network_of(target)
    assert (here == there).all()
    return [
        sorted(zip(number[source[m]].tolist(), number[target[m]].tolist(), weight[m].tolist(), strict=True))
        for m in (here == k for k in range(together.networks))
    ]


def check(graphs: list[MultipartiteGraph]) -> None:
    together = union(graphs)
    expected = [sorted(zip(*(x.tolist() for x in edges_of(g)), strict=True)) for g in graphs]
    assert edges_by_network(together) == expected
    assert together.graph.num_edges == sum(map(len, expected))
    indeg, outdeg = together.graph.backend.degrees(together.graph.adjacency)
    for k, g in enumerate(graphs):  # of the compressed adjacency
        alone = g.backend.degrees(g.adjacency)
        assert [together.rows(d)[k].tolist() for d in (indeg, outdeg)] == [d.tolist() for d in alone]
    ids = together.rows(np.arange(together.graph.num_nodes))
    assert (together.network_of(ids) == np.arange(len(graphs))[:, None]).all()
    ends = together.graph.in_partitions(together.graph.output_partitions)
    assert (together.rows(ends) == graphs[0].in_partitions(graphs[0].output_partitions)).all()


@settings(max_examples=25)
@given(cases())
def test_edges_of_drawn_networks(case: Case) -> None:
    check(graphs_of(case.module(), case.input_shape))


def test_edges_where_source_nodes_are_positions() -> None:
    """A layout without closed form: each network has taps of its own."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 6, 3), nn.Linear(12, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).flatten(1).t().reshape(-1, 12))

    torch.manual_seed(0)
    graphs = graphs_of(Mixed(), (2, 6, 6))
    assert any(block.flat for _, _, block in graphs[0].blocks)
    check(graphs)


@pytest.mark.parametrize("encoding", ["rolled", "rolled-channel"])
def test_rolled_encodings(encoding: str) -> None:
    torch.manual_seed(0)
    check(graphs_of(DenseNet(growth=2, depth=3), (2, 4, 4), encoding=encoding))


def test_one_graph_and_different_networks() -> None:
    torch.manual_seed(0)
    graph = mge_gpu.encode(nn.Conv2d(2, 3, 3, padding=1), (2, 4, 5))
    check([graph])
    for other in (nn.Conv2d(2, 3, 3, padding=1, dilation=2), nn.Conv2d(2, 4, 3, padding=1)):
        with pytest.raises(GraphError, match="of different networks"):
            union([graph, mge_gpu.encode(other, (2, 4, 5))])
