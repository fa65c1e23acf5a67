"""Many masks on a device as one graph: the reports of one by one; the kernels run on the host."""

import math
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import mge_gpu
from mge_gpu.backends.cuda import CudaBackend, collect
from mge_gpu.backends.cuda.resident import resident_block
from mge_gpu.backends.cuda.shortage import GpuMemoryWarning
from mge_gpu.errors import MetricError
from mge_gpu.linalg.lanczos import ConvergenceWarning
from mge_gpu.metrics import PATH_KEYS, batch, expansion, sampling, spectra, sweeps
from mge_gpu.metrics.together import TOGETHER
from tests.backends.test_shortage import ShortRuntime
from tests.graphs import DenseNet, random_masks
from tests.kernels.host_runtime import COMPILER, HostRuntime
from tests.oracles.networks import Case
from tests.oracles.strategies import cases

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: the CUDA kernels are not run here")

SHAPE = (2, 4, 5)
SPECTRA = ["spectral_gap", "spectral_radius"]
LOGARITHMS = PATH_KEYS[2:]
COUNTS = [key for key in TOGETHER if key not in (*SPECTRA, *LOGARITHMS)]
Masks = list[dict[str, torch.Tensor]]
Reports = list[mge_gpu.Report]


def device(monkeypatch: pytest.MonkeyPatch, runtime: HostRuntime) -> CudaBackend:
    """``device="cuda"`` is the CUDA backend over kernels that g++ compiled."""
    backend = CudaBackend(runtime)
    monkeypatch.setattr("mge_gpu.backends._cuda_backend", lambda index: backend)
    return backend


@pytest.fixture(autouse=True)
def kernels_on_the_host(request: pytest.FixtureRequest, one_thread: None) -> None:
    """But for the tests that also run on a GPU."""
    if "gpu" not in request.fixturenames:
        device(request.getfixturevalue("monkeypatch"), HostRuntime())


on_gpu = pytest.mark.usefixtures("gpu")


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
            if key in LOGARITHMS:
                expected = pytest.approx(b[key], rel=1e-12, abs=1e-12)
            assert a[key] == expected and type(a[key]) is type(b[key]), key


@on_gpu
@settings(max_examples=8)
@given(cases())
def test_drawn_networks(case: Case) -> None:
    model = case.module()
    masks = masks_of(model)
    together = measured(masks, model, case.input_shape)
    assert all("4 masks in one graph" in r.how()[key] for r in together for key in TOGETHER)
    equal(together, one_by_one(masks, model, case.input_shape))


@on_gpu
def test_all_metrics_of_a_network_with_cliques(model: nn.Module) -> None:
    masks = masks_of(model)
    found = measured(masks, model, keys="all")
    equal(found, one_by_one(masks, model, keys="all"))
    equal(found, one_by_one(masks, model, where="cuda", keys="all"))
    assert {key for key in found[0] if "in one graph" in found[0].how()[key]} == set(TOGETHER)


