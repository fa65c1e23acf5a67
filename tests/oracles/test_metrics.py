"""The metric oracle against a second opinion: NetworkX, brute force, and graphs whose values are known."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles.metrics import brute_force_motifs, motifs_by_counts, reference_metrics

KEYS = (
    "nodes edges sink_nodes source_nodes disconnected_nodes removable_out removable_in one_hop two_hop "
    "motifs strength k_core components component_size cut_edges cut_nodes spectral_gap spectral_radius"
).split()


@st.composite
def layered_graphs(draw: st.DrawFn) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """Partition sizes and random edges that lead from a partition to a later one."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    membership = np.repeat(np.arange(len(sizes)), sizes)
    src, dst = np.nonzero(membership[:, None] < membership[None])
    keep = generator.random(len(src)) < draw(st.floats(0, 1))
    return sizes, src[keep], dst[keep], generator.random(keep.sum()) + 0.1


@given(layered_graphs())
def test_against_networkx(case: tuple[list[int], np.ndarray, np.ndarray, np.ndarray]) -> None:
    sizes, src, dst, weight = case
    n = sum(sizes)
    values = reference_metrics(n, src, dst, weight, sizes, [len(sizes) - 1])
    assert set(values) == set(KEYS)
    assert motifs_by_counts(n, src, dst) == values["motifs"]
    directed = nx.DiGraph()
    directed.add_nodes_from(range(n))
    directed.add_weighted_edges_from(zip(src.tolist(), dst.tolist(), weight, strict=True))
    graph = directed.to_undirected()
    within = [len(nx.single_source_shortest_path_length(directed, v, cutoff=2)) for v in directed]
    inner, later = range(n - sizes[-1]), range(sizes[0], n)
    sinks = [v for v in inner if directed.in_degree(v) and not directed.out_degree(v)]
    sources = [v for v in later if directed.out_degree(v) and not directed.in_degree(v)]
    eigenvalues = sorted(np.abs(nx.adjacency_spectrum(graph, weight="weight")), reverse=True) + [0.0] * 3
    expected = {
        "sink_nodes": len(sinks),
        "source_nodes": len(sources),
        "disconnected_nodes": nx.number_of_isolates(directed),
        "removable_out": sum(directed.in_degree(v) for v in sinks),
        "removable_in": sum(directed.out_degree(v) for v in sources),
        "one_hop": 1 + len(src) / n,
        "two_hop": np.mean(within),
        "motifs": brute_force_motifs(n, src, dst),
        "strength": 2 * weight.sum() / n,
        "k_core": np.mean(list(nx.core_number(graph).values())),
        "components": nx.number_connected_components(graph),
        "cut_edges": len(list(nx.bridges(graph))),
        "cut_nodes": len(list(nx.articulation_points(graph))),
        "spectral_gap": eigenvalues[0] - eigenvalues[2],
        "spectral_radius": max(nx.laplacian_spectrum(graph, weight="weight")),
    }
    for key, value in expected.items():
        assert values[key] == pytest.approx(value, rel=1e-9, abs=1e-9), key
    assert values["component_size"] * values["components"] == pytest.approx(n)


def test_motifs_with_cliques() -> None:
    """Six mutually linked nodes: every 4 of them are connected, whatever the subgraph looks like."""
    src, dst = np.nonzero(np.triu(np.ones((6, 6)), 1))
    values = reference_metrics(6, src, dst, np.ones(15), [1] * 6, [5])
    assert values["motifs"] == brute_force_motifs(6, src, dst) == 15


def test_sparse_and_dense_spectra_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    sizes = [60, 80, 40]
    src, dst = np.nonzero(generator.random((140, 180)) < 0.1)
    src, dst = src[src // 60 < dst // 60], dst[src // 60 < dst // 60]
    weight = generator.random(len(src))
    dense = reference_metrics(180, src, dst, weight, sizes, [2])
    monkeypatch.setattr("tests.oracles.metrics.DENSE_LIMIT", 0)
    sparse = reference_metrics(180, src, dst, weight, sizes, [2])
    assert sparse == pytest.approx(dense, rel=1e-8)


def test_too_few_nodes_for_three_eigenvalues() -> None:
    values = reference_metrics(2, [0], [1], [3.0], [1, 1], [1])
    assert values["spectral_gap"] == pytest.approx(3.0)  # |λ| = 3, 3 and, by convention, 0
    assert values["spectral_radius"] == pytest.approx(6.0)
