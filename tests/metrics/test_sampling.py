"""Estimates against the exact value: within three stated standard errors, and those small."""

from typing import Any

import numpy as np
import pytest
import torch

import mge_gpu
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.metrics import sampling
from tests.graphs import DenseNet, random_masks

SEEDS = 100


def resnet20() -> MultipartiteGraph:
    torch.manual_seed(0)
    model = mge_gpu.models.resnet20()
    return mge_gpu.encode(model, (3, 32, 32), random_masks(model, 0.9))


def conv6() -> MultipartiteGraph:
    torch.manual_seed(0)
    model = mge_gpu.models.conv6()
    return mge_gpu.encode(model, (3, 32, 32), random_masks(model, 0.98))


def dense_net() -> MultipartiteGraph:
    torch.manual_seed(0)
    model = DenseNet(growth=8, depth=6, channels=3)
    return mge_gpu.encode(model, (3, 16, 16), random_masks(model, 0.8))


@pytest.mark.parametrize("network", [resnet20, conv6, dense_net])
@pytest.mark.parametrize("key", ["motifs", "two_hop"])
def test_true_errors_of_100_seeds(key: str, network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tenth of the walks that the exact count takes. Each node is counted once, for all seeds."""
    graph = network()
    exact = mge_gpu.topometrics(graph, metrics=key)
    assert not exact.standard_errors
    given: list[Any] = []
    estimate = sampling.estimate
    monkeypatch.setattr(sampling, "estimate", lambda *a: given.append(a) or estimate(*a))
    monkeypatch.setattr(sampling, "BUDGET", 0)
    report = mge_gpu.topometrics(graph, metrics=key, seed=5)
    count, nodes, times, cost, seed, *base = given[0]
    assert seed == 5 and sum(base) >= 0
    values = np.zeros(graph.num_nodes)
    values[nodes] = count(nodes, cost)
    truth = float(values[nodes] @ times)
    total = sum(base) + truth  # the metric, up to the number of nodes
    scale = exact[key] / total
    assert scale == pytest.approx(1 if key == "motifs" else 1 / graph.num_nodes, rel=1e-12)
    monkeypatch.setattr(sampling, "SAMPLE", int(cost.sum()) // 10)
    within, errors = 0, []
    for seed in range(SEEDS):
        found, error = estimate(lambda some, walks: values[some], nodes, times, cost, seed, *base)
        within += abs(found - truth) <= 3 * error
        errors.append(error / total)
    assert within >= 95
    assert 0 < np.mean(errors) < 0.01
    assert abs(report[key] - exact[key]) <= 4 * report.standard_errors.get(key, 0) + 1e-9 * exact[key]


def sizes(n: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, multiplicities and costs with heavy tails, like those of nodes."""
    generator = np.random.default_rng(seed)
    cost = (generator.pareto(0.8, n) * 10 + 1).astype(np.int64)
    return cost**0.7 * generator.lognormal(0, 0.5, n), generator.integers(1, 1000, n), cost


def test_heavy_tails(monkeypatch: pytest.MonkeyPatch) -> None:
    value, times, cost = sizes()
    monkeypatch.setattr(sampling, "SAMPLE", int(cost.sum()) // 20)
    truth = float(value @ times)
    within, distances = 0, []
    for seed in range(SEEDS):
        found, error = sampling.estimate(lambda n, c: value[n], np.arange(len(value)), times, cost, seed)
        within += abs(found - truth) <= 3 * error
        distances.append((found - truth) / error)
    assert within >= 95
    assert 0.5 < np.std(distances) < 1.3, "the stated error is about the true one"
    assert abs(np.mean(distances)) < 4 / np.sqrt(SEEDS), "unbiased"


def test_it_ends_when_it_is_precise_enough_and_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    value, times, cost = sizes(20_000)
    cost = np.minimum(cost, 1000)
    walks = []

    def count(nodes: np.ndarray, spent: np.ndarray) -> np.ndarray:
        assert (spent == cost[nodes]).all()
        walks.append(int(spent.sum()))
        return value[nodes]

    monkeypatch.setattr(sampling, "SAMPLE", int(cost.sum()) // 4)
    found, error = sampling.estimate(count, np.arange(len(value)), times, cost, 0)
    assert sampling.SAMPLE < sum(walks) and error < 0.01 * found, "beyond its sample where it is not precise"
    walks.clear()
    monkeypatch.setattr(sampling, "BUDGET", sampling.SAMPLE)
    _, error = sampling.estimate(count, np.arange(len(value)), times, cost, 0)
    assert sum(walks) <= 1.1 * sampling.SAMPLE
    used, walks[:] = sum(walks), []
    _, looser = sampling.estimate(
        count, np.arange(len(value)), times, cost, 0, base=1e3 * float(value @ times)
    )
    assert sum(walks) < used and len(walks) == 2, "beside what is known exactly one round is enough"
    assert looser < 0.005 * 1e3 * float(value @ times) and error > 0


def test_all_nodes_are_counted_where_they_are_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    value, times, cost = sizes(100)
    monkeypatch.setattr(sampling, "SAMPLE", 4 * int(cost.sum()))
    found, error = sampling.estimate(lambda n, c: value[n], np.arange(100), times, cost, 0)
    assert found == pytest.approx(float(value @ times), rel=1e-12) and error == 0
