"""NPB on networks: densities, bounds, path counts against autograd, effective nodes, refusals."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mge_gpu.errors import PruningError
from mge_gpu.pruning import LayerCollapseWarning, npb, prune
from mge_gpu.pruning._copy import dense_copy
from mge_gpu.pruning._units import unit_graph
from mge_gpu.pruning.npb import _add_paths, _inflow
from tests.oracles.networks import Case
from tests.oracles.strategies import cases


class Net(nn.Module):
    """Residual, concatenation, depthwise convolution, pool and classifier, without activations."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, width, 3, padding=1, bias=False)
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.down, self.side = nn.Conv2d(width, 8, 3, 2, 1, bias=False), nn.Conv2d(width, 8, 1, 2, bias=False)
        self.depth = nn.Conv2d(width + 8, width + 8, 3, padding=1, groups=width + 8, bias=False)
        self.fc = nn.Linear(4 * (width + 8), 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.conv(x) + x
        y = self.down(x) + self.side(x)
        z = self.depth(torch.cat([nn.functional.avg_pool2d(x, 2) * 4, y], 1))
        return self.fc((nn.functional.avg_pool2d(z, 2) * 4).flatten(1))


SHAPE = (2, 8, 8)


def test_path_counts_are_gradients_of_the_network_of_ones() -> None:
    torch.manual_seed(0)
    model = Net()
    masks = prune(model, "random", 0.6, seed=1)
    for name, weight in model.named_parameters():
        weight.data = masks[name].float()
    outputs: dict[str, Tensor] = {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda _m, _i, out, name=name: outputs.__setitem__(name, out))
    model(torch.ones(1, *SHAPE))
    network, weights = dense_copy(model)
    graph = unit_graph(network, weights, SHAPE)
    kept = np.concatenate([m.flatten().numpy() for m in masks.values()] + [np.ones(len(graph.fixed), bool)])
    paths = [np.zeros((n, p)) for n, p in zip(np.diff(graph.offset), graph.positions, strict=True)]
    paths[0][:] = 1
    for layer in graph.layers:
        inflow = _inflow(graph, layer, paths)
        _add_paths(graph, layer, kept, inflow, paths)
        if layer.name not in outputs:
            continue
        weight = model.get_submodule(layer.name).weight
        (expected,) = torch.autograd.grad(outputs[layer.name].sum(), weight, retain_graph=True)
        found = np.broadcast_to(
            inflow.sum(2).reshape(layer.groups, 1, -1, inflow.shape[1]), layer.by_group(layer.weights).shape
        )
        assert np.allclose(found.ravel(), expected.flatten().numpy())


def test_layer_counts_are_those_of_the_density() -> None:
    model = Net()
    for density in ("erk", "er", "uniform"):
        found = prune(model, "npb", 0.7, input_shape=SHAPE, density=density)
        expected = prune(model, density, 0.7)
        assert [int(m.sum()) for m in found.values()] == pytest.approx(
            [int(m.sum()) for m in expected.values()], abs=1
        )


@pytest.mark.parametrize("options", [{}, {"chunk": 4}, {"max_p": 3, "min_n": 2}])
def test_bounds_hold_and_every_channel_is_used(options: dict[str, Any]) -> None:
    masks = prune(Net(), "npb", 0.8, input_shape=SHAPE, **options)
    kernels = {name: m.flatten(2).sum(2) for name, m in masks.items() if m.ndim == 4}
    for name in ("conv.weight", "down.weight"):
        assert int(kernels[name].max()) <= options.get("max_p", 5)
    least = options.get("min_n", 1)
    for name in ("conv.weight", "down.weight"):
        assert int(kernels[name].sum(0).min()) >= least
        assert int(kernels[name].sum(1).min()) >= (1 if "chunk" in options else least)


def test_more_units_are_effective_than_in_a_random_mask_of_the_same_densities() -> None:
    torch.manual_seed(0)
    model = Net(16)
    network, weights = dense_copy(model)
    graph = unit_graph(network, weights, SHAPE)

    def effective(masks: dict[str, Tensor]) -> tuple[int, int]:
        kept = np.concatenate([m.flatten().numpy() for m in masks.values()])
        kept = np.concatenate([kept, np.ones(len(graph.fixed), bool)])
        forth, back = graph.reached(kept)
        return int((forth & back).sum()), int(graph.effective(kept)[: graph.prunable].sum())

    ours = effective(prune(model, "npb", 0.95, input_shape=SHAPE))
    others = [effective(prune(model, "erk", 0.95, seed=s)) for s in range(5)]
    assert all(ours[0] > units and ours[1] > weights for units, weights in others)


@settings(max_examples=10, deadline=None)
@given(case=cases(), sparsity=st.sampled_from([0.0, 0.5, 0.9]), chunk=st.sampled_from([None, 1, 2]))
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_drawn_networks_get_the_exact_count(case: Case, sparsity: float, chunk: int | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)
        masks = prune(case.module(), "npb", sparsity, input_shape=case.input_shape, chunk=chunk)
    total = sum(m.numel() for m in masks.values())
    assert sum(int(m.sum()) for m in masks.values()) == round((1 - sparsity) * total)


def test_weights_off_every_path_move_to_the_fullest_kernels() -> None:
    layer = unit_graph(*dense_copy(nn.Conv2d(2, 2, (1, 3))), (2, 1, 3)).layers[0]
    chosen = np.array([[[1, 1, 1], [1, 1, 0]], [[0, 1, 0], [1, 0, 0]]], bool)
    on_path = np.array([0, 0, 0, 1, 1, 1], bool).reshape(1, 1, 2, 3)  # channel 0 is dead: four weights astray
    moved = npb._reassigned(layer, chosen, on_path, np.random.default_rng(0))
    assert moved.sum() == chosen.sum() and moved[:, 1].all() and moved[:, 0].sum() == 1
    fewer = np.array([[[1, 0, 0], [1, 1, 0]], [[0, 0, 0], [1, 0, 0]]], bool)
    assert npb._reassigned(layer, fewer, on_path, np.random.default_rng(0))[0, 1].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "alpha must be a number from 0 to 1"),
        ({"beta": -1}, "beta must be"),
        ({"beta": float("nan")}, "beta must be"),
        ({"max_p": 0}, "max_p must be a positive integer"),
        ({"min_n": 1.5}, "min_n must be"),
        ({"chunk": 0}, "chunk must be"),
        ({"density": "flat"}, "density must be one of erk, er, uniform, got 'flat'"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        prune(Net(), "npb", 0.5, input_shape=SHAPE, **options)
