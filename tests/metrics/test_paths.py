"""Path metrics against every path of small graphs, written down, and autograd of the linearised model."""

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mge_gpu
from mge_gpu.backends.cuda import CudaBackend
from mge_gpu.backends.cuda.shortage import GpuMemoryWarning
from mge_gpu.masks import masks_of
from mge_gpu.metrics import METRICS, PATH_KEYS, Workspace, sweeps
from tests.graphs import encoded, random_masks
from tests.kernels.host_runtime import HostRuntime
from tests.oracles.networks import Case
from tests.oracles.paths import all_paths, effective_weights, path_metrics
from tests.oracles.strategies import cases

NETWORKS = 40


def test_drawn_networks() -> None:
    """All sums over paths where these can be written down, and the effective weights in any case."""
    compared = counted = 0

    @settings(max_examples=NETWORKS)
    @given(cases(), st.booleans(), st.booleans())
    def compare(case: Case, pad_input: bool, identity_skips: bool) -> None:
        nonlocal compared, counted
        graph = encoded(case, pad_input=pad_input, identity_skips=identity_skips)
        report = mge_gpu.topometrics(graph, metrics=PATH_KEYS)
        effective, reference = effective_weights(case, pad_input)
        count = sum(int(mask.sum()) for mask in effective.values())
        assert report["effective_density"] == count / graph.flow.weights
        compared += 1
        expected = path_metrics(case, pad_input, reference)
        if expected is None:
            return
        counted += 1
        for key, value in expected.items():
            assert report[key] == pytest.approx(value, rel=1e-6, abs=1e-6), key

    compare()
    assert compared >= NETWORKS and counted >= NETWORKS / 4


class Residual(nn.Module):
    """A pool that overlaps, an identity skip behind it, a concatenation and a gate, without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.b, self.c = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.Conv2d(6, 4, 1, bias=False)
        self.gate, self.d = nn.Conv2d(4, 4, 1, bias=False), nn.Linear(4, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(torch.relu(self.norm(self.a(x))), 3, 2, 1)
        x = torch.cat([x, x + torch.relu(self.b(x))], 1)
        x = self.c(x)
        return self.d((x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))).mean((2, 3)))


def linear(model: Residual, x: torch.Tensor) -> torch.Tensor:
    """The same network without normalisation and activations, with sums for pools and products."""
    ones = torch.ones(3, 1, 3, 3, dtype=x.dtype)
    x = torch.nn.functional.conv2d(model.a(x), ones, stride=2, padding=1, groups=3)
    x = torch.cat([x, x + model.b(x)], 1)
    x = model.c(x)
    return model.d((x + model.gate(x.sum((2, 3), keepdim=True))).sum((2, 3)))


def response(model: Residual, power: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Summed output of the linear network with |w|^power on ones, and its derivatives by weight."""
    twin = copy.deepcopy(model).double()
    weights = {n: p for n, p in twin.named_parameters() if p.dim() > 1}
    with torch.no_grad():
        for p in weights.values():
            p.abs_().pow_(power)
    total = linear(twin, torch.ones(1, 2, 7, 6, dtype=torch.float64)).sum()
    gradients = torch.autograd.grad(total, list(weights.values()))
    return total.detach(), dict(zip(weights, gradients, strict=True))


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8])
def test_autograd_of_the_linear_network(sparsity: float) -> None:
    torch.manual_seed(1)
    model = Residual()
    masks = random_masks(model, sparsity)
    mge_gpu.apply_masks(model, masks)
    report = mge_gpu.topometrics(model, (2, 7, 6), PATH_KEYS)
    one, two = response(model, 1), response(model, 2)
    weights = dict(model.named_parameters())
    trace = sum(float(g[weights[n] != 0].sum()) for n, g in two[1].items())
    assert report["l1_path_norm"] == pytest.approx(float(one[0].log()), rel=1e-6)
    assert report["l2_path_norm"] == pytest.approx(float(two[0].log()) / 2, rel=1e-6)
    assert report["path_kernel_trace"] == pytest.approx(math.log(trace), rel=1e-6)
    flowing = {n: (g > 0) & (weights[n] != 0) for n, g in one[1].items()}
    found = mge_gpu.metrics.effective_masks(mge_gpu.trace(model, (2, 7, 6)), masks)
    assert found.keys() == flowing.keys()
    assert all(torch.equal(found[n], flowing[n]) for n in found)
    total = sum(mask.numel() for mask in found.values())
    assert report["effective_density"] == sum(int(m.sum()) for m in found.values()) / total
    model.eval()
    x = torch.randn(3, 2, 7, 6)
    before = model(x)
    mge_gpu.apply_masks(model, found)
    assert torch.equal(before, model(x))


