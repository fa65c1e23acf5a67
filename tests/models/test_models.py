"""The paper's networks: node counts by forward hooks, shapes, initialisation."""

import math

import pytest
import torch
from torch import nn

from mge_gpu import models

PUBLISHED_NODES = {
    "resnet20": 191_894,
    "resnet32": 306_582,
    "wide_resnet28_2": 478_614,
    "conv6": 233_366,
    "mobilenet_v2": 1_676_182,
}


def count_nodes(model: nn.Module) -> int:
    """Padded input elements plus the outputs of each parametric layer but the summed shortcuts."""
    sizes: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):

            def hook(_m: nn.Module, _i: object, out: torch.Tensor, name: str = name) -> None:
                sizes[name] = out[0].numel()

            handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    for handle in handles:
        handle.remove()
    return 3 * 34 * 34 + sum(size for name, size in sizes.items() if "shortcut" not in name)


@pytest.mark.parametrize(("name", "expected"), PUBLISHED_NODES.items())
def test_published_node_counts(name: str, expected: int) -> None:
    build = getattr(models, name)
    assert count_nodes(build()) == expected
    assert count_nodes(build(num_classes=100)) == expected + 90


@pytest.mark.parametrize(
    ("name", "shortcuts"),
    [("resnet20", 2), ("resnet32", 2), ("wide_resnet28_2", 3), ("conv6", 0), ("mobilenet_v2", 4)],
)
def test_shortcuts_are_one_by_one_convolutions(name: str, shortcuts: int) -> None:
    found = [
        module
        for path, module in getattr(models, name)().named_modules()
        if isinstance(module, nn.Conv2d) and "shortcut" in path
    ]
    assert len(found) == shortcuts
    assert all(module.kernel_size == (1, 1) for module in found)


def test_resnet20_dense_edges_give_the_expected_edges_at_ninety_percent() -> None:
    """The number of valid taps of all layers; 10 % of it is near the 3,748,577 edges of one uniform draw."""
    model = models.resnet20()
    edges = 0
    handles = []

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], _out: torch.Tensor) -> None:
        nonlocal edges
        weight, ones = module.weight, torch.ones_like(inputs[0][:1])
        if module is model.conv1:  # its padding belongs to the input partition
            edges += weight.numel() * 32 * 32
        elif isinstance(module, nn.Conv2d):
            taps = nn.functional.conv2d(
                ones, torch.ones_like(weight), stride=module.stride, padding=module.padding
            )
            edges += int(taps.sum())
        else:
            edges += weight.numel() * 8 * 8  # the classifier reaches every pooled position

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    assert 0.1 * edges == pytest.approx(3_748_577, rel=0.01)


@pytest.mark.parametrize("name", PUBLISHED_NODES)
def test_he_initialisation_is_seeded_by_the_user(name: str) -> None:
    build = getattr(models, name)
    torch.manual_seed(3)
    first = build()
    torch.manual_seed(3)
    second = build()
    for (key, a), (_, b) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(a, b), key
    for key, weight in first.named_parameters():
        if weight.ndim > 1 and weight.numel() > 2000:
            std = math.sqrt(2 / weight[0].numel())
            assert weight.std().item() == pytest.approx(std, rel=0.1), key
        if key.endswith("bias"):
            assert not weight.any(), key


@pytest.mark.parametrize("bad", [0, -1, 2.5, True])
def test_bad_num_classes(bad: object) -> None:
    for name in PUBLISHED_NODES:
        with pytest.raises(ValueError, match="num_classes"):
            getattr(models, name)(num_classes=bad)


@pytest.mark.parametrize("name", PUBLISHED_NODES)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = getattr(models, name)()
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["digits_resnet", "digits_mlp", "digits_mobilenet"])
def test_networks_for_digits_take_digits(name: str) -> None:
    for classes in (10, 3):
        model = getattr(models, name)(num_classes=classes)
        assert model(torch.zeros(2, 1, 8, 8)).shape == (2, classes)
