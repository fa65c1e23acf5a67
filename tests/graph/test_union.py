"""Graphs of the masks of one network as one graph: the edges of each and no other, renumbered."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import mge_gpu
from mge_gpu.backends.adjacency import CROSSED, FLAT
from mge_gpu.errors import GraphError
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.graph.flow import Flow
from mge_gpu.graph.union import Union, by_network, union, union_of_flows
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


def check_flow(graphs: list[MultipartiteGraph], together: Union) -> None:
    """Links, edges, ends and what weights are: those of each network and no other."""
    whole, n = together.graph.flow, together.networks
    assert (whole.networks, whole.weights) == (n, graphs[0].flow.weights)

    def linked(flow: Flow, name: str) -> MultipartiteGraph:
        return MultipartiteGraph(
            flow.sets, [(x.source, x.target, *x.make()) for x in getattr(flow, name)], (), ()
        )

    for name in ("links", "edges"):
        found = edges_by_network(Union(linked(whole, name), n))
        alone = [edges_of(linked(g.flow, name)) for g in graphs]
        assert found == [sorted(zip(*(x.tolist() for x in edges), strict=True)) for edges in alone]
    for x, *same in zip(whole.links, *(g.flow.links for g in graphs), strict=True):
        blocks = [y.make()[0] for y in same]
        for column in ("weight", "target_channel"):
            assert len(getattr(x.make()[0], column)) == sum(len(b.tap) for b in blocks)
        assert x.make()[0].weight.tolist() == [w for b in blocks for w in b.weight.tolist()]
        assert (np.diff(x.make()[0].target_channel) >= 0).all()
        entries = [y.entry for y in same if y.entry is not None]
        assert (x.entry is None) == (not entries)
        assert x.entry is None or x.entry.tolist() == np.concatenate(entries).tolist()
    for name in ("inputs", "outputs"):
        masks = getattr(graphs[0].flow, name)
        assert masks.keys() == getattr(whole, name).keys()
        for p, mask in masks.items():
            assert (by_network(getattr(whole, name)[p], whole.sets[p], n) == mask).all()


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
    check_flow(graphs, together)
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
    assert any(block.view == FLAT for _, _, block in graphs[0].blocks)
    check(graphs)


def test_crossed_blocks() -> None:
    """Layers that mix positions: to them the channels that networks have of their own are positions."""

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(2, 3, 2), nn.Linear(6, 4), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.b(self.a(x).flatten(2)).transpose(1, 2))

    torch.manual_seed(0)
    graphs = graphs_of(Mixer(), (2, 3, 4))
    assert [block.view for _, _, block in graphs[0].blocks].count(CROSSED) == 2
    check(graphs)


def test_what_is_returned_where_channels_run_fastest() -> None:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x)[:, :1, 1:]

    graphs = graphs_of(First(), (2, 3))
    (mask,) = graphs[0].flow.outputs.values()
    assert mask.tolist() == [False, True, True, True, *[False] * 4]
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
    with pytest.raises(GraphError, match="got flows of different networks"):
        union_of_flows([graph.flow, mge_gpu.encode(nn.Linear(2, 3), (2,)).flow], [])


def test_flow_is_made_when_it_is_asked_for() -> None:
    graphs = graphs_of(DenseNet(growth=1, depth=2), (2, 3, 3))
    together = union(graphs)
    assert not any("flow" in vars(g) for g in (together.graph, *graphs)) and together.graph.knows_flow
    assert together.graph.flow.networks == len(graphs)
    given = MultipartiteGraph(graphs[0].partitions, graphs[0].iterate_blocks(), (0,), (1,))
    assert not union([graphs[0], given]).graph.knows_flow
