"""Eigenvalues from channel profiles against SciPy, on random networks, with copies and near-copies."""

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from scipy.sparse.linalg import eigsh
from torch import nn

import mge_gpu
from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu import product
from mge_gpu.errors import MetricError
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.linalg.enriched import Symmetric, enriched_eigenvalues
from mge_gpu.linalg.lanczos import ConvergenceWarning
from mge_gpu.linalg.profiles import Layout, Profiles, principal_directions
from tests.graphs import DenseNet, encoded, random_masks
from tests.oracles.networks import Case
from tests.oracles.strategies import cases


def layouts_of(graph: MultipartiteGraph) -> list[Layout]:
    return [Layout(p.offset, p.channels, p.positions, p.channel_dim == 0) for p in graph.partitions]


def operator(blocks: Sequence[Block]) -> product.Operator:
    return product.operator(blocks, blocks, np.float32)


def problems(graph: MultipartiteGraph) -> list[tuple[Symmetric, sp.csr_array, int, str]]:
    """The adjacency and the Laplacian, each as blocks and as a SciPy matrix."""
    apply = operator([b for _, _, b in graph.blocks])
    strength = apply(np.ones(graph.num_nodes, np.float32))
    half = graph.to_scipy().astype(np.float64)
    full = sp.csr_array(half + half.T)
    laplacian = sp.csr_array(sp.diags_array(np.asarray(full.sum(axis=1)).ravel()) - full)
    return [
        (Symmetric(graph.blocks, apply, operator), full, 3, "LM"),
        (Symmetric(graph.blocks, apply, operator, -1.0, strength), laplacian, 1, "LA"),
    ]


