"""Many masks on a device as one graph: the reports of one by one; the kernels run on the host."""

import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import mge_gpu
from mge_gpu.backends.cuda import CudaBackend
from mge_gpu.backends.cuda.shortage import GpuMemoryWarning
from mge_gpu.errors import MetricError
from mge_gpu.linalg.lanczos import ConvergenceWarning
from mge_gpu.metrics import batch, expansion, sampling, spectra
from mge_gpu.metrics.together import TOGETHER
from tests.backends.test_shortage import ShortRuntime
from tests.graphs import DenseNet, random_masks
from tests.kernels.host_runtime import COMPILER, HostRuntime
from tests.oracles.networks import Case
from tests.oracles.strategies import cases

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: the CUDA kernels are not run here")

SHAPE = (2, 4, 5)
SPECTRA = ["spectral_gap", "spectral_radius"]
COUNTS = [key for key in TOGETHER if key not in SPECTRA]
Masks = list[dict[str, torch.Tensor]]
Reports = list[mge_gpu.Report]


def device(monkeypatch: pytest.MonkeyPatch, runtime: HostRuntime) -> CudaBackend:
    """``device="cuda"`` is the CUDA backend over kernels that g++ compiled."""
    backend = CudaBackend(runtime)
    monkeypatch.setattr("mge_gpu.backends._cuda_backend", lambda index: backend)
    return backend


