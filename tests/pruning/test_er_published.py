"""The published "er": its ratios, its clipping, and the densities that published tables show."""

import warnings

import pytest
import torch
from torch import nn

from mge_gpu import models
from mge_gpu.errors import PruningError
from mge_gpu.pruning import InexactCountWarning, prune
from mge_gpu.pruning.er_published import published_epsilon


def drawn(model: nn.Module, sparsity: float, seed: int = 0) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InexactCountWarning)
        return prune(model, "er_published", sparsity, seed=seed)


@pytest.mark.parametrize(
    ("network", "asked", "published"),
    [
        ("resnet20", 0.4, 0.345),
        ("resnet20", 0.2, 0.179),
        ("resnet20", 0.1, 0.094),
        ("resnet20", 0.05, 0.049),
        ("resnet20", 0.02, 0.0196),
        ("resnet32", 0.05, 0.0395),
    ],
)
def test_densities_are_those_of_published_tables(network: str, asked: float, published: float) -> None:
    masks = [drawn(getattr(models, network)(), 1 - asked, seed) for seed in range(3)]
    kept = sum(int(mask.sum()) for masks_of_seed in masks for mask in masks_of_seed.values())
    total = sum(mask.numel() for masks_of_seed in masks for mask in masks_of_seed.values())
    deviation = (published / total) ** 0.5  # at most, of independent draws
    assert abs(kept / total - published) < 3 * deviation + 0.0005  # rounded to three digits


def test_each_weight_is_drawn_by_itself_at_its_layers_probability() -> None:
    model = nn.Sequential(nn.Conv2d(40, 60, 3), nn.Linear(60, 4))
    shapes = [(60, 40, 3, 3), (4, 60)]
    epsilon = published_epsilon(shapes, 0.1)
    p = epsilon * 106 / (60 * 40 * 9)
    counts = torch.tensor([int(drawn(model, 0.9, seed)["0.weight"].sum()) for seed in range(40)]).double()
    assert abs(counts.mean() - p * 21600) < 4 * (p * 21600 / 40) ** 0.5
    assert 0.5 < counts.var() / (p * (1 - p) * 21600) < 2
    assert epsilon * 64 / 240 > 1 and drawn(model, 0.9)["1.weight"].all()  # clipped, and not made up for


def test_epsilon_is_a_step_beyond_a_count_within_five() -> None:
    """Walk back: some step size of the schedule leads from a count within 5 weights to the ε that is used."""
    epsilon = published_epsilon([(300, 200), (10, 300)], 0.07)
    wanted, per_epsilon = 0.07 * 63000, 810
    assert abs(epsilon * per_epsilon - wanted) > 5
    steps = [0.5 * 0.95**k for k in range(400)]
    before = [epsilon / (1 + sign * step) for step in steps for sign in (1, -1)]
    assert any(abs(value * per_epsilon - wanted) < 5 for value in before)


def test_a_search_that_does_not_end_is_an_error() -> None:
    with pytest.raises(PruningError, match=r"er_published: no ε .*use erk"):
        published_epsilon([(10**6, 10**6)], 0.9)
