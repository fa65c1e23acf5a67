"""Many masks on a device as one graph: the reports of one by one; the kernels run on the host."""

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import nn

import mge_gpu
from mge_gpu.backends.cuda import CudaBackend
from mge_gpu.backends.cuda.shortage import GpuMemoryWarning
from mge_gpu.metrics import METRIC_KEYS, batch, sampling
from mge_gpu.metrics.together import TOGETHER
from tests.backends.test_shortage import ShortRuntime
from tests.graphs import DenseNet, random_masks
from tests.kernels.host_runtime import COMPILER, HostRuntime
from tests.oracles.networks import Case
from tests.oracles.strategies import cases

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: the CUDA kernels are not run here")

SPECTRA = ("spectral_gap", "spectral_radius")
SHAPE = (2, 6, 7)
Masks = list[dict[str, torch.Tensor]]


def device(monkeypatch: pytest.MonkeyPatch, runtime: HostRuntime) -> CudaBackend:
    """``device="cuda"`` is the CUDA backend over kernels that g++ compiled."""
    backend = CudaBackend(runtime)
    monkeypatch.setattr("mge_gpu.backends._cuda_backend", lambda index: backend)
    return backend


@pytest.fixture(autouse=True)
def kernels_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    device(monkeypatch, HostRuntime())


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return DenseNet(growth=3, depth=4)


def masks_of(model: nn.Module) -> Masks:
    """All weights, some, very few, and a layer cut off."""
    found = [random_masks(model, s, seed=k) for k, s in enumerate((0.0, 0.5, 0.97, 0.4))]
    name = list(found[3])[len(found[3]) // 2]
    found[3][name] = torch.zeros_like(found[3][name])
    return found


def measured(
    model: nn.Module, shape: tuple[int, ...], masks: Masks, keys: Any = METRIC_KEYS, where: str = "cuda"
) -> list[mge_gpu.Report]:
    return mge_gpu.topometrics(masks, shape, keys, model=model, device=where)


def equal(together: list[mge_gpu.Report], alone: list[mge_gpu.Report]) -> None:
    for a, b in zip(together, alone, strict=True):
        assert list(a) == list(b) and a.info == b.info and a.standard_errors == b.standard_errors
        for key in a:
            expected = pytest.approx(b[key], rel=1e-4, abs=1e-5) if key in SPECTRA else b[key]
            assert a[key] == expected and type(a[key]) is type(b[key]), key


def one_by_one(model: nn.Module, shape: tuple[int, ...], masks: Masks, where: str) -> list[mge_gpu.Report]:
    """A call for each, of the same order."""
    return [mge_gpu.topometrics(model, shape, METRIC_KEYS, masks=m, device=where) for m in masks]


@settings(max_examples=12)
@given(cases())
def test_drawn_networks(case: Case) -> None:
    model = case.module()
    masks = masks_of(model)
    together = measured(model, case.input_shape, masks)
    assert all("4 masks in one graph" in r.how()[key] for r in together for key in TOGETHER)
    equal(together, one_by_one(model, case.input_shape, masks, "cuda"))
    equal(together, one_by_one(model, case.input_shape, masks, "cpu"))


def test_a_network_with_cliques(model: nn.Module) -> None:
    masks = masks_of(model)
    equal(measured(model, SHAPE, masks), one_by_one(model, SHAPE, masks, "cpu"))


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
        measured(model, SHAPE, [mask] * number, TOGETHER)
        counts.append(runtime.count)
    assert counts[0] == counts[1]


def test_what_is_estimated_goes_one_by_one(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "BUDGET", 2000)
    monkeypatch.setattr(sampling, "SAMPLE", 2000)
    masks = masks_of(model)
    together = measured(model, SHAPE, masks)
    assert together[0].standard_errors and not together[2].standard_errors
    equal(together, one_by_one(model, SHAPE, masks, "cuda"))
    exact = mge_gpu.topometrics(masks, SHAPE, TOGETHER, model=model, device="cuda", exact=True)
    assert not any(r.standard_errors for r in exact) and "in one graph" in exact[0].how()["motifs"]


def test_as_many_as_fit_go_together(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = masks_of(model)
    nodes = mge_gpu.trace(model, SHAPE).num_nodes
    for fitting, how in ((3, "3 masks in one graph"), (1, "breadth-first search")):
        memory = 2 * fitting * nodes * batch.NODE
        monkeypatch.setattr(HostRuntime, "available_memory", lambda self, memory=memory: memory)
        found = measured(model, SHAPE, masks, TOGETHER)
        assert how in found[0].how()["components"]
        assert "together" not in found[3].how()["components"]
        for a, b in zip(found, one_by_one(model, SHAPE, masks, "cpu"), strict=True):
            assert dict(a) == {key: b[key] for key in TOGETHER}


@pytest.mark.parametrize("failures, how", [(1, "2 masks in one graph"), (-1, None)])
@pytest.mark.parametrize("kernel", ["degrees", "peel_nodes", "wedge_counts"])
def test_fewer_where_memory_is_short(
    kernel: str, failures: int, how: str | None, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halves, then one by one, and at last the CPU."""
    masks = masks_of(model)
    device(monkeypatch, ShortRuntime({kernel: failures}))
    monkeypatch.setattr(HostRuntime, "workers", lambda self, count, scratch: 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = measured(model, SHAPE, masks, TOGETHER)
    texts = [str(w.message) for w in caught if w.category is GpuMemoryWarning]
    assert "too short for 4 masks at the same time: 2 go together" in texts[0]
    if how is None:
        assert any("2 masks at the same time: they go one by one" in text for text in texts)
        assert any("computed on the CPU" in text for text in texts)
    assert how is None or all("masks in one graph" in r.how()["motifs"] for r in found)
    for a, b in zip(found, one_by_one(model, SHAPE, masks, "cpu"), strict=True):
        assert dict(a) == {key: b[key] for key in TOGETHER}


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
