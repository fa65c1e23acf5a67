"""What a user does with a model on a GPU: on what stands for one, and on a GPU."""

import copy
import gc
import importlib.machinery
import importlib.util
import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import mge_gpu
from mge_gpu import doctor
from mge_gpu.backends import DeviceWarning, get_backend
from mge_gpu.backends.cuda.shortage import GpuMemoryWarning
from mge_gpu.cli import app
from mge_gpu.errors import GraphError, NotEnoughMemoryError
from mge_gpu.linalg.lanczos import ConvergenceWarning
from mge_gpu.masks import prunable_parameters
from mge_gpu.model_spec import num_outputs
from mge_gpu.pruning import METHODS
from tests.graphs import DenseNet, random_masks
from tests.kernels.host_runtime import COMPILER
from tests.pruning.tiny import Tiny

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: the CUDA kernels are not run here")

SHAPE = (3, 6, 7)


def network() -> nn.Module:
    torch.manual_seed(0)
    return DenseNet(growth=4, depth=3, channels=3)


def on(place: str, masks: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: mask.to(place) for name, mask in masks.items()}


def assert_reports_agree(there: mge_gpu.Report, here: mge_gpu.Report) -> None:
    assert list(there) == list(here)
    for key in here:
        assert there[key] == pytest.approx(here[key], rel=1e-5, abs=1e-5), key


@pytest.mark.parametrize("masks_on", ["cpu", "cuda"])
def test_a_graph_is_where_its_weights_are(gpu: str, masks_on: str) -> None:
    model = network()
    masks = random_masks(model, 0.4)
    here = mge_gpu.encode(model, SHAPE, masks)
    model.to(gpu)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with warnings.catch_warnings():
        for own in (DeviceWarning, GpuMemoryWarning, ConvergenceWarning):
            warnings.simplefilter("error", own)
        there = mge_gpu.encode(model, SHAPE, on(masks_on, masks))
        reports = [mge_gpu.topometrics(g, metrics=["all", *mge_gpu.metrics.PATH_KEYS]) for g in (there, here)]
    assert there.device.type == "cuda" and there.backend.name == "cuda"
    assert all(x.device.type == "cuda" for x in there.coo())
    assert_reports_agree(*reports)
    for name, weight in model.named_parameters():
        assert weight.device.type == "cuda" and weight.requires_grad and bool((weight == before[name]).all())
    assert mge_gpu.encode(model, SHAPE, device="cpu").device.type == "cpu"


def test_a_batch_of_masks_of_a_model_there(gpu: str) -> None:
    model = network()
    masks = [random_masks(model, s, seed=k) for k, s in enumerate((0.3, 0.6))]
    here = [mge_gpu.topometrics(model, SHAPE, masks=m) for m in masks]
    there = mge_gpu.topometrics([on(gpu, m) for m in masks], SHAPE, model=model.to(gpu))
    for a, b in zip(there, here, strict=True):
        assert_reports_agree(a, b)
        assert "2 masks in one graph" in a.how()["k_core"]


