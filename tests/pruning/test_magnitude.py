"""Magnitude: the threshold is global by default and per layer on request."""

import torch
from torch import nn

from mge_gpu import models
from mge_gpu.pruning import prune


def test_global_threshold() -> None:
    torch.manual_seed(0)
    model = models.resnet20()
    masks = prune(model, "magnitude", 0.9)
    weights = dict(model.named_parameters())
    kept = torch.cat([weights[name][mask].abs() for name, mask in masks.items()])
    dropped = torch.cat([weights[name][~mask].abs() for name, mask in masks.items()])
    assert kept.min() >= dropped.max()
    # He initialisation: wide layers lose most
    assert masks["conv1.weight"].float().mean() > 0.5 > 0.1 > masks["layer3.0.conv2.weight"].float().mean()


def test_layer_threshold() -> None:
    torch.manual_seed(0)
    model = models.resnet20()
    weights = dict(model.named_parameters())
    for name, mask in prune(model, "magnitude", 0.9, scope="layer").items():
        assert abs(int(mask.sum()) - 0.1 * mask.numel()) < 1
        assert weights[name][mask].abs().min() >= weights[name][~mask].abs().max()


def test_equal_weights_do_not_overshoot() -> None:
    model = nn.Linear(10, 10)
    nn.init.constant_(model.weight, -0.5)
    assert int(prune(model, "magnitude", 0.75)["weight"].sum()) == 25
