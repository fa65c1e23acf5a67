"""Uniform, random, ER and ERK: densities against their formulas."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mge_gpu import models
from mge_gpu.pruning import prune
from mge_gpu.pruning.er import densities, er_ratio
from mge_gpu.pruning.erk import erk_ratio

SPARSITIES = (0.6, 0.8, 0.9, 0.95, 0.98)


def layer_densities(masks: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: mask.float().mean().item() for name, mask in masks.items()}


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_uniform_keeps_the_same_share_of_every_layer(sparsity: float) -> None:
    for mask in prune(models.resnet20(), "uniform", sparsity).values():
        assert abs(int(mask.sum()) - (1 - sparsity) * mask.numel()) < 1


def test_random_is_uniform_only_in_expectation() -> None:
    model = models.resnet20()
    counts = [
        {name: int(mask.sum()) for name, mask in prune(model, "random", 0.9, seed=s).items()}
        for s in range(20)
    ]
    name, size = "layer3.2.conv2.weight", 64 * 64 * 9
    values = torch.tensor([float(count[name]) for count in counts])
    assert values.unique().numel() > 5  # the layer's count fluctuates ...
    assert abs(values.mean() - 0.1 * size) < 5 * (0.09 * size / 20) ** 0.5  # ... about its share


@given(
    layers=st.lists(st.tuples(st.integers(1, 2000), st.floats(0.01, 3)), min_size=1, max_size=10),
    density=st.floats(0.005, 1),
)
def test_densities_are_proportional_up_to_dense_layers_and_spend_the_budget(
    layers: list[tuple[int, float]], density: float
) -> None:
    sizes, ratios = [size for size, _ in layers], [ratio for _, ratio in layers]
    found = densities(ratios, sizes, density)
    assert sum(d * n for d, n in zip(found, sizes, strict=True)) == pytest.approx(density * sum(sizes))
    assert all(0 <= d <= 1 + 1e-12 for d in found)
    free = [d / r for d, r in zip(found, ratios, strict=True) if d < 1 - 1e-9]
    assert free == pytest.approx([free[0]] * len(free)) if free else True
    # A layer is dense only if its share would be.
    assert all(free[0] * r >= 1 - 1e-6 for d, r in zip(found, ratios, strict=True) if d >= 1 - 1e-9 and free)


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("method", ["er", "erk"])
def test_resnet20_densities_follow_the_formula(method: str, sparsity: float) -> None:
    """Solved independently: ε by bisection on Σ min(1, ε p_l) N_l = d N."""
    model = models.resnet20()
    shapes = {name: w.shape for name, w in model.named_parameters() if w.ndim > 1}

    def p(shape: torch.Size) -> float:
        kernel = list(shape[2:])
        if method == "er" or not kernel:
            return (shape[1] + shape[0]) / (shape[1] * shape[0])
        return (shape[1] + shape[0] + kernel[0] + kernel[1]) / (shape[1] * shape[0] * kernel[0] * kernel[1])

    total = sum(shape.numel() for shape in shapes.values())
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        kept = sum(min(1.0, middle * p(shape)) * shape.numel() for shape in shapes.values())
        low, high = (middle, high) if kept < (1 - sparsity) * total else (low, middle)
    masks = prune(model, method, sparsity)
    for name, shape in shapes.items():
        expected = min(1.0, low * p(shape)) * shape.numel()
        assert abs(int(masks[name].sum()) - expected) <= 1.001, name


def test_erk_has_the_fix_up_that_the_published_er_lacks() -> None:
    """Without it ResNet-20 ends at density 0.345 where 0.4 was asked (clipped layers waste their budget)."""
    found = layer_densities(prune(models.resnet20(), "erk", 0.6))
    assert sum(value == 1 for value in found.values()) >= 5
    weights = {name: w for name, w in models.resnet20().named_parameters() if w.ndim > 1}
    total = sum(w.numel() for w in weights.values())
    assert sum(found[name] * w.numel() for name, w in weights.items()) / total == pytest.approx(0.4, abs=1e-5)


def test_er_ignores_the_kernel_and_erk_does_not() -> None:
    model = nn.Sequential(nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 5))
    er, erk = (layer_densities(prune(model, method, 0.95)) for method in ("er", "erk"))
    assert er["0.weight"] == pytest.approx(er["1.weight"], abs=0.005)
    assert erk["0.weight"] > 5 * erk["1.weight"]
    assert er_ratio((16, 16, 5, 5)) == er_ratio((16, 16)) == 32 / 256
    assert erk_ratio((16, 8, 5, 3)) == 32 / (16 * 8 * 15)


def test_power_zero_is_uniform() -> None:
    model = models.resnet20()
    found = prune(model, "erk", 0.9, power=0.0)
    for mask in found.values():
        assert abs(int(mask.sum()) - 0.1 * mask.numel()) < 1