def test_dense_perceptron_has_the_product_of_its_widths() -> None:
    widths = (5, 7, 4, 3)
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)))
    report = mge_gpu.topometrics(model, (5,), PATH_KEYS)
    assert report["log_effective_paths"] == pytest.approx(math.log(5 * 7 * 4 * 3), abs=1e-12)
    assert (report["effective_density"], report["effective_nodes"]) == (1.0, 19)


def test_one_edge_is_one_path() -> None:
    """Routes that meet in one edge, and a skip beside a layer, are one path but two in the norms."""

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + (self.a(x) + self.b(x))

    model = Parallel()
    nn.init.constant_(model.a.weight, 2.0), nn.init.constant_(model.b.weight, -3.0)
    for skips in (False, True):
        report = mge_gpu.topometrics(model, (1,), PATH_KEYS, identity_skips=skips)
        assert report["log_effective_paths"] == 0
        assert report["l1_path_norm"] == pytest.approx(math.log(2 + 3 + 1))
        assert report["l2_path_norm"] == pytest.approx(math.log(4 + 9 + 1) / 2)
        assert report["path_kernel_trace"] == pytest.approx(math.log(2))


def test_no_path() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.zeros_(model[2].weight)
    report = mge_gpu.topometrics(model, (3,), PATH_KEYS)
    assert (report["effective_density"], report["effective_nodes"]) == (0, 0)
    assert [report[key] for key in PATH_KEYS[2:]] == [-math.inf] * 4


def test_nothing_overflows() -> None:
    """130 layers of 300 x 300 have 300^131 > 10^324 paths; norms scale with the product of the weights."""
    depth, width = 130, 300
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(depth)))
    program = mge_gpu.trace(model, (width,))
    paths = (depth + 1) * math.log(width)
    for scale in (1e-30, 1e30):
        for layer in model:
            nn.init.constant_(layer.weight, scale)
        report = mge_gpu.topometrics(program, metrics=PATH_KEYS)
        assert report["log_effective_paths"] == pytest.approx(paths, rel=1e-12)
        assert report["l1_path_norm"] == pytest.approx(paths + depth * math.log(scale), rel=1e-6)
        assert report["l2_path_norm"] == pytest.approx(paths / 2 + depth * math.log(scale), rel=1e-6)
        trace = paths + math.log(depth) + 2 * (depth - 1) * math.log(scale)
        assert report["path_kernel_trace"] == pytest.approx(trace, rel=1e-6)


def test_weights_of_very_different_size_in_one_layer() -> None:
    """The larger weight leads nowhere; the square of the other is no float32."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [1e-25]]))
        model[1].weight.copy_(torch.tensor([[0.0, 1.0]]))
    report = mge_gpu.topometrics(model, (1,), ["l2_path_norm"])
    assert report["l2_path_norm"] == pytest.approx(math.log(1e-25), rel=1e-6)


def test_a_shared_weight_counts_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.relu(self.a(torch.relu(self.a(x)))))

    model = Twice()
    with torch.no_grad():
        model.a.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        model.b.weight.copy_(torch.tensor([[1.0, 0.0]]))
    report = mge_gpu.topometrics(model, (2,), PATH_KEYS)
    # only a[0, 0] twice, then b[0, 0]
    assert report["effective_density"] == 2 / 6 and report["log_effective_paths"] == 0
    assert report["path_kernel_trace"] == pytest.approx(math.log(3))
    found = mge_gpu.metrics.effective_masks(mge_gpu.trace(model, (2,)), masks_of(model))
    assert found["a.weight"].tolist() == [[True, False], [False, False]]


def test_slices_of_one_parameter() -> None:
    """Each layer's weights are those of its slice; what only the unused slice feeds is not effective."""

    class Slices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 4, bias=False), nn.Linear(2, 1, bias=False)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            w = self.a.weight
            x = torch.nn.functional.linear(x, w[:2].flip(0)) + torch.nn.functional.linear(x, w[2:])
            return self.b(x)

    model = Slices()
    with torch.no_grad():
        model.b.weight.copy_(torch.tensor([[1.0, 0.0]]))  # reads row 1 of the first slice, 0 of the second
    expected = torch.tensor([[0, 0], [1, 1], [1, 1], [0, 0]], dtype=torch.bool)
    expected[1, 0] = False
    masks = {"a.weight": torch.ones(4, 2), "b.weight": torch.tensor([[1, 0]])}
    masks["a.weight"][1, 0] = 0
    found = mge_gpu.metrics.effective_masks(mge_gpu.trace(model, (2,)), masks)
    assert torch.equal(found["a.weight"], expected)
    report = mge_gpu.topometrics(model, (2,), PATH_KEYS, masks=masks)
    assert report["effective_density"] == (3 + 1) / 10


