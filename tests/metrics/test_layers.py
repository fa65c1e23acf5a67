"""`layer_topometrics`: each layer measured alone, against igraph on the layer's biadjacency."""

import math

import igraph
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import mge_gpu
from mge_gpu.errors import GraphError, MetricError
from mge_gpu.graph.bipartite import bipartite_graphs
from mge_gpu.metrics import METRIC_KEYS
from tests.graphs import random_masks
from tests.metrics.test_ramanujan import biadjacency

SHAPE = (2, 6, 6)


@pytest.fixture
def model(seed: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=3), nn.Flatten(), nn.Linear(24, 5)
    )


@pytest.mark.parametrize("encoding", ["rolled", "rolled-channel"])
def test_against_igraph(model: nn.Module, encoding: str) -> None:
    masks = random_masks(model, 0.6)
    frame = mge_gpu.layer_topometrics(model, SHAPE, encoding=encoding, masks=masks)
    assert list(frame.index) == ["0", "2", "4"] and list(frame.columns) == list(METRIC_KEYS)
    assert frame.attrs["encoding"] == encoding
    for name, row in frame.iterrows():
        matrix = biadjacency(model.get_submodule(name), masks[f"{name}.weight"], encoding)
        left, right = matrix.shape
        weights = np.block([[np.zeros((left, left)), matrix], [matrix.T, np.zeros((right, right))]])
        graph = igraph.Graph.Adjacency((weights != 0).tolist(), mode="undirected")
        n, e = left + right, int((matrix != 0).sum())
        assert (row["nodes"], row["edges"]) == (n, e)
        assert row["sink_nodes"] == row["source_nodes"] == row["removable_in"] == row["removable_out"] == 0
        assert row["disconnected_nodes"] == graph.degree().count(0)
        assert row["one_hop"] == pytest.approx(1 + e / n) and row["two_hop"] == pytest.approx(1 + e / n)
        assert row["k_core"] == pytest.approx(np.mean(graph.coreness()))
        assert row["components"] == len(graph.connected_components())
        assert row["component_size"] == pytest.approx(n / row["components"])
        assert row["cut_edges"] == len(graph.bridges()) and row["cut_nodes"] == len(
            graph.articulation_points()
        )
        connected = (4, 6, 7, 8, 9, 10)  # igraph's classes of four nodes that are connected
        counts = graph.motifs_randesu(4)
        assert row["motifs"] == sum(counts[k] for k in connected)
        assert row["strength"] == pytest.approx(weights.sum() / n, rel=1e-6)
        values = np.sort(np.linalg.svd(matrix, compute_uv=False))[::-1]
        assert row["spectral_gap"] == pytest.approx(values[0] - values[1], rel=1e-4)
        laplacian = np.diag(weights.sum(1)) - weights
        assert row["spectral_radius"] == pytest.approx(np.linalg.eigvalsh(laplacian)[-1], rel=1e-4)


def test_layers_add_up_to_the_graph(model: nn.Module) -> None:
    graph = mge_gpu.encode(model, SHAPE, random_masks(model, 0.7), encoding="rolled")
    frame = mge_gpu.layer_topometrics(graph, metrics="cheap")
    whole = mge_gpu.topometrics(graph, metrics="cheap")
    for key in ("nodes", "edges", "disconnected_nodes"):
        assert frame[key].sum() == whole[key]
    parts = list(bipartite_graphs(graph))
    assert [part.info["layer"] for _, part in parts] == list(frame.index) == [name for name, _ in parts]


def test_normalized_and_means(model: nn.Module) -> None:
    masks = random_masks(model, 0.5) | {"2.weight": torch.zeros(6, 2, 3, 3)}
    metrics = ["nodes", "edges", "k_core"]
    raw = mge_gpu.layer_topometrics(model, SHAPE, metrics, masks=masks)
    scaled = mge_gpu.layer_topometrics(model, SHAPE, metrics, masks=masks, normalized=True)
    assert raw.loc["2", "edges"] == raw.loc["2", "k_core"] == 0
    assert math.isnan(scaled.loc["2", "k_core"])
    pd.testing.assert_series_equal(scaled["k_core"], raw["k_core"] / raw["edges"], check_names=False)
    assert raw["k_core"].mean() == pytest.approx((raw.loc["0", "k_core"] + raw.loc["4", "k_core"]) / 3)


def test_refusals(model: nn.Module) -> None:
    graph = mge_gpu.encode(model, SHAPE)
    with pytest.raises(GraphError, match="got a graph with encoding 'mge', expected a bipartite one"):
        mge_gpu.layer_topometrics(graph)
    with pytest.raises(GraphError, match="encoding 'mge', expected a bipartite one"):
        mge_gpu.layer_topometrics(model, SHAPE, encoding="mge")
    with pytest.raises(MetricError, match="options of encode"):
        mge_gpu.layer_topometrics(graph, encoding="rolled")
    with pytest.raises(MetricError, match="hops"):
        mge_gpu.layer_topometrics(model, SHAPE, "hops")


def test_attention_keeps_its_weights_apart() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    model = Attention()
    frame = mge_gpu.layer_topometrics(model, (5, 4), ["edges"])
    assert frame["edges"].to_dict() == {"attention.in_proj_weight": 48, "attention.out_proj": 16}
    assert list(mge_gpu.ramanujan(model).index) == list(frame.index)