@pytest.mark.parametrize("budget", [0, None])
def test_motifs_are_counted_or_estimated_alike(
    gpu: str, budget: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two steps cost is the same on all devices: so are what is estimated, and the sample."""
    monkeypatch.setattr("mge_gpu.metrics.sampling.SAMPLE", 20_000)
    torch.manual_seed(0)
    model = nn.Sequential(DenseNet(4, 4, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(19 * 36, 5))
    masks = random_masks(model, 0.7)
    here, there = (
        mge_gpu.topometrics(
            model, (3, 12, 12), ["motifs", "two_hop"], masks=masks, budget=budget, device=device
        )
        for device in ("cpu", gpu)
    )
    assert dict(here) == dict(there) and here.standard_errors == there.standard_errors
    assert set(here.standard_errors) == (set(here) if budget == 0 else set())


def test_conversions_and_files(gpu: str, tmp_path: Path) -> None:
    model = network()
    masks = random_masks(model, 0.4)
    here, there = (mge_gpu.encode(model, SHAPE, masks, device=d) for d in ("cpu", gpu))
    matrix, n = here.to_scipy(), here.num_nodes
    assert abs(there.to_scipy() - matrix).max() < 1e-6
    assert there.to_igraph().ecount() == there.to_networkx().number_of_edges() == here.num_edges
    data = there.to_pyg()
    assert {data.edge_index.device.type, data.edge_weight.device.type, data.partition.device.type} == {"cuda"}
    assert data.partition.tolist() == here.to_pyg().partition.tolist()
    source, target, weight = there.coo(index_dtype=torch.int32, dtype=torch.float16)
    assert (source.dtype, target.dtype, weight.dtype) == (torch.int32, torch.int32, torch.float16)
    strength = torch.zeros(n, device=gpu).index_add_(0, target.long(), weight.float())
    np.testing.assert_allclose(strength.tolist(), matrix.sum(0), rtol=1e-2)
    there.save(str(tmp_path / "graph.mge"))
    again = mge_gpu.load(str(tmp_path / "graph.mge"))
    assert copy.deepcopy(there).device == there.device != again.device
    assert again.num_edges == here.num_edges and abs(again.to_scipy() - matrix).max() < 1e-6


def test_outputs_of_a_model_there(gpu: str) -> None:
    assert num_outputs(network().to(gpu), SHAPE) == num_outputs(network(), SHAPE)


def test_ramanujan_of_a_model_there(gpu: str) -> None:
    model = network()
    masks = random_masks(model, 0.4)
    for encoding in ("rolled", "rolled-channel"):
        here = mge_gpu.ramanujan(model, masks, encoding)
        there = mge_gpu.ramanujan(network().to(gpu), on(gpu, masks), encoding)
        pd.testing.assert_frame_equal(there, here, rtol=1e-5)


BY_WEIGHTS = ("uniform", "random", "er", "erk", "er_published", "expander", "magnitude")
"""Methods that do not run the network."""


def pruned(method: str, place: str) -> dict[str, Tensor]:
    torch.manual_seed(1)
    model = Tiny().to(place)
    needs, given = METHODS[method], dict[str, Any]()
    if needs.needs_data:
        given["data"] = [(torch.randn(6, 2, 4, 4), torch.arange(6) % 4) for _ in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masks = mge_gpu.prune(model, method, 0.8, input_shape=(2, 4, 4), seed=0, min_per_layer=4, **given)
    assert set(masks) == set(prunable_parameters(model))
    assert all(mask.device.type == "cpu" and mask.dtype is torch.bool for mask in masks.values())
    assert all(p.device.type == place for p in model.parameters())
    mge_gpu.apply_masks(model, masks)
    assert all(
        bool((weight[~masks[name].to(place)] == 0).all())
        for name, weight in prunable_parameters(model).items()
    )
    return masks


def assert_pruned_alike(method: str, place: str) -> None:
    """The very masks of the CPU where the network is not run; else as many weights, most of them the same."""
    here, there = pruned(method, "cpu"), pruned(method, place)
    same = sum(int((there[name] == mask).sum()) for name, mask in here.items())
    size = sum(mask.numel() for mask in here.values())
    kept = [sum(int(mask.sum()) for mask in masks.values()) for masks in (here, there)]
    assert kept[0] == kept[1]
    assert same == size if method in BY_WEIGHTS else same > 0.8 * size


@pytest.mark.parametrize("method", BY_WEIGHTS)
def test_pruning_by_weights(gpu: str, method: str) -> None:
    assert_pruned_alike(method, gpu)


@pytest.mark.gradients
@pytest.mark.parametrize("method", sorted(set(METHODS) - set(BY_WEIGHTS)))
def test_pruning_by_running_the_network(gpu: str, method: str) -> None:
    assert_pruned_alike(method, gpu)


@pytest.mark.memory
@pytest.mark.filterwarnings("default::mge_gpu.backends.cuda.shortage.GpuMemoryWarning")
def test_a_gpu_without_memory(gpu: str) -> None:
    """The CPU does it all, and says so; edges are refused; afterwards all is as it was."""
    model, shape = mge_gpu.models.resnet20(), (3, 64, 64)
    masks = mge_gpu.prune(model, "erk", 0.5, seed=0)
    keys = ["k_core", "components", "two_hop", "spectral_radius", "log_effective_paths"]
    here = mge_gpu.topometrics(mge_gpu.encode(model, shape, masks), metrics=keys)
    graph = mge_gpu.encode(model, shape, masks, device=gpu)
    torch.cuda.empty_cache()
    before, (_, whole) = torch.cuda.memory_reserved(), torch.cuda.mem_get_info()
    less = before + (1 << 20)  # torch takes twice as much at a time
    torch.cuda.set_per_process_memory_fraction(less / whole)
    try:
        with pytest.warns(GpuMemoryWarning):
            there = mge_gpu.topometrics(graph, metrics=keys)
        with pytest.raises(NotEnoughMemoryError):
            graph.coo()
        assert torch.cuda.memory_reserved() <= less
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert dict(there) == pytest.approx(dict(here), rel=1e-5)
    assert len(graph.coo()[0]) == graph.num_edges


@pytest.mark.memory
def test_arrays_that_only_the_collector_finds_are_freed(gpu: str) -> None:
    """An exception that is kept holds its frame, and the arrays in it, in a cycle."""
    backend: Any = get_backend(gpu)

    def work() -> None:
        kept = []
        with backend.active():
            array = backend.xp.zeros(1 << 20, np.float64)
        try:
            raise KeyError(array.nbytes)
        except KeyError as error:
            kept.append(error)

    before = torch.cuda.memory_allocated()
    for _ in range(3):
        work()
    gc.collect()
    assert torch.cuda.memory_allocated() - before < 1 << 20


def test_doctor_tries_the_kernels(gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if (
        "cupy" not in sys.modules and importlib.util.find_spec("cupy") is None
    ):  # only its version is asked for
        cupy = types.ModuleType("cupy")
        monkeypatch.setattr(cupy, "__version__", "14.2.0", raising=False)
        monkeypatch.setattr(cupy, "__spec__", importlib.machinery.ModuleSpec("cupy", None))
        monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert doctor.check_cupy().status == "ok" and "as expected" in doctor.check_cupy().detail
    monkeypatch.setitem(doctor.TINY_ANSWERS, "motifs", 4)
    assert doctor.check_cupy().status == "failed"
    old = "got CuPy 13.6.0, expected 14.2 or newer"
    monkeypatch.setattr("mge_gpu.backends._cuda_backend", Mock(side_effect=GraphError(old)))
    check = doctor.check_cupy()
    assert (check.status, check.detail) == ("missing", old) and "pip install" in check.hint


def test_from_the_command_line(gpu: str, tmp_path: Path) -> None:
    command = ["analyze", "mge:resnet20", "--input", "3x8x8", "--prune", "erk", "--sparsity", "0.9", "--json"]
    here, there = (
        json.loads(CliRunner().invoke(app, [*command, "--metrics", "cheap,k_core", "--device", d]).stdout)
        for d in ("cpu", gpu)
    )
    assert here["metrics"] == pytest.approx(there["metrics"], rel=1e-6) and "k_core" in here["metrics"]