def test_effective_masks_whatever_new_tensors_are_made_on() -> None:
    """Masks are the host's, also where torch makes tensors elsewhere unless told."""
    program = mge_gpu.trace(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), (2,))
    masks = {"1.weight": torch.tensor([[True, False, True]])}
    expected = mge_gpu.metrics.effective_masks(program, masks)
    torch.set_default_device("meta")
    try:
        found = mge_gpu.metrics.effective_masks(program, masks)
    finally:
        torch.set_default_device(None)
    assert found.keys() == expected.keys() and all(torch.equal(found[n], expected[n]) for n in found)


def test_effective_masks_where_a_gpu_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """What primitives cannot help with is said, and done on the CPU."""
    torch.manual_seed(0)
    model = Residual()
    program, masks = mge_gpu.trace(model, (2, 7, 6)), random_masks(model, 0.6)
    expected, made = mge_gpu.metrics.effective_masks(program, masks), sweeps.Course.marks

    def marks(course: sweeps.Course, given: Any) -> Any:
        if not course.backend.shares_cores:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return made(course, given)

    monkeypatch.setattr(sweeps.Course, "marks", marks)
    monkeypatch.setattr("mge_gpu.backends._cuda_backend", lambda index: CudaBackend(HostRuntime()))
    with pytest.warns(GpuMemoryWarning, match="effective masks: they are found on the CPU"):
        found = mge_gpu.metrics.effective_masks(program, masks, device="cuda")
    assert all(torch.equal(found[n], expected[n]) for n in expected)


@pytest.mark.parametrize("connected", [True, False])
def test_weights_that_are_computed_otherwise(connected: bool) -> None:
    """A standardised kernel depends on all its parameters: they are effective together."""

    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2, bias=False), nn.Linear(2, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            w = self.a.weight - self.a.weight.mean(1, keepdim=True)
            return self.b(torch.nn.functional.linear(x, w))

    kept = torch.tensor([[True, True, False], [False, False, True]])
    masks = {"a.weight": kept, "b.weight": torch.tensor([[connected, False]])}
    found = mge_gpu.metrics.effective_masks(mge_gpu.trace(Standardised(), (3,)), masks)
    assert torch.equal(found["a.weight"], kept & connected)


def test_tap_that_reads_padding_only() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten(), nn.Linear(1, 1))
    for pad in (False, True):
        report = mge_gpu.topometrics(model, (1, 1, 1), PATH_KEYS, pad_input=pad)
        assert report["effective_density"] == 2 / 10 and report["effective_nodes"] == 3


def test_only_what_is_returned_is_an_output() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(2, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x)[:, :1]

    report = mge_gpu.topometrics(Half(), (2,), PATH_KEYS)
    assert report["effective_density"] == 2 / 8 and report["effective_nodes"] == 3


@settings(max_examples=8)
@given(cases())
def test_paths_of_a_rolled_graph_are_its_edges(case: Case) -> None:
    graph = encoded(case, encoding="rolled")
    report = mge_gpu.topometrics(graph, metrics=PATH_KEYS)
    expected = math.log(graph.num_edges) if graph.num_edges else -math.inf
    assert report["log_effective_paths"] == pytest.approx(expected)


def test_paths_of_the_oracle() -> None:
    """A diamond with a shortcut, by hand."""
    edges = dict.fromkeys([(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)], 1.0)
    assert sorted(all_paths(edges, (0,), (3,), 100) or ()) == [(0, 1, 3), (0, 2, 3), (0, 3)]
    assert all_paths(edges, (0,), (3,), 3) is None


def test_metrics_share_their_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    workspace = Workspace(mge_gpu.encode(model, (3,)))
    first = [METRICS[key](workspace).value for key in PATH_KEYS]
    monkeypatch.setattr("mge_gpu.metrics.sweeps.norms", None)
    monkeypatch.setattr("mge_gpu.metrics.sweeps.reached", None)
    assert [METRICS[key](workspace).value for key in PATH_KEYS] == first


def test_the_graph_stays_a_snapshot() -> None:
    """Weights that change after `encode` do not change what is measured of the graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.manual_seed(0)
        model = Residual()
        graph = mge_gpu.encode(model, (2, 7, 6))
        expected = dict(mge_gpu.topometrics(mge_gpu.encode(model, (2, 7, 6)), metrics=PATH_KEYS))
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(0.5)
        assert dict(mge_gpu.topometrics(graph, metrics=PATH_KEYS)) == expected
