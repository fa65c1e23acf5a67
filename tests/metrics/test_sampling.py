"""Estimates against the exact value: within three stated standard errors, and those small."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

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


def whole_layers() -> MultipartiteGraph:
    """Layers that keep all weights, whose wedges take few steps for their number, before sparse ones."""
    torch.manual_seed(0)
    widths = [3, 16, 16, 32, 32, 48]
    model = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)))
    masks = random_masks(model, 0.5)
    masks |= {f"{k}.weight": torch.ones_like(masks[f"{k}.weight"]) for k in range(3)}
    return mge_gpu.encode(model, (3, 12, 12), masks)


@pytest.mark.parametrize("network", [resnet20, conv6, dense_net, whole_layers])
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
    count, population, seed, *base = given[0]
    assert seed == 5 and sum(base) >= 0
    nodes, times, cost, _, part = population
    assert all(graph.partitions[k].offset <= node for k, node in zip(part, nodes, strict=True))
    assert (np.diff(part[np.argsort(nodes)]) >= 0).all()
    values = np.zeros(graph.num_nodes)
    values[nodes] = count(nodes, cost)
    truth = float(values[nodes] @ times)
    total = sum(base) + truth  # the metric, up to the number of nodes
    scale = exact[key] / total
    assert scale == pytest.approx(1 if key == "motifs" else 1 / graph.num_nodes, rel=1e-12)
    monkeypatch.setattr(sampling, "SAMPLE", int(cost.sum()) // 10)
    within, errors = 0, []
    for seed in range(SEEDS):
        found, error = estimate(lambda some, walks: values[some], population, seed, *base)
        within += abs(found - truth) <= 3 * error
        errors.append(error / total)
    assert within >= 95
    few = len(nodes) < 10_000  # a tenth of them are few strata
    assert 0 < np.mean(errors) < (0.015 if few else 0.01)
    assert abs(report[key] - exact[key]) <= 4 * report.standard_errors.get(key, 0) + 1e-9 * exact[key]


def made_up(n: int = 3000, most: float = np.inf) -> tuple[np.ndarray, sampling.Population]:
    """Values with heavy tails, like those of nodes, and a population with a fair guess of them."""
    generator = np.random.default_rng(0)
    cost = np.minimum(generator.pareto(0.8, n) * 10 + 1, most).astype(np.int64)
    value = cost**0.7 * generator.lognormal(0, 0.5, n)
    times, part = generator.integers(1, 1000, n), generator.integers(0, 3, n)
    return value, sampling.Population(np.arange(n), times, cost, cost.astype(np.float64), part)


def test_heavy_tails(monkeypatch: pytest.MonkeyPatch) -> None:
    value, population = made_up()
    times, cost = population.times, population.cost
    monkeypatch.setattr(sampling, "SAMPLE", int(cost.sum()) // 20)
    truth = float(value @ times)
    within, distances = 0, []
    for seed in range(SEEDS):
        found, error = sampling.estimate(lambda n, c: value[n], population, seed)
        within += abs(found - truth) <= 3 * error
        distances.append((found - truth) / error)
    assert within >= 95
    assert 0.5 < np.std(distances) < 1.3, "the stated error is about the true one"
    assert abs(np.mean(distances)) < 4 / np.sqrt(SEEDS), "unbiased"


def test_it_ends_when_it_is_precise_enough_and_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    value, population = made_up(20_000, most=1000)
    times, cost = population.times, population.cost
    walks = []

    def count(nodes: np.ndarray, spent: np.ndarray) -> np.ndarray:
        assert (spent == cost[nodes]).all()
        walks.append(int(spent.sum()))
        return value[nodes]

    monkeypatch.setattr(sampling, "SAMPLE", int(cost.sum()) // 4)
    found, error = sampling.estimate(count, population, 0)
    assert sampling.SAMPLE < sum(walks) and error < 0.01 * found, "beyond its sample where it is not precise"
    walks.clear()
    monkeypatch.setattr(sampling, "BUDGET", sampling.SAMPLE)
    _, error = sampling.estimate(count, population, 0)
    assert sum(walks) <= 1.1 * sampling.SAMPLE
    used, walks[:] = sum(walks), []
    _, looser = sampling.estimate(count, population, 0, base=1e3 * float(value @ times))
    assert sum(walks) < used and len(walks) == 2, "beside what is known exactly one round is enough"
    assert looser < 0.005 * 1e3 * float(value @ times) and error > 0


def test_all_nodes_are_counted_where_they_are_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    value, population = made_up(100)
    times, cost = population.times, population.cost
    monkeypatch.setattr(sampling, "SAMPLE", 20 * int(cost.sum()) + 20)
    found, error = sampling.estimate(lambda n, c: value[n], population, 0)
    assert found == pytest.approx(float(value @ times), rel=1e-12) and error == 0


def test_the_budget_says_what_is_estimated() -> None:
    graph = dense_net()
    exact = mge_gpu.topometrics(graph, metrics=["motifs", "two_hop"])
    assert not exact.standard_errors
    assert not mge_gpu.topometrics(graph, metrics="motifs", exact=True, budget=0).standard_errors
    for key in exact:
        found = mge_gpu.topometrics(graph, metrics=key, budget=0)
        assert found.how()[key] != exact.how()[key]
        assert found[key] == pytest.approx(exact[key], rel=1e-9), "so few nodes are all counted"