@pytest.fixture(autouse=True)
def kernels_on_the_host(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    device(monkeypatch, HostRuntime())


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return DenseNet(growth=2, depth=4)


def masks_of(model: nn.Module) -> Masks:
    """All weights, some, very few, and a layer cut off."""
    found = [random_masks(model, s, seed=k) for k, s in enumerate((0.0, 0.5, 0.97, 0.4))]
    name = list(found[3])[len(found[3]) // 2]
    found[3][name] = torch.zeros_like(found[3][name])
    return found


def measured(masks: Masks, model: nn.Module, shape: tuple[int, ...] = SHAPE, keys: Any = TOGETHER) -> Reports:
    return mge_gpu.topometrics(masks, shape, keys, model=model, device="cuda")


def one_by_one(
    masks: Masks, model: nn.Module, shape: tuple[int, ...] = SHAPE, where: str = "cpu", keys: Any = TOGETHER
) -> Reports:
    return [mge_gpu.topometrics(model, shape, keys, masks=m, device=where) for m in masks]


def equal(together: Reports, alone: Reports) -> None:
    """Counts to the last bit."""
    for a, b in zip(together, alone, strict=True):
        assert list(a) == list(b) and a.info == b.info and a.standard_errors == b.standard_errors
        for key in a:
            expected = b[key] if key in COUNTS else pytest.approx(b[key], rel=1e-5, abs=1e-6)
            assert a[key] == expected and type(a[key]) is type(b[key]), key


@settings(max_examples=8)
@given(cases())
def test_drawn_networks(case: Case) -> None:
    model = case.module()
    masks = masks_of(model)
    together = measured(masks, model, case.input_shape)
    assert all("4 masks in one graph" in r.how()[key] for r in together for key in TOGETHER)
    equal(together, one_by_one(masks, model, case.input_shape))


def test_all_metrics_of_a_network_with_cliques(model: nn.Module) -> None:
    masks = masks_of(model)
    found = measured(masks, model, keys="all")
    equal(found, one_by_one(masks, model, keys="all"))
    equal(found, one_by_one(masks, model, where="cuda", keys="all"))
    assert {key for key in found[0] if "in one graph" in found[0].how()[key]} == set(TOGETHER)


def test_each_kernel_once_for_all_masks(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches do not grow with the number of masks, but for rounds that one of them needs and no other."""

    class Counting(HostRuntime):
        count = 0

        def launch(self, source: str, kernel: str, blocks: int, *args: Any) -> None:
            self.count += blocks > 0
            super().launch(source, kernel, blocks, *args)

    counts = []
    for number in (2, 8):
        runtime = Counting()
        device(monkeypatch, runtime)
        mask = random_masks(model, 0.5)
        measured([mask] * number, model)
        counts.append(runtime.count)
    assert counts[0] == counts[1]


def test_what_is_estimated_goes_one_by_one(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "BUDGET", 2000)
    monkeypatch.setattr(sampling, "SAMPLE", 2000)
    masks = masks_of(model)
    together = measured(masks, model)
    assert together[0].standard_errors and not together[2].standard_errors
    equal(together, one_by_one(masks, model, where="cuda"))
    exact = mge_gpu.topometrics(masks, SHAPE, TOGETHER, model=model, device="cuda", exact=True)
    assert not any(r.standard_errors for r in exact) and "in one graph" in exact[0].how()["motifs"]


@pytest.mark.parametrize("fitting, how", [(3, "3 masks in one graph"), (1, None)])
def test_as_many_as_fit_go_together(
    fitting: int, how: str | None, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = masks_of(model)
    memory = 2 * fitting * mge_gpu.trace(model, SHAPE).num_nodes * batch.NODE
    monkeypatch.setattr(HostRuntime, "available_memory", lambda self: memory)
    found = measured(masks, model)
    said = [r.how()["components"].partition("; ")[2] or None for r in found]
    assert said == [how, how, how, None]
    equal(found, one_by_one(masks, model))


@pytest.mark.parametrize("failures", [1, -1])
@pytest.mark.parametrize("kernel", ["degrees", "peel_nodes", "product_f64", "wedge_counts"])
def test_fewer_where_memory_is_short(
    kernel: str, failures: int, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halves, then one by one, and at last the CPU."""
    masks = masks_of(model)
    device(monkeypatch, ShortRuntime({kernel: failures}))
    monkeypatch.setattr(HostRuntime, "workers", lambda self, count, scratch: 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = measured(masks, model)
    texts = " ".join(str(w.message) for w in caught if w.category is GpuMemoryWarning)
    assert "too short for 4 masks at the same time: 2 go together" in texts
    assert ("2 masks at the same time: they go one by one" in texts) == (failures == -1)
    assert ("it is computed on the CPU" in texts) == (failures == -1)
    assert all(("2 masks in one graph" in r.how()["motifs"]) == (failures == 1) for r in found)
    equal(found, one_by_one(masks, model))


class Twins(nn.Module):
    """Two halves with the same weights, so that each eigenvalue is there twice; two colours."""

    def __init__(self, shortcut: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 6, 3, padding=1, groups=2), nn.Conv2d(6, 4, 1, groups=2)
        self.c = nn.Conv2d(2, 4, 1, groups=2) if shortcut else None
        for layer in self.children():
            half = layer.weight.data.chunk(2)
            half[1].copy_(half[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(torch.relu(self.a(x)))
        return y if self.c is None else y + self.c(x)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("shortcut", [False, True])
def test_spectra_against_all_eigenvalues(
    shortcut: bool, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies, with two colours and without, beside a network without edges and random ones."""
    monkeypatch.setattr(expansion, "FINE_NODES", 0 if single else 1 << 14)
    torch.manual_seed(0)
    model = Twins(shortcut)
    masks = [random_masks(model, s, seed=k) for k, s in enumerate((0.0, 0.5, 0.0, 0.8))]
    masks[2] = {name: torch.zeros_like(mask) for name, mask in masks[2].items()}
    found = measured(masks, model, (2, 5, 4), SPECTRA)
    for mask, report in zip(masks, found, strict=True):
        half = mge_gpu.encode(model, (2, 5, 4), mask).to_scipy().toarray().astype(np.float64)
        full = half + half.T
        values = np.sort(np.abs(np.linalg.eigvalsh(full)))[::-1]
        radius = np.linalg.eigvalsh(np.diag(full.sum(0)) - full)[-1]
        near = (1e-5 if single else 1e-7) * values[0] + 1e-12
        assert report["spectral_gap"] == pytest.approx(values[0] - values[2], abs=near)
        assert report["spectral_radius"] == pytest.approx(radius, rel=1e-5, abs=1e-12)
        assert all("4 masks in one graph" in report.how()[key] for key in SPECTRA)


def test_what_does_not_converge_is_said_of_its_mask(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = masks_of(model)[:2]
    masks[0] = {name: torch.zeros_like(mask) for name, mask in masks[0].items()}
    monkeypatch.setattr(spectra, "largest_magnitudes", partial(spectra.largest_magnitudes, max_iterations=6))
    with pytest.warns(ConvergenceWarning, match="1 of 2 operators"):
        found = measured(masks, model, keys="spectral_gap")
    assert ["not converged" in r.how()["spectral_gap"] for r in found] == [False, True]


def test_what_fails_together_goes_one_by_one(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise MetricError("an operator returned NaN or Inf")

    for name in ("largest_magnitudes", "largest_of_each"):
        monkeypatch.setattr(spectra, name, fails)
    masks = masks_of(model)[:2]
    found = measured(masks, model, keys=SPECTRA)
    assert not any("in one graph" in r.how()[key] for r in found for key in SPECTRA)
    equal(found, one_by_one(masks, model, keys=SPECTRA))


def test_progress_and_seconds(model: nn.Module) -> None:
    said: list[tuple[str, float | None]] = []
    found = mge_gpu.topometrics(
        masks_of(model)[:2],
        SHAPE,
        ["nodes", "k_core", "components"],
        model=model,
        device="cuda",
        progress=lambda text, share: said.append((text, share)),
    )
    both = [f"{key} of masks 0 to 1" for key in ("components", "k_core")]
    assert [text for text, _ in said] == [*both, "nodes of masks 0", "nodes of masks 1", "done"]
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert all(set(r.seconds) == {"nodes", "k_core", "components"} for r in found)