class Chain(nn.Module):
    """Layers that share a weight, skips, a weight that reads padding alone, and a pool that overlaps."""

    def __init__(self, depth: int = 12) -> None:
        super().__init__()
        self.first, self.shared = nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
        self.layers = nn.ModuleList(nn.Conv2d(2, 2, 1, bias=False) for _ in range(depth))
        self.last = nn.Linear(2, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.max_pool2d(x + self.shared(x), 3, 1, 1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.last(self.shared(x).mean((2, 3)))


def chain() -> tuple[nn.Module, Masks]:
    """Networks whose path sums are thousands of binary orders apart, and two without a path."""
    torch.manual_seed(3)
    model = Chain()
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, w in weights.items():  # row 0 of ones, row 1 tiny: masks take one of them, or both
            w.uniform_(0.5, 1.0)
            if name.startswith("layers"):
                w[1] *= 2.0**-110
    large, tiny = ({n: torch.ones_like(w) for n, w in weights.items()} for _ in range(2))
    for name in weights:
        if name.startswith("layers"):
            large[name][1], tiny[name][0] = 0, 0
    cut = {n: m.clone() for n, m in large.items()}
    cut["layers.5.weight"][:] = 0
    dead = {n: torch.zeros_like(w) for n, w in weights.items()}
    return model, [large, tiny, {n: torch.ones_like(w) for n, w in weights.items()}, cut, dead]


@on_gpu
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_path_sums_of_very_different_size(where: str) -> None:
    model, masks = chain()
    found = measured(masks, model, (1, 3, 3), PATH_KEYS)
    equal(found, one_by_one(masks, model, (1, 3, 3), where, PATH_KEYS))
    assert [r["l1_path_norm"] == -math.inf for r in found] == [False, False, False, True, True]
    assert found[0]["l1_path_norm"] - found[1]["l1_path_norm"] > 1000 * math.log(2)
    assert found[0]["path_kernel_trace"] - found[1]["path_kernel_trace"] > 2000 * math.log(2)
    assert found[3]["effective_density"] == 0 < found[1]["effective_density"]


class Tokens(nn.Module):
    """Attention among tokens, where channels run fastest, a gate and a layer on what is flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.gate = nn.Linear(4, 12), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).reshape(1, 3, 3, 2, 2).permute(2, 0, 3, 1, 4)
        y = (torch.softmax(q @ k.transpose(-2, -1), -1) @ v).transpose(1, 2).reshape(1, 3, 4)
        x = x + self.out(y)
        return self.head((x * torch.sigmoid(self.gate(x.mean(1, keepdim=True)))).flatten(1))


@on_gpu
def test_paths_through_attention() -> None:
    torch.manual_seed(4)
    model = Tokens()
    masks = masks_of(model)
    found = measured(masks, model, (3, 4), PATH_KEYS)
    assert all("4 masks in one graph" in r.how()[key] for r in found for key in PATH_KEYS)
    equal(found, one_by_one(masks, model, (3, 4), keys=PATH_KEYS))
    assert found[0]["effective_density"] == 1 > found[2]["effective_density"]


@pytest.mark.parametrize("room", [sweeps.HELD, 20, 0])
def test_blocks_go_to_the_device_once_for_all_sweeps(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that there is room for; the same is found in any case."""
    uploads = 0

    def counted(*args: Any) -> Any:
        nonlocal uploads
        uploads += 1
        return resident_block(*args)

    monkeypatch.setattr("mge_gpu.backends.cuda.backend.resident_block", counted)
    monkeypatch.setattr(collect, "SHARED", 1 << 60)  # what reads sums is a block of its own
    monkeypatch.setattr(sweeps, "HELD", room)
    model, masks = chain()
    graph = mge_gpu.encode(model, (1, 3, 3), masks[2], device="cuda")
    equal(
        [mge_gpu.topometrics(graph, metrics=PATH_KEYS)],
        one_by_one(masks[2:3], model, (1, 3, 3), keys=PATH_KEYS),
    )
    assert any(x.number is None for x in graph.flow.links)
    passed = (*graph.flow.links, *(x for x in graph.flow.edges if not x.make()[0].overlaps))
    once = len({x.number if x.number is not None else id(x) for x in passed})
    assert uploads == once if room > 20 else uploads > once


def test_each_kernel_once_for_all_masks(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches do not grow with the number of masks, but for rounds that one of them needs and no other."""

    class Counting(HostRuntime):
        count = 0

        def run(self, source: str, kernel: str, blocks: int, *args: Any) -> None:
            self.count += 1
            super().run(source, kernel, blocks, *args)

    counts = []
    for number in (2, 8):
        runtime = Counting()
        device(monkeypatch, runtime)
        mask = random_masks(model, 0.5)
        measured([mask] * number, model)
        counts.append(runtime.count)
    assert counts[0] == counts[1]


@on_gpu
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
@pytest.mark.parametrize("kernel", ["degrees", "peel", "gather_f64", "clique_counts", "reach", "power_sums"])
def test_fewer_where_memory_is_short(
    kernel: str, failures: int, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halves, then one by one, and at last the CPU."""
    masks = masks_of(model)
    device(monkeypatch, ShortRuntime({kernel: failures}))
    monkeypatch.setattr(HostRuntime, "workers", lambda self, kernel, count, scratch: 1)
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


@on_gpu
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


@on_gpu
def test_what_does_not_converge_is_said_of_its_mask(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = masks_of(model)[:2]
    masks[0] = {name: torch.zeros_like(mask) for name, mask in masks[0].items()}
    monkeypatch.setattr(spectra, "largest_magnitudes", partial(spectra.largest_magnitudes, max_iterations=6))
    with pytest.warns(ConvergenceWarning, match="1 of 2 operators"):
        found = measured(masks, model, keys="spectral_gap")
    assert ["not converged" in r.how()["spectral_gap"] for r in found] == [False, True]


@on_gpu
def test_what_fails_together_goes_one_by_one(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise MetricError("an operator returned NaN or Inf")

    for name in ("largest_magnitudes", "largest_of_each"):
        monkeypatch.setattr(spectra, name, fails)
    masks = masks_of(model)[:2]
    found = measured(masks, model, keys=SPECTRA)
    assert not any("in one graph" in r.how()[key] for r in found for key in SPECTRA)
    equal(found, one_by_one(masks, model, keys=SPECTRA))


@on_gpu
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
