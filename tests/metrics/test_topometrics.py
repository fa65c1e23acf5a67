"""Every topometric against igraph, SciPy and brute force: on drawn networks and on ResNet-20."""

import math
import random
from collections.abc import Callable
from functools import cache
from itertools import combinations

import igraph
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from scipy.sparse.linalg import eigsh
from torch import nn

import mge_gpu
from mge_gpu.backends import Backend
from mge_gpu.errors import MetricError
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.metrics import METRIC_KEYS, METRICS, PATH_KEYS, Measured, Workspace, base, metric
from mge_gpu.metrics.base import CHEAP, exact_sum
from tests.graphs import DenseNet, directed, edges_of, encoded, random_masks, undirected
from tests.oracles.metrics import brute_force_motifs, reference_metrics
from tests.oracles.networks import Case
from tests.oracles.strategies import cases

NETWORKS = 40
COUNTS = """
nodes edges sink_nodes source_nodes disconnected_nodes removable_out removable_in motifs components cut_edges
cut_nodes
""".split()
SPECTRA = ["spectral_gap", "spectral_radius"]
EVERY = (*METRIC_KEYS, *PATH_KEYS)


def assert_matches(report: mge_gpu.Report, expected: dict[str, float]) -> None:
    """Counts are equal, means agree to 1e-5 and eigenvalues to 1e-4, relatively."""
    assert not report.standard_errors
    for key, value in expected.items():
        if key in COUNTS:
            assert isinstance(report[key], int) and report[key] == value, key
        elif key in SPECTRA:  # a gap may be zero: then its error is measured by the spectrum's size
            scale = 1e-6 * max(1.0, expected["spectral_radius"])
            assert report[key] == pytest.approx(value, rel=1e-4, abs=scale), key
        else:
            assert report[key] == pytest.approx(value, rel=1e-5), key


def reference_of(graph: MultipartiteGraph, motifs: bool = True) -> dict[str, float]:
    sizes = [p.size for p in graph.partitions]
    return reference_metrics(graph.num_nodes, *edges_of(graph), sizes, graph.output_partitions, motifs=motifs)


def test_drawn_networks() -> None:
    compared = 0

    @settings(max_examples=NETWORKS)
    @given(cases())
    def compare(case: Case) -> None:
        nonlocal compared
        graph = encoded(case)
        report = mge_gpu.topometrics(graph, metrics=METRIC_KEYS)
        assert tuple(report) == METRIC_KEYS
        expected = reference_of(graph)
        assert set(expected) == set(METRIC_KEYS)
        assert_matches(report, expected)
        compared += 1

    compare()
    assert compared >= NETWORKS  # hypothesis may stop early when it thinks that it has seen everything


def test_cliques_of_a_dense_net() -> None:
    """Concatenations link many partitions mutually, which chains of layers do not: K4s and odd cycles."""
    torch.manual_seed(0)
    model = DenseNet(growth=2, depth=4, channels=2)
    graph = mge_gpu.encode(model, (2, 3, 3), random_masks(model, 0.5))
    assert len(undirected(graph).cliques(4, 4)) > 100
    assert_matches(mge_gpu.topometrics(graph), reference_of(graph))


