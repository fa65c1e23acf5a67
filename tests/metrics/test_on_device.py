"""All metrics of a graph on a GPU, and on what stands for one."""

import pytest
import torch
from hypothesis import given, settings

import mge_gpu
from mge_gpu.metrics import sampling
from tests.graphs import DenseNet, Tokens, random_masks
from tests.kernels.host_runtime import COMPILER
from tests.oracles.networks import Case
from tests.oracles.strategies import cases

pytestmark = [
    pytest.mark.usefixtures("gpu"),
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: the CUDA kernels are not run here"),
]


def agree(there: mge_gpu.Report, here: mge_gpu.Report) -> None:
    assert list(there) == list(here)
    for key in here:
        assert there[key] == pytest.approx(here[key], rel=1e-5, abs=1e-5), key
        assert isinstance(there[key], int | float), key


@settings(max_examples=15)
@given(cases())
def test_metrics_of_drawn_networks(case: Case) -> None:
    model = case.module()
    here, there = (mge_gpu.encode(model, case.input_shape, device=d) for d in ("cpu", "cuda"))
    assert there.device == torch.device("cuda", 0)
    agree(mge_gpu.topometrics(there), mge_gpu.topometrics(here))


@pytest.mark.parametrize("most", [10**12, 2000])
def test_metrics_of_a_network_with_skips(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact, and estimated from the very same sample; some networks are not of two colours."""
    monkeypatch.setattr(sampling, "BUDGET", most)
    monkeypatch.setattr(sampling, "SAMPLE", most)
    monkeypatch.setattr("mge_gpu.metrics.expansion.FINE_NODES", 0)
    torch.manual_seed(0)
    model = DenseNet(growth=4, depth=4, channels=3)
    masks = random_masks(model, 0.4)
    here, there = (
        mge_gpu.topometrics(mge_gpu.encode(model, (3, 6, 7), masks, device=d)) for d in ("cpu", "cuda")
    )
    assert bool(here.standard_errors) == (most == 2000)
    keys = [k for k in here if k not in here.standard_errors]  # sampled by cost, which is the backend's
    agree({k: there[k] for k in keys}, {k: here[k] for k in keys})  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [("attention", "first", "linear"), ("mean", "shortcut")])
@pytest.mark.parametrize("fine", [0, 1 << 14])
def test_spectra_of_tokens(steps: tuple[str, ...], fine: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token stands for all that are like it."""
    monkeypatch.setattr("mge_gpu.metrics.expansion.FINE_NODES", fine)
    torch.manual_seed(0)
    model = Tokens(steps, "mean")
    masks, keys = random_masks(model, 0.3), ["spectral_gap", "spectral_radius"]
    here, there = (
        mge_gpu.topometrics(mge_gpu.encode(model, (20, 3), masks, device=d), metrics=keys)
        for d in ("cpu", "cuda")
    )
    assert all("orbits" in there.how()[key] for key in keys)
    agree(there, here)


def test_a_batch_of_masks() -> None:
    torch.manual_seed(0)
    model = mge_gpu.models.resnet20()
    masks = [mge_gpu.prune(model, "erk", 0.98, seed=k) for k in range(2)]
    keys = ["spectral_gap", "spectral_radius", "sink_nodes", "k_core"]
    here, there = (
        mge_gpu.topometrics(masks, model=model, input_shape=(3, 8, 8), metrics=keys, device=d)
        for d in ("cpu", "cuda")
    )
    for a, b in zip(there, here, strict=True):
        agree(a, b)


def test_edges_and_conversions() -> None:
    torch.manual_seed(0)
    model = DenseNet(growth=4, depth=3, channels=3)
    masks = random_masks(model, 0.4)
    here, there = (mge_gpu.encode(model, (3, 6, 7), masks, device=d) for d in ("cpu", "cuda"))
    expected = here.to_scipy().tocoo()
    for graph in (here, there):
        found = graph.to_scipy()
        assert found.nnz == graph.num_edges and abs(found - expected).max() < 1e-6
        pieces = list(graph.coo(chunks=97))
        assert max(len(p[0]) for p in pieces) <= 97
        assert sum(len(p[0]) for p in pieces) == graph.num_edges
        weight = torch.cat([p[2] for p in pieces]).double().sum()
        assert float(weight) == pytest.approx(float(expected.sum()), rel=1e-5)