def check(graph: MultipartiteGraph, rtol: float = 1e-5, seed: int = 0) -> None:
    for matrix, reference, k, which in problems(graph):
        found, info = enriched_eigenvalues(matrix, layouts_of(graph), k, which=which, tol=3e-5, seed=seed)
        n = reference.shape[0]
        if n < 1500:
            values = np.linalg.eigvalsh(reference.toarray())
        else:
            start = np.random.default_rng(0).standard_normal(n)
            values = eigsh(
                reference, k + 3, which=which, tol=1e-9, ncv=40, v0=start, return_eigenvectors=False
            )
        expected = np.sort(np.abs(values) if which == "LM" else values)[::-1][:k]
        assert info.converged
        np.testing.assert_allclose(np.sort(np.abs(found))[::-1], expected, rtol=rtol)
        assert np.all(info.bounds <= 3e-5 * np.abs(found))


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_convolutions_pools_and_a_classifier(sparsity: float) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 20, 3, padding=1)
            self.c, self.d = nn.Conv2d(12, 20, 1), nn.Linear(20, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.max_pool2d(torch.relu(self.a(x)), 3, 2, 1)
            return self.d((self.b(x) + self.c(x)).mean((2, 3)))

    torch.manual_seed(3)
    model = Net()
    check(mge_gpu.encode(model, (3, 32, 32), random_masks(model, sparsity)))


def test_a_resnet() -> None:
    """ResNet-20 at 95 %: localised eigenvectors, many partitions, strided shortcuts."""
    torch.manual_seed(0)
    model = mge_gpu.models.resnet20()
    check(mge_gpu.encode(model, (3, 12, 12), random_masks(model, 0.95)))


def test_channels_that_run_fastest() -> None:
    """Tokens: a Linear on (T, C), positions and channels in the other order."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 16))
    check(mge_gpu.encode(model, (9, 24), random_masks(model, 0.5)))


def test_odd_cycles_and_overlapping_routes() -> None:
    torch.manual_seed(0)
    model = DenseNet(growth=4, depth=5, channels=3)
    check(mge_gpu.encode(model, (3, 12, 12), random_masks(model, 0.4)))


def test_drawn_networks() -> None:
    compared = 0

    @settings(max_examples=25)
    @given(cases())
    def compare(case: Case) -> None:
        nonlocal compared
        graph = encoded(case)
        if graph.num_nodes < 20:
            return
        check(graph)
        compared += 1

    compare()
    assert compared >= 8


@pytest.mark.parametrize("nearness", [0.0, 1e-4, 1e-2])
def test_copies_in_separate_components(nearness: float) -> None:
    """Three equal branches that share nothing, one of them a little stronger: the value comes three times."""

    def graph_of() -> MultipartiteGraph:
        model = nn.Conv2d(6, 9, 3, padding=1, groups=3, bias=False)
        torch.manual_seed(5)
        model.weight.data[:3] = torch.rand(3, 2, 3, 3)
        model.weight.data[3:6] = model.weight.data[:3] * (1 + nearness)
        model.weight.data[6:] = model.weight.data[:3]
        return mge_gpu.encode(model, (6, 10, 10))

    for seed in range(2):
        check(graph_of(), seed=seed)


def test_what_the_first_profiles_miss_is_found() -> None:
    """A strong channel pair alone among two hundred weak ones."""
    model = nn.Sequential(nn.Conv2d(4, 200, 1, bias=False), nn.Conv2d(200, 200, 1, bias=False))
    torch.manual_seed(0)
    with torch.no_grad():
        model[0].weight.mul_(0.01)
        model[1].weight.copy_(torch.diag(torch.linspace(0.5, 1, 200))[:, :, None, None])
        model[1].weight[77, 77] = 2.0
    graph = mge_gpu.encode(model, (4, 3, 3))
    matrix, reference, k, _ = problems(graph)[0]
    found, _ = enriched_eigenvalues(matrix, layouts_of(graph), k, tol=3e-5)
    expected = np.sort(np.abs(np.linalg.eigvalsh(reference.toarray())))[::-1][:k]
    np.testing.assert_allclose(np.abs(found), expected, rtol=1e-5)


def test_projection_is_the_projected_matrix() -> None:
    """U^T (A + A^T) U and U^T D U, element by element."""
    rng = np.random.default_rng(0)
    model = DenseNet(growth=3, depth=3, channels=2)
    graph = mge_gpu.encode(model, (2, 5, 4), random_masks(model, 0.3))
    layouts = layouts_of(graph)
    bases = [np.linalg.qr(rng.standard_normal((z.channels, 2)))[0].astype(np.float32) for z in layouts]
    space = Profiles(layouts, bases)
    lifted = space.lift(np.eye(space.size, dtype=np.float32))  # rows: the subspace's basis
    np.testing.assert_allclose(lifted @ lifted.T, np.eye(space.size), atol=1e-6)
    half = graph.to_scipy().toarray()
    blocks = space.project(graph.blocks)
    inner = operator(blocks)
    found = np.stack([inner(row) for row in np.eye(space.size, dtype=np.float32)])
    np.testing.assert_allclose(found, lifted @ (half + half.T) @ lifted.T, atol=1e-4)
    d = rng.standard_normal(graph.num_nodes).astype(np.float32)
    add, out = space.diagonal(d), np.zeros((space.size, space.size), np.float32)
    for row, y in zip(np.eye(space.size, dtype=np.float32), out, strict=True):
        add(row, y)
    np.testing.assert_allclose(out, (lifted * d) @ lifted.T, atol=1e-5)
    x = rng.standard_normal((2, graph.num_nodes)).astype(np.float32)
    np.testing.assert_allclose(space.restrict(x), x @ lifted.T, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 3), (5, 40), (60, 7), (60, 80)])
def test_principal_directions(shape: tuple[int, int]) -> None:
    """Low rank plus little: the leading energies and directions are those of the SVD."""
    rng = np.random.default_rng(0)
    low = rng.standard_normal((shape[0], 2)) @ np.diag([10, 3]) @ rng.standard_normal((2, shape[1]))
    x = (low + 1e-3 * rng.standard_normal(shape)).astype(np.float32)
    energy, directions = principal_directions([x[:, :2], x[:, 2:]], rng)
    left, sigma, _ = np.linalg.svd(x.astype(np.float64))
    np.testing.assert_allclose(energy[:2], sigma[:2] ** 2, rtol=1e-3)
    np.testing.assert_allclose(np.abs(directions[:, :2].T @ left[:, :2]), np.eye(2), atol=1e-2)


def test_not_converged_is_said() -> None:
    model = DenseNet(growth=4, depth=5, channels=3)
    graph = mge_gpu.encode(model, (3, 12, 12))
    matrix, _, k, _ = problems(graph)[0]
    with pytest.warns(ConvergenceWarning, match="raise max_products"):
        _, info = enriched_eigenvalues(matrix, layouts_of(graph), k, tol=1e-5, max_products=4)
    assert not info.converged


def test_nan_is_refused() -> None:
    graph = mge_gpu.encode(nn.Conv2d(2, 3, 3), (2, 8, 8))
    matrix = problems(graph)[0][0]._replace(apply=lambda x: x * np.nan)
    with pytest.raises(MetricError, match="NaN or Inf"):
        enriched_eigenvalues(matrix, layouts_of(graph), 3)


def test_threads_of_torch_are_left_as_they_were() -> None:
    graph = mge_gpu.encode(nn.Conv2d(8, 8, 3), (8, 12, 12))
    before = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(graph)
    assert torch.get_num_threads() == before