@pytest.mark.parametrize("part", [base.PART, 5])
def test_motifs_against_every_four_nodes(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PART", part)
    model = DenseNet(growth=1, depth=4, channels=1)
    graph = mge_gpu.encode(model, (1, 2, 3), random_masks(model, 0.3), pad_input=False)
    source, target, _ = edges_of(graph)
    expected = brute_force_motifs(graph.num_nodes, source, target)
    assert mge_gpu.topometrics(graph, metrics="motifs")["motifs"] == expected > 0


def test_identity_skips_and_plain_input() -> None:
    """The options of `encode` change the graph, not the way it is measured."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), _Residual(2), _Residual(2))
    for skips in (False, True):
        graph = mge_gpu.encode(model, (1, 4, 5), pad_input=False, identity_skips=skips)
        assert_matches(mge_gpu.topometrics(graph), reference_of(graph))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.conv(x))


# ResNet-20


@cache
def resnet20(sparsity: float) -> MultipartiteGraph:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = mge_gpu.models.resnet20()
    return mge_gpu.encode(model, (3, 32, 32), random_masks(model, sparsity))


def test_resnet20_at_98_percent() -> None:
    graph = resnet20(0.98)
    assert_matches(mge_gpu.topometrics(graph), reference_of(graph))


def resnet18() -> MultipartiteGraph:
    """torchvision's, whose first pool overlaps; benchmarks/exactness.py has it at 64x64 and 90 %."""
    models = pytest.importorskip("torchvision.models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = models.resnet18()
    return mge_gpu.encode(model, (3, 32, 32), mge_gpu.prune(model, "erk", 0.98, seed=0))


@pytest.mark.parametrize("network", [lambda: resnet20(0.9), resnet18], ids=["resnet20", "resnet18"])
def test_millions_of_edges(network: Callable[[], MultipartiteGraph]) -> None:
    """3.7 M and 2.8 M edges, with cheaper ways to the same numbers where igraph takes minutes."""
    graph = network()
    source, target, weight = edges_of(graph)
    n = graph.num_nodes
    matrix = sp.csr_array((weight.astype(np.float64), (source, target)), shape=(n, n))
    assert matrix.nnz == len(source), "an edge is listed twice"
    plain = igraph.Graph(n=n, edges=np.stack([source, target], 1), directed=False)
    outdeg, indeg = (np.bincount(x, minlength=n) for x in (source, target))
    inner, later = np.arange(n) < n - graph.partitions[-1].size, np.arange(n) >= graph.partitions[0].size
    sink, start = (indeg > 0) & (outdeg == 0) & inner, (indeg == 0) & (outdeg > 0) & later
    both = matrix + matrix.T
    strength = np.asarray(both.sum(axis=1)).ravel()
    random_start = np.random.default_rng(0).standard_normal(n)
    found = eigsh(both, k=4, ncv=20, v0=random_start, tol=1e-6, return_eigenvectors=False)
    values = np.sort(np.abs(found))[::-1]
    laplacian = sp.diags_array(strength) - both
    radius = eigsh(laplacian, k=1, which="LA", ncv=20, v0=random_start, tol=1e-6, return_eigenvectors=False)
    components = len(plain.connected_components())
    expected = {
        "nodes": n,
        "edges": len(source),
        "sink_nodes": int(sink.sum()),
        "source_nodes": int(start.sum()),
        "disconnected_nodes": int((indeg + outdeg == 0).sum()),
        "removable_out": int(indeg[sink].sum()),
        "removable_in": int(outdeg[start].sum()),
        "one_hop": 1 + len(source) / n,
        "two_hop": _mean_two_hop(matrix),
        "motifs": _four_node_subgraphs(graph),
        "strength": strength.mean(),
        "k_core": float(np.mean(plain.coreness())),
        "components": components,
        "component_size": n / components,
        "cut_edges": len(plain.bridges()),
        "cut_nodes": len(plain.articulation_points()),
        "spectral_gap": values[0] - values[2],
        "spectral_radius": radius[0],
    }
    assert set(expected) == set(METRIC_KEYS)
    assert_matches(mge_gpu.topometrics(graph, metrics=METRIC_KEYS), expected)


def _mean_two_hop(matrix: sp.csr_array) -> float:
    """Size of the pattern of I + A + A A, row by row in pieces that fit memory."""
    n = matrix.shape[0]
    pattern = sp.csr_array((np.ones(matrix.nnz, np.int32), matrix.indices, matrix.indptr), shape=(n, n))
    near = (pattern + sp.eye_array(n, dtype=np.int32)).tocsr()
    return sum((near[k : k + 8192] @ near).nnz for k in range(0, n, 8192)) / n


def _four_node_subgraphs(graph: MultipartiteGraph) -> int:
    """Connected induced 4-node subgraphs, by codegrees and triangles from sparse products.

    No four partitions of the network are mutually linked, so that there is no 4-clique.
    """
    one_way = directed(graph)
    a = (one_way + one_way.T).tocsr()
    assert a.max() == 1 and _has_no_clique_of_partitions(graph)
    n = a.shape[0]
    degree = np.diff(a.indptr)
    squares = triangles = paws = diamonds = 0
    for k in range(0, n, 8192):
        rows = a[k : k + 8192]
        common = (rows @ a).tocsr()  # codegrees; its diagonal, the degrees, is no pair of nodes
        c = common.data
        squares += int((c * (c - 1) // 2).sum())
        squares -= int((degree[k : k + 8192] * (degree[k : k + 8192] - 1) // 2).sum())
        edge = (common * rows).tocsr()
        at_node = np.asarray(edge.sum(axis=1)).ravel() // 2
        triangles += int(at_node.sum())
        paws += int((at_node * np.maximum(degree[k : k + 8192] - 2, 0)).sum())
        diamonds += int((edge.data * (edge.data - 1) // 2).sum())
    squares, triangles, diamonds = squares // 4, triangles // 3, diamonds // 2
    less = degree - 1
    paths = int(less @ (a @ less)) // 2 - 3 * triangles
    claws = sum(int(d) * (int(d) - 1) * (int(d) - 2) // 6 for d in degree)
    return paths + claws - 3 * squares - 2 * paws + 4 * diamonds


def _has_no_clique_of_partitions(graph: MultipartiteGraph) -> bool:
    source, target, _ = edges_of(graph)
    owner = np.repeat(np.arange(len(graph.partitions)), [p.size for p in graph.partitions])
    linked = set(zip(owner[source].tolist(), owner[target].tolist(), strict=True))
    groups = combinations(range(len(graph.partitions)), 4)
    return not any(all(pair in linked for pair in combinations(group, 2)) for group in groups)


# estimates


@pytest.fixture
def no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every count is too expensive to be exact, and samples are small."""
    monkeypatch.setattr("mge_gpu.metrics.sampling.BUDGET", 0)
    monkeypatch.setattr("mge_gpu.metrics.sampling.SAMPLE", 50_000)


@pytest.fixture(scope="module")
def small() -> MultipartiteGraph:
    """A network with triangles (a shortcut convolution) and 4-cliques (concatenations)."""
    torch.manual_seed(3)
    model = DenseNet(growth=4, depth=4, channels=3)
    return mge_gpu.encode(model, (3, 12, 12), random_masks(model, 0.7))


@pytest.mark.parametrize("key", ["motifs", "two_hop"])
def test_estimate_is_within_its_error(key: str, small: MultipartiteGraph, no_budget: None) -> None:
    exact = mge_gpu.topometrics(small, metrics=key, exact=True)
    assert not exact.standard_errors
    expected = reference_of(small)[key]
    assert exact[key] == pytest.approx(expected, rel=1e-12)
    distances = []
    for seed in range(12):
        report = mge_gpu.topometrics(small, metrics=key, seed=seed)
        error = report.standard_errors[key]
        assert 0 < error < 0.2 * expected
        assert "sample" in report.how()[key]
        assert abs(report[key] - expected) <= 4 * error
        distances.append((report[key] - expected) / error)
    # the stated error is neither far too large nor is the estimate off to one side
    assert 0.2 < np.std(distances) < 2.5
    assert abs(np.mean(distances)) < 4 / np.sqrt(len(distances))


def test_estimate_counts_cliques(no_budget: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a graph made of cliques each term matters; many draws leave little of the error."""
    for name, value in {"SAMPLE": 2_000_000, "SURE": 0, "TARGET": 1e-4}.items():
        monkeypatch.setattr(f"mge_gpu.metrics.sampling.{name}", value)
    torch.manual_seed(0)
    graph = mge_gpu.encode(DenseNet(growth=2, depth=6, channels=2), (2, 2, 2), pad_input=False)
    expected = mge_gpu.topometrics(graph, metrics="motifs", exact=True)["motifs"]
    cliques = len(undirected(graph).cliques(4, 4))
    report = mge_gpu.topometrics(graph, metrics="motifs")
    assert 4 * report.standard_errors["motifs"] < cliques / 2
    assert abs(report["motifs"] - expected) <= 4 * report.standard_errors["motifs"] + 1e-9 * expected


def test_estimate_repeats_with_its_seed(small: MultipartiteGraph, no_budget: None) -> None:
    first, again, other = (mge_gpu.topometrics(small, metrics="motifs", seed=s)["motifs"] for s in (5, 5, 6))
    assert first == again != other


def test_exact_within_the_budget_has_no_standard_error(small: MultipartiteGraph) -> None:
    assert not mge_gpu.topometrics(small, metrics=["motifs", "two_hop"]).standard_errors


# edge cases


@pytest.mark.parametrize("budget", ["exact", "estimated"])
def test_network_without_edges(budget: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if budget == "estimated":
        monkeypatch.setattr("mge_gpu.metrics.sampling.BUDGET", 0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))
    nn.init.zeros_(model[0].weight), nn.init.zeros_(model[3].weight)
    report = mge_gpu.topometrics(model, (2, 4, 4))
    n = 2 * 6 * 6 + 3 * 4 * 4 + 5
    assert tuple(report) == EVERY
    ones = {
        "nodes": n,
        "disconnected_nodes": n,
        "components": n,
        "component_size": 1,
        "one_hop": 1,
        "two_hop": 1,
    }
    logs = dict.fromkeys(PATH_KEYS[2:], -math.inf)
    assert dict(report) == {key: (ones | logs).get(key, 0) for key in EVERY}


def test_one_edge() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, -3.0)
    report = mge_gpu.topometrics(layer, (1,))
    assert report["spectral_gap"] == pytest.approx(3.0) and report["spectral_radius"] == pytest.approx(6.0)
    assert (report["motifs"], report["k_core"], report["cut_edges"], report["cut_nodes"]) == (0, 1, 1, 0)


def test_several_outputs_are_no_sinks() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.left, self.right = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.body(x)
            return self.left(x), self.right(x)

    report = mge_gpu.topometrics(Heads(), (3,))
    assert (report["sink_nodes"], report["edges"]) == (0, 12 + 8 + 12)


def test_motifs_of_a_star() -> None:
    """Squares of its degree are more than 32 bits hold: any three leaves are a claw."""
    graph = mge_gpu.encode(torch.nn.Linear(70_000, 1), (70_000,))
    assert mge_gpu.topometrics(graph, metrics="motifs")["motifs"] == math.comb(70_000, 3)


def test_exact_sum_beyond_int64() -> None:
    values = np.array([2**62, 2**62 + 3, 5, 0], np.int64)
    assert exact_sum(values) == 2**63 + 8
    times = np.array([2**30, 1, 2**20, 7], np.int64)
    assert (
        exact_sum(values, times) == sum(int(v) * int(t) for v, t in zip(values, times, strict=True)) > 2**91
    )


# what topometrics promises beside the numbers


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 3))


def test_model_and_graph_give_the_same_report(model: nn.Module) -> None:
    from_model = mge_gpu.topometrics(model, (1, 8, 8), pad_input=False)
    program = mge_gpu.trace(model, (1, 8, 8), pad_input=False)
    from_graph = mge_gpu.topometrics(mge_gpu.encode(program))
    assert dict(from_model) == dict(from_graph) == dict(mge_gpu.topometrics(program))
    assert from_model.info == from_graph.info
    assert from_model.info["input_shape"] == (1, 8, 8) and from_model.info["edges"] == from_model["edges"]


def test_report_says_how_and_how_long(model: nn.Module) -> None:
    report = mge_gpu.topometrics(model, (1, 8, 8))
    assert report.how().keys() == report.seconds.keys() == set(EVERY)
    assert all(report.how().values()) and min(report.seconds.values()) >= 0


def test_some_metrics_reported_in_the_order_asked_for(model: nn.Module) -> None:
    asked = ["k_core", "edges", "k_core"]
    texts: list[tuple[str, float | None]] = []
    report = mge_gpu.topometrics(model, (1, 8, 8), metrics=asked, progress=lambda *a: texts.append(a))
    assert list(report) == ["k_core", "edges"]
    assert texts == [("edges", 0.0), ("k_core", 0.5), ("done", 1.0)]  # cheap first
    assert list(mge_gpu.topometrics(model, (1, 8, 8), metrics="edges")) == ["edges"]
    assert "nodes" not in report and report.normalized()["k-core"] == report["k_core"] / report["edges"]


def test_cheap_metrics_take_no_pass_over_the_edges(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = mge_gpu.topometrics(model, (1, 8, 8))
    graph = mge_gpu.encode(model, (1, 8, 8))
    cheap_ones = (
        *("name", "shares_cores", "active", "within_memory", "prototype", "host"),
        *("counts", "degrees", "total_weight"),
    )
    for name in vars(Backend):
        if not name.startswith("_") and name not in cheap_ones:
            monkeypatch.setattr(f"mge_gpu.backends.cpu.CpuBackend.{name}", None)
    cheap = mge_gpu.topometrics(graph, metrics="cheap")
    assert list(cheap) == [k for k in METRIC_KEYS if k in CHEAP] and len(cheap) == 9
    assert dict(cheap) == {key: complete[key] for key in cheap}
    assert list(mge_gpu.topometrics(graph, metrics=["cheap", "strength"])) == list(cheap)
    with pytest.raises(TypeError):  # the others do take one
        mge_gpu.topometrics(graph, metrics=["cheap", "components"])


def test_unknown_metric(model: nn.Module) -> None:
    with pytest.raises(
        MetricError, match=r"'sinks'.*expected all, cheap or some of nodes, edges, sink_nodes"
    ):
        mge_gpu.topometrics(model, (1, 8, 8), metrics=["edges", "sinks"])


def test_options_of_encode_with_a_graph(model: nn.Module) -> None:
    graph = mge_gpu.encode(model, (1, 8, 8))
    with pytest.raises(MetricError, match="options of encode"):
        mge_gpu.topometrics(graph, (1, 8, 8))
    with pytest.raises(MetricError, match="options of encode"):
        mge_gpu.topometrics(graph, masks={})


def test_registry_is_in_the_order_of_the_table_and_takes_more(model: nn.Module) -> None:
    assert tuple(METRICS) == EVERY and len(METRIC_KEYS) == 18 and len(PATH_KEYS) == 6

    @metric("largest_degree")
    def largest_degree(w: Workspace) -> Measured:
        return Measured(int(w.degree.max()), "degrees")

    try:
        graph = mge_gpu.encode(model, (1, 8, 8))
        report = mge_gpu.topometrics(graph)
        assert list(report) == [*EVERY, "largest_degree"]
        assert report["largest_degree"] == max(undirected(graph).degree())
    finally:
        del METRICS["largest_degree"]


def test_random_states_stay(small: MultipartiteGraph, no_budget: None) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    mge_gpu.topometrics(small)
    assert before[:2] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(before[2], torch.get_rng_state())


def test_values_repeat(small: MultipartiteGraph) -> None:
    assert dict(mge_gpu.topometrics(small)) == dict(mge_gpu.topometrics(small))
